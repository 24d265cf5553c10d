"""How a connection ends.

::

    open ──── close(), or the worker stops: we send Close ──► closing ──► ended
      │                                                     (peer's Close, end of file, timeout)
      ├─────── peer's Close, or it breaks the protocol ────► pending ──► ended
      │                          (answered when the handler has come to it, see below; what
      │                          a peer that broke the protocol still sends is discarded first)
      └─────── peer vanished: end of file, reset, no pong ─────────────► ended, code 1006

The peer's Close stands in line behind the messages that came before it: a handler that echoes
gets its last echo out before our Close answers (RFC 6455 5.5.1: an endpoint "MAY delay sending
a Close frame until its current message is sent"), for at most :data:`CLOSE_GRACE` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from socket import SHUT_RDWR, SHUT_WR
from typing import Any

from ..codec import Close, Fail
from ..codec.frames import check_close
from .sending import Sending

#: Seconds of silence after which a peer that broke the protocol, and is not within a frame, is
#: through.
SILENCE = 0.1
#: Seconds for which the answer to the peer's Close waits for the handler's last reply.
CLOSE_GRACE = 1.0


class Closing(Sending):
    """The end of a connection, up to the peer's end of file."""

    __slots__ = ("_closers", "_ended_at", "_peer_done", "_pending", "_send_failed")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        self._pending: Close | Fail | None = None  # the end that stands behind the messages
        self._peer_done = False  # its Close, a violation or end of file: nothing more to read
        self._closers = 0  # how many wait in the closing handshake
        self._send_failed = False
        self._ended_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether it makes sense to go on: nobody closed, or messages still wait."""
        return not self.ended and (self._pending is None or bool(self._messages))

    @property
    def overdue(self) -> bool:
        """Whether the handler has had ``timeout`` seconds since the end, and goes on."""
        return self.ended and time.monotonic() - self._ended_at >= self.limits.timeout

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """The closing handshake (RFC 6455 7.1.2), at most ``timeout`` seconds long."""
        self.start_closing(code, reason)
        timeout = self.limits.timeout
        self._closers += 1
        try:
            await self._drain(0, timeout)
            await self._wait_input(lambda: self._peer_done, time.monotonic() + timeout)
        except TimeoutError:
            self.abort()
        else:
            # RFC 6455 7.1.1: the server closes the TCP connection first.
            self._close_output()
        finally:
            self._closers -= 1

    def start_closing(self, code: int, reason: str = "") -> None:
        """Send Close, or answer the peer's; does not wait."""
        with self._lock:
            self._reply_close()
            if not self.ended:
                check_close(code, reason)
                self._send_close(self.protocol.close(code, reason), code, reason)
            self._messages.clear()
            self._resume_reading()
        self._wake()

    def _peer_closes(self, event: Close | Fail) -> None:
        """The peer has sent its Close, or broken the protocol."""
        self._peer_done = isinstance(event, Close)
        if self.ended:
            self._finish_output(event)
        elif self._replying or self._messages:
            self._pending = event
            self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
        else:
            self._pending = event
            self._reply_close()
        self._wake()

    def _reply_close(self) -> None:
        """The handler has come to the peer's Close or violation, or took too long: answer."""
        with self._lock:
            pending, self._pending = self._pending, None
            if pending is None or self.ended:
                return
            if isinstance(pending, Close):
                code, reason = pending.code, pending.reason
                # RFC 6455 5.5.1: "the endpoint typically echos the status code it received".
                frame = self.protocol.close(code)
            else:
                code, reason = pending.error.close_code, pending.error.reason
                frame = self.protocol.close(code, reason)
            self._send_close(frame, code, reason)
            self._finish_output(pending)
        self._wake()

    def _reply_close_late(self) -> None:
        """Answer the peer's Close, unless the handler still works through its messages."""
        if self._messages and self._replying:
            self._replying = False  # True again once it has taken the next one
            self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
        else:
            self._reply_close()

    def _finish_output(self, event: Close | Fail) -> None:
        """Half-close, once the peer can take it.

        A peer that broke the protocol may be in the middle of sending. uWSGI's router, and nginx,
        cut a connection of which one side has ended while the other sends, and our Close is lost.
        """
        if isinstance(event, Close) or self.protocol.close_received:
            self._end_discarding()
        else:
            self._saw_traffic = False
            self._read_ahead = 0
            self._resume_reading()
            deadline = time.monotonic() + self.limits.timeout
            self.worker.call_later(SILENCE, partial(self._look_for_silence, deadline))

    def _look_for_silence(self, deadline: float) -> None:
        """See whether a peer that broke the protocol, and is read to be discarded, is through."""
        if self._peer_done:
            return
        heard, self._saw_traffic = self._saw_traffic, False
        if not heard and not self.protocol.is_sending:
            self._end_discarding()
        elif time.monotonic() < deadline:
            self.worker.call_later(SILENCE, partial(self._look_for_silence, deadline))
        else:
            self.abort()

    def _end_discarding(self) -> None:
        self._peer_done = True
        self._close_output()
        self._wake()

    def _send_close(self, frame: bytes, code: int, reason: str) -> None:
        """Send our Close, the one and last frame that ends the connection."""
        self._end(code, reason)  # first: what a failing write comes upon must not answer again
        self._write_control(frame)

    def _end(self, code: int, reason: str) -> None:
        """Nothing more is sent, and the first cause counts. The caller wakes who waits."""
        if not self.ended:
            self.ended = True
            self.close_code, self.close_reason = code, reason
            self._ended_at = time.monotonic()

    def _give_up(self, ready: Callable[[], bool]) -> None:
        """At a deadline: see first what the kernel has for us, who may have been held up.

        :raises TimeoutError: when it isn't ``ready()`` after that either.
        """
        self.flush()
        self._peek()
        if not ready():
            raise TimeoutError

    def _lost(self) -> None:
        """End of file, or the connection was reset."""
        with self._lock:
            if self._end_of_file:
                return
            self._end_of_file = self._peer_done = True
            self._reply_close()  # a peer that closed its own direction only still reads this,
            self.flush()  # and the replies that were held back for one write
            self._unsent.clear()
            self._unsent_size = 0
            self._watch_reading(False)
            self._end(1006, "")
        self._wake()

    def _broken(self) -> None:
        """A write failed: take what the peer sent before it vanished, then end."""
        if not self._send_failed:  # pings in what it sent must not bring us here again
            self._send_failed = True
            self._peek()
            self._lost()

    def _close_output(self) -> None:
        """Tell the peer's TCP that nothing more comes, once all is out."""
        with self._lock:
            if not self._half_close:
                self._half_close = True
                if not self._unsent:
                    self._shutdown(SHUT_WR)

    def abort(self, reason: str = "") -> None:
        """Cut the connection, both ways, at once."""
        with self._lock:
            self._end(1006, reason)
            self._shutdown(SHUT_RDWR)
        self._lost()
