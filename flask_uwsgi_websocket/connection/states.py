"""The states of a connection, and the causes that lead from one to the next.

A connection only ever goes forward, down the list of :class:`State`::

    we close         OPEN ── WE_CLOSE ──► CLOSING ── PEER_CLOSES ──► CLOSED
    it closes        OPEN ── PEER_CLOSES ──► PENDING ── WE_CLOSE ──► CLOSING
    it breaks the    OPEN ── PEER_FAILS ──► PENDING
    protocol         CLOSING ── PEER_FAILS ──► DISCARDING ── PEER_DONE ──► CLOSED
    it vanishes      OPEN ── WRITE_FAILS ──► BROKEN
                     BROKEN ── PEER_CLOSES, PEER_FAILS ──► PENDING
                     BROKEN ── WE_CLOSE ──► CLOSING
    at last          OPEN, BROKEN, PENDING, CLOSING, DISCARDING ── CUT ──► LOST
                     CLOSED ── CUT ──► LOST ── RELEASE ──► RELEASED

The peer's Close stands in line behind the messages that came before it: a handler that echoes gets
its last echo out before our Close answers (RFC 6455 5.5.1: an endpoint "MAY delay sending a Close
frame until its current message is sent"). That is PENDING; the answer leads to CLOSING, and there
the peer's Close, or what it broke the protocol with, counts a second time.

RELEASE is possible in every state, for a child process leaves all connections to its parent.
"""

from __future__ import annotations

from enum import Enum, IntEnum, auto


class State(IntEnum):
    """The state of a connection; from CLOSING on it has ended, for the handler."""

    OPEN = auto()
    #: A write failed: what the peer sent before it vanished is read.
    BROKEN = auto()
    #: The peer has closed, or broken the protocol, and the handler has yet to come to it.
    PENDING = auto()
    #: Our Close is sent, and the peer's has not come.
    CLOSING = auto()
    #: The peer broke the protocol, has our Close, and may be in the middle of sending.
    DISCARDING = auto()
    #: Both are through: our direction is shut down once all is flushed.
    CLOSED = auto()
    #: End of file, or the connection was cut: nothing goes either way.
    LOST = auto()
    #: The descriptor is closed, or about to be: its number may be another connection's.
    RELEASED = auto()


class Cause(Enum):
    """A cause that takes a connection from one state to the next."""

    #: We send our Close, of our own accord or in answer.
    WE_CLOSE = auto()
    PEER_CLOSES = auto()
    #: It breaks the protocol.
    PEER_FAILS = auto()
    #: After that its Close comes, or nothing more.
    PEER_DONE = auto()
    WRITE_FAILS = auto()
    #: End of file or a reset, or we give the peer up.
    CUT = auto()
    RELEASE = auto()


OPEN, BROKEN, PENDING, CLOSING, DISCARDING, CLOSED, LOST, RELEASED = State
WE_CLOSE, PEER_CLOSES, PEER_FAILS, PEER_DONE, WRITE_FAILS, CUT, RELEASE = Cause

#: In LOST and RELEASED a read may still bring what lay in the kernel; it changes nothing then.
TRANSITIONS: dict[State, dict[Cause, State]] = {
    OPEN: {
        WE_CLOSE: CLOSING,
        PEER_CLOSES: PENDING,
        PEER_FAILS: PENDING,
        WRITE_FAILS: BROKEN,
        CUT: LOST,
    },
    BROKEN: {WE_CLOSE: CLOSING, PEER_CLOSES: PENDING, PEER_FAILS: PENDING, CUT: LOST},
    PENDING: {WE_CLOSE: CLOSING, CUT: LOST},
    CLOSING: {PEER_CLOSES: CLOSED, PEER_FAILS: DISCARDING, CUT: LOST},
    DISCARDING: {PEER_DONE: CLOSED, CUT: LOST},
    CLOSED: {CUT: LOST},
    LOST: {PEER_CLOSES: LOST, PEER_FAILS: LOST, CUT: LOST},
    RELEASED: {PEER_CLOSES: RELEASED, PEER_FAILS: RELEASED, CUT: RELEASED},
}


def next_state(state: State, cause: Cause) -> State:
    """Return the state to which the cause leads; RuntimeError for none: that is a fault of ours."""
    if cause is RELEASE:
        return RELEASED
    try:
        return TRANSITIONS[state][cause]
    except KeyError:
        raise RuntimeError(f"{cause.name} in a connection that is {state.name}") from None
