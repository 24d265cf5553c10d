"""What one connection may cost."""

from __future__ import annotations

from dataclasses import dataclass

from ..helpers.checks import BYTES, BYTES_OR_NONE, SECONDS, SECONDS_OR_NONE


@dataclass(frozen=True)
class Limits:
    """What a connection may cost. Sizes in bytes, times in seconds.

    :raises ValueError: for a value that cannot be meant.
    """

    #: Grace for a closing handshake, and for a handler whose connection has ended.
    timeout: float = 5
    #: Largest message, all fragments together, after decompression.
    max_message_size: int = 1 << 20  # uWSGI's own default for websocket-max-size
    ping_interval: float = 25
    ping_timeout: float = 20
    #: Bytes queued for a peer that does not read, before ``send`` waits.
    send_queue_size: int = 256 * 1024
    #: Longest wait of ``send`` without a byte taken by the peer.
    send_timeout: float = 20

    def __post_init__(self) -> None:
        for name, kind in _LIMITS.items():
            kind.check(name, getattr(self, name))


_LIMITS = {
    "timeout": SECONDS_OR_NONE,
    "max_message_size": BYTES,
    "ping_interval": SECONDS_OR_NONE,
    "ping_timeout": SECONDS,
    "send_queue_size": BYTES_OR_NONE,
    "send_timeout": SECONDS,
}
