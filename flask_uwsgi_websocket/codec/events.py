"""The events of a connection: messages as they are, and four rarer things.

A text message is a bare ``str``, a binary one bare ``bytes``: only the payload itself is allocated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from ..exceptions import RemoteProtocolError


@dataclass(frozen=True, slots=True)
class Ping:
    """RFC 6455 5.5.2: to be answered by ``pong(data)`` with the same data.

    Where several wait, an answer to the last is enough (5.5.3: "If an endpoint receives a Ping
    frame and has not yet sent Pong frame(s) in response to previous Ping frame(s), the endpoint
    MAY elect to send a Pong frame for only the most recently processed Ping frame").
    """

    data: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """RFC 6455 5.5.3: the answer to one of our pings, or unasked; never to be answered."""

    data: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """RFC 6455 5.5.1: the peer's Close; the last event. Unless we sent ours, it is to be answered.

    :param code: 1005 when the frame had none (7.1.5); ``close(code)`` takes that as well.
    """

    code: int
    reason: str


@dataclass(frozen=True, slots=True)
class Fail:
    """RFC 6455 7.1.7: the peer broke the protocol; the last event.

    Send ``close(error.close_code, error.reason)``, unless our Close is out already. Before the
    connection is ended, a peer that is still sending should be allowed to finish: once it has sent
    its Close, the protocol's ``close_received`` is true.
    """

    error: RemoteProtocolError


Event: TypeAlias = "str | bytes | Ping | Pong | Close | Fail"
