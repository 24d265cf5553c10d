"""The figures of one route in one process."""

from __future__ import annotations

from _thread import RLock
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from .closes import Closes
from .histogram import Histogram
from .observers import By, End, Observers
from .snapshot import Compression, RouteSnapshot
from .traffic import Traffic, seconds_open

#: In seconds.
PING_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
DURATION_BOUNDS = (0.1, 1, 10, 60, 600, 3600, 4 * 3600, 12 * 3600, 24 * 3600)


class Deflate(Protocol):
    """As much of permessage-deflate as is counted: bytes of payload, inflated and compressed."""

    inflated: int
    inflated_from: int
    deflated: int
    deflated_to: int


class Connection(Protocol):
    """As much of a connection as is counted."""

    traffic: Traffic
    worker: Any
    protocol: Any
    close_code: int | None
    close_reason: str | None

    @property
    def closed_by(self) -> By: ...

    @property
    def queued(self) -> int: ...


class RouteMetrics:
    """The figures of one route of an extension, in one process; for any thread.

    :param pattern: of the URL, as the app has it.
    :param lock: the extension's one lock: what it guards is no matter of single messages.
    """

    def __init__(self, pattern: str, lock: RLock, observers: Observers) -> None:
        self.pattern = pattern
        self._lock = lock
        self._observers = observers
        self._accepted = self._open = self._errors = self._limited = 0
        #: Rises with each figure but those of connections that are open.
        self._changes = 0
        self._latest: tuple[Any, RouteSnapshot] | None = None
        self._refused: Counter[str] = Counter()
        self._slow: Counter[str] = Counter()
        self._ended = _Totals()
        self._closes = Closes()
        self._ping = Histogram(PING_BOUNDS)
        self._duration = Histogram(DURATION_BOUNDS)

    def opened(self) -> None:
        """Count a connection whose handshake was accepted."""
        with self._lock:
            self._accepted += 1
            self._open += 1
            self._changes += 1

    def ended(self, connection: Connection) -> None:
        """Count an end, and take the connection out of its worker's: both in one step.

        So that it is always in one of the two, and no figure ever falls.
        """
        with self._lock:
            connection.worker.connections.pop(connection, None)
            deflate = connection.protocol.deflate
            self.fold(connection.traffic, connection.closed_by, connection.close_code, deflate)

    def fold(
        self, traffic: Traffic, by: By, code: int | None, deflate: Deflate | None = None
    ) -> None:
        """Count the end of a connection, by what is left of it."""
        with self._lock:
            self._open -= 1
            self._ended.add_one(traffic, deflate)
            self._closes.count(by, code or 1006)
            self._duration.observe(seconds_open(traffic))
            self._changes += 1

    def refused(self, reason: str) -> None:
        """Count a request that was refused; see :meth:`.WorkerMetrics.report_refusal`."""
        with self._lock:
            self._refused[reason] += 1
            self._changes += 1

    def failed(self) -> None:
        """Count an exception of a handler's."""
        with self._lock:
            self._errors += 1
            self._changes += 1

    def limited(self) -> None:
        """Count a connection, the first time that it sends faster than it may."""
        with self._lock:
            self._limited += 1
            self._changes += 1

    def pinged(self, seconds: float) -> None:
        """Count the answer to a ping."""
        with self._lock:
            self._ping.observe(seconds)
            self._changes += 1
        self._observers.timed("ping", self.pattern, seconds)

    def slowed(self, what: Literal["closed", "dropped", "conflated"], n: int = 1) -> None:
        """Count a client that was closed since it reads too slowly, or messages it did not get."""
        with self._lock:
            self._slow[what] += n
            self._changes += 1

    def notify_opened(self, client: Any) -> None:
        """Notify the observers that a connection is open."""
        self._observers.notify("opened", client)

    def notify_closed(self, client: Any, connection: Connection) -> None:
        """Notify the observers that a connection has ended."""
        if not self._observers:
            return
        traffic = connection.traffic
        end = End(
            code=connection.close_code or 1006,
            reason=connection.close_reason or "",
            by=connection.closed_by,
            seconds=seconds_open(traffic),
            messages_received=traffic.messages_received,
            messages_sent=traffic.messages_sent,
            bytes_received=traffic.bytes_received,
            bytes_sent=traffic.bytes_sent,
            error=traffic.error,
            route=self.pattern,
        )
        self._observers.notify("closed", client, end)

    def snapshot(self, connections: Sequence[Connection] = ()) -> RouteSnapshot:
        """Return the figures, with those of its open connections; under the lock.

        They are the same object for as long as nothing changes: whoever keeps them makes use of
        that, and nobody may change them.
        """
        totals = self._ended.with_open(connections) if connections else self._ended
        queued = sum([connection.queued for connection in connections])
        state = self._changes, queued, totals
        if self._latest is None or self._latest[0] != state:
            self._latest = state, self._snapshot(totals, queued)
        return self._latest[1]

    def _snapshot(self, totals: _Totals, queued: int) -> RouteSnapshot:
        return {
            "open": self._open,
            "accepted": self._accepted,
            "refused": dict(self._refused),
            "messages_received": totals.messages_received,
            "messages_sent": totals.messages_sent,
            "bytes_received": totals.bytes_received,
            "bytes_sent": totals.bytes_sent,
            "queued_bytes": queued,
            "closed": self._closes.snapshot(),
            "errors": self._errors,
            "limited": self._limited,
            "slow": {
                "closed": self._slow["closed"],
                "dropped": self._slow["dropped"],
                "conflated": self._slow["conflated"],
            },
            "ping": self._ping.snapshot(),
            "duration": self._duration.snapshot(),
            "compression": totals.compression(),
        }


@dataclass
class _Totals:
    """The traffic of several connections."""

    messages_received: int = 0
    messages_sent: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    inflated: int = 0
    inflated_from: int = 0
    deflated: int = 0
    deflated_to: int = 0

    def with_open(self, connections: Sequence[Connection]) -> _Totals:
        """Return them with those of connections that are open."""
        totals = replace(self)
        deflates = [connection.protocol.deflate for connection in connections]
        totals.add(
            [connection.traffic for connection in connections],
            [deflate for deflate in deflates if deflate is not None],
        )
        return totals

    def add(self, traffics: list[Traffic], deflates: list[Deflate]) -> None:
        # In lists, which take half the time: there may be thousands, and the loop waits.
        self.messages_received += sum([each.messages_received for each in traffics])
        self.messages_sent += sum([each.messages_sent for each in traffics])
        self.bytes_received += sum([each.bytes_received for each in traffics])
        self.bytes_sent += sum([each.bytes_sent for each in traffics])
        self.inflated += sum([each.inflated for each in deflates])
        self.inflated_from += sum([each.inflated_from for each in deflates])
        self.deflated += sum([each.deflated for each in deflates])
        self.deflated_to += sum([each.deflated_to for each in deflates])

    def add_one(self, traffic: Traffic, deflate: Deflate | None) -> None:
        # Without the lists, which take ten times as long as the sums: each connection ends once.
        self.messages_received += traffic.messages_received
        self.messages_sent += traffic.messages_sent
        self.bytes_received += traffic.bytes_received
        self.bytes_sent += traffic.bytes_sent
        if deflate is not None:
            self.inflated += deflate.inflated
            self.inflated_from += deflate.inflated_from
            self.deflated += deflate.deflated
            self.deflated_to += deflate.deflated_to

    def compression(self) -> Compression:
        return {
            "received": {"bytes": self.inflated, "compressed": self.inflated_from},
            "sent": {"bytes": self.deflated, "compressed": self.deflated_to},
        }
