"""The end of a connection, from state to state; states.py draws them."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from socket import SHUT_RDWR, SHUT_WR
from typing import Any, ClassVar

from ..codec import Close, Fail
from ..codec.frames import check_close
from ..metrics.observers import By
from .sending import Sending
from .states import OPEN, Cause, State, next_state

#: Seconds without a byte after which a peer that broke the protocol, and is not within a frame, has
#: sent all that it wanted to.
SILENT_TIME = 0.1
#: Seconds for which the answer to the peer's Close waits for the handler's last reply.
CLOSE_GRACE = 1.0

#: Of a peer that has not ended it: shared, as most have not.
_NO_END = Cause.CUT, 1006, ""


class Closing(Sending):
    """The end of a connection, up to the peer's end of file."""

    __slots__ = ("_closers", "_ended_at", "_peers_end", "before_end")

    def __init__(self, *opened: Any) -> None:
        super().__init__(*opened)
        # How the peer ended it, with its code and reason: from PENDING on.
        self._peers_end: tuple[Cause, int, str] = _NO_END
        #: Called when it ends, before the peer can know. Must not wait.
        self.before_end: Callable[[], object] | None = None
        self._closers = 0  # how many wait in the closing handshake
        self._ended_at = 0.0

    @property
    def connected(self) -> bool:
        """Whether it makes sense to go on: nobody closed, or messages still wait."""
        return self.state is OPEN or (bool(self._messages) and not self.ended)

    @property
    def closed_by(self) -> By:
        """Who ended it: whoever sent its Close first; ``lost`` where nobody did.

        A peer that broke the protocol was closed by the server.
        """
        if self.close_code in (None, 1006):
            return "lost"
        return "client" if self._peers_end[0] is Cause.PEER_CLOSES else "server"

    @property
    def overdue(self) -> bool:
        """Whether the handler has had ``timeout`` seconds since the end, and goes on."""
        return self.ended and time.monotonic() - self._ended_at >= self.limits.timeout

    # -- what handlers, sessions and workers do ------------------------------------------

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Do the closing handshake (RFC 6455 7.1.2), in at most ``timeout`` seconds."""
        self.start_closing(code, reason)
        timeout = self.limits.timeout
        self._closers += 1
        try:
            await self._drain(0, timeout)
            await self._wait_input(lambda: self.state >= State.CLOSED, time.monotonic() + timeout)
        except TimeoutError:
            self.abort()
        else:
            # RFC 6455 7.1.1: the server closes the TCP connection first, to a peer that has sent
            # end of file without a Close, too.
            self._shutdown(SHUT_WR)
        finally:
            self._closers -= 1

    def start_closing(self, code: int, reason: str = "") -> None:
        """Send Close, or answer the peer's; does not wait."""
        with self._lock:
            self._send_reply()
            if not self.ended:
                check_close(code, reason)
                self._send_close(self.protocol.close(code, reason), code, reason)
            self._messages.clear()
            self._resume_reading()
        self._wake()

    def abort(self, reason: str = "", code: int = 1006) -> None:
        """Cut the connection, both ways, at once."""
        with self._lock:
            self._advance(Cause.CUT, code, reason)
            self._shutdown(SHUT_RDWR)
        self._wake()

    # -- what the peer does --------------------------------------------------------------

    def _peer_ends(self, end: Close | Fail) -> None:
        """Handle the peer's Close, or its violation of the protocol."""
        if isinstance(end, Close):
            peers_end = Cause.PEER_CLOSES, end.code, end.reason
        else:
            peers_end = Cause.PEER_FAILS, end.error.close_code, end.error.reason
        with self._lock:
            if not self.ended:  # else it is the answer to our Close
                self._peers_end = peers_end
            self._advance(peers_end[0])
        self._wake()

    def _peer_done(self) -> None:
        """Handle the late Close, or the silence, of a peer that broke the protocol."""
        with self._lock:
            if self.state is State.DISCARDING:
                self._advance(Cause.PEER_DONE)
        self._wake()

    def _lost(self) -> None:
        """Handle the peer's end of file, or a reset."""
        with self._lock:
            if self.state >= State.LOST:
                return
            self._send_reply()  # which still reads this, if it closed its own direction only,
            self.flush()  # and the replies that were held back for one write
            self._advance(Cause.CUT)
        self._wake()

    def _broken(self) -> None:
        """Handle a write that failed; under the lock."""
        if self.state is OPEN:
            self._advance(Cause.WRITE_FAILS)
        elif self.state is not State.BROKEN:  # it has ended, or is about to
            self._drop_unsent()
            self._lost()

    # -- from state to state -------------------------------------------------------------

    def _notice(self, cause: Cause) -> None:
        """Enter the state to which the cause leads."""
        with self._lock:
            self._advance(cause)
        self._wake()

    def _advance(self, cause: Cause, code: int = 1006, reason: str = "") -> None:
        """Enter the state to which the cause leads; under the lock. The caller wakes who waits.

        :param code: what the handler is told, if this is what ends the connection for it.
        """
        state = next_state(self.state, cause)
        if state is self.state:
            return
        self.state = state
        if state >= State.CLOSING and not self.ended:
            self.ended = True
            self.close_code, self.close_reason = code, reason
            self._ended_at = time.monotonic()
            if self.before_end is not None:
                self.before_end()
                self.before_end = None
        if state in self._on_entering:
            self._on_entering[state](self)

    def _read_rest(self) -> None:
        """Read what the peer sent before it vanished, then end."""
        self._peek()
        self._lost()

    def _wait_for_handler(self) -> None:
        """Answer once the handler has replied to the messages that came before."""
        if self._messages or self._replying:
            self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
        else:
            self._send_reply()

    def _discard(self) -> None:
        """Read on and drop it: the peer may be in the middle of sending.

        uWSGI's router, and nginx, cut a connection of which one side has ended while the other
        sends, and our Close is lost.
        """
        if self.protocol.close_received:
            self._advance(Cause.PEER_DONE)
            return
        self._saw_traffic = False
        self._read_ahead = 0
        self._resume_reading()
        deadline = time.monotonic() + self.limits.timeout
        self.worker.call_later(SILENT_TIME, partial(self._look_for_silence, deadline))

    def _close_output(self) -> None:
        """Tell the peer's TCP that nothing more comes, once all is out."""
        if not self._unsent:
            self._shutdown(SHUT_WR)

    def _give_up_traffic(self) -> None:
        """Let nothing go either way."""
        self._drop_unsent()
        self._watch_reading()

    #: What is done on entering a state.
    _on_entering: ClassVar[dict[State, Callable[[Any], None]]] = {
        State.BROKEN: lambda self: self._read_rest(),
        State.PENDING: _wait_for_handler,
        State.DISCARDING: _discard,
        State.CLOSED: _close_output,
        State.LOST: _give_up_traffic,
    }

    def _reply_close(self) -> None:
        """Answer the peer's Close or violation, if there is one that waits for the handler."""
        with self._lock:
            self._send_reply()
        self._wake()

    def _reply_close_late(self) -> None:
        """Answer the peer's Close, unless the handler still works through its messages."""
        if self._messages and self._replying:
            self._replying = False  # True again once it has taken the next one
            self.worker.call_later(CLOSE_GRACE, self._reply_close_late)
        else:
            self._reply_close()

    def _send_reply(self) -> None:
        """Do :meth:`_reply_close`; under the lock. The caller wakes who waits."""
        if self.state is not State.PENDING:
            return
        cause, code, reason = self._peers_end
        # RFC 6455 5.5.1: "the endpoint typically echos the status code it received".
        frame = self.protocol.close(code, reason if cause is Cause.PEER_FAILS else "")
        self._send_close(frame, code, reason)
        self._advance(cause)

    def _send_close(self, frame: bytes, code: int, reason: str) -> None:
        """Send our Close, the one and last frame that ends the connection."""
        # First: a write that fails must not answer again.
        self._advance(Cause.WE_CLOSE, code, reason)
        self._write_control(frame)

    def _look_for_silence(self, deadline: float) -> None:
        """See whether a peer that broke the protocol has sent what it wanted to."""
        if self.state is not State.DISCARDING:
            return
        heard, self._saw_traffic = self._saw_traffic, False
        if not heard and not self.protocol.is_sending:
            self._peer_done()
        elif time.monotonic() < deadline:
            self.worker.call_later(SILENT_TIME, partial(self._look_for_silence, deadline))
        else:
            self.abort()
