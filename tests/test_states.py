"""The states of a connection's end: the table, its drawing, and connections that walk it."""

from __future__ import annotations

import re
import socket
from _socket import socket as Socket
from collections.abc import Iterator

import pytest

from flask_uwsgi_websocket.codec import SERVER, Protocol
from flask_uwsgi_websocket.connection import states
from flask_uwsgi_websocket.connection.base import Limits
from flask_uwsgi_websocket.connection.states import (
    CLOSED,
    CLOSING,
    DISCARDING,
    LOST,
    OPEN,
    PENDING,
    RELEASE,
    RELEASED,
    TRANSITIONS,
    Cause,
    State,
    next_state,
)
from flask_uwsgi_websocket.engines.threads import ThreadsConnection, ThreadsEngine
from flask_uwsgi_websocket.exceptions import ConnectionClosed
from flask_uwsgi_websocket.servers.sockets import PlainProcess
from tests.rawclient import CLOSE, PING, TEXT, close_frame, frame
from tests.server import eventually

#: Those of the table that lead somewhere else.
MOVES = {
    (before, cause, after)
    for before, causes in TRANSITIONS.items()
    for cause, after in causes.items()
    if after is not before
} | {(LOST, RELEASE, RELEASED)}


def test_the_drawing_is_the_table() -> None:
    drawn = [
        (State[before], Cause[cause], State[after])
        for some, causes, after in re.findall(
            r"([A-Z, ]+) ── ([A-Z_, ]+) ──► (?=(\w+))", states.__doc__ or ""
        )
        for before in re.findall(r"\w+", some)
        for cause in re.findall(r"\w+", causes)
    ]
    assert set(drawn) == MOVES
    assert len(drawn) == len(MOVES)


def test_a_connection_goes_forward_only() -> None:
    assert all(before < after for before, _, after in MOVES)


def test_each_state_is_reached_and_left() -> None:
    assert {after for _, _, after in MOVES} == set(State) - {OPEN}
    assert {before for before, _, _ in MOVES} == set(State) - {RELEASED}


@pytest.mark.parametrize("cause", Cause)
@pytest.mark.parametrize("state", State)
def test_what_the_table_does_not_have_fails(state: State, cause: Cause) -> None:
    if cause is RELEASE:
        assert next_state(state, cause) is RELEASED
    elif cause in TRANSITIONS[state]:
        assert next_state(state, cause) is TRANSITIONS[state][cause]
    else:
        with pytest.raises(RuntimeError, match=f"{cause.name} in .* {state.name}"):
            next_state(state, cause)


# Connections


@pytest.fixture
def pair() -> Iterator[tuple[ThreadsConnection, socket.socket]]:
    ours, theirs = socket.socketpair()
    connection = ThreadsEngine(PlainProcess()).open(
        Socket(fileno=ours.detach()), Protocol(SERVER), Limits(timeout=1)
    )
    assert isinstance(connection, ThreadsConnection)
    with theirs:
        yield connection, theirs
        connection.release()
    assert connection.state is RELEASED


def test_we_close(pair: tuple[ThreadsConnection, socket.socket]) -> None:
    connection, peer = pair
    connection.start_closing(4000, "enough")
    assert connection.state is CLOSING
    assert peer.recv(100) == frame(CLOSE, b"\x0f\xa0enough", mask=None)
    peer.sendall(close_frame(4000))
    connection._peek()
    assert connection.state is CLOSED
    assert peer.recv(100) == b""
    peer.shutdown(socket.SHUT_WR)
    connection._peek()
    assert connection.state is LOST
    assert (connection.close_code, connection.close_reason) == (4000, "enough")


def test_the_peer_closes(pair: tuple[ThreadsConnection, socket.socket]) -> None:
    connection, peer = pair
    peer.sendall(frame(TEXT, "last words") + close_frame(4001, "bye"))
    connection._peek()
    assert connection.state is PENDING
    assert connection.connected
    assert connection.close_code is None
    assert connection.receive_blocking() == "last words"
    assert connection.receive_blocking() is None
    assert connection.state is CLOSED
    assert (connection.close_code, connection.close_reason) == (4001, "bye")
    assert peer.recv(100) == frame(CLOSE, b"\x0f\xa1", mask=None)


@pytest.mark.parametrize("behind", [False, True])
def test_the_peer_breaks_the_protocol(
    pair: tuple[ThreadsConnection, socket.socket], behind: bool
) -> None:
    connection, peer = pair
    if behind:  # our Close
        connection.start_closing(4000)
    peer.sendall(frame(TEXT, "not masked", mask=None))
    connection._peek()
    assert connection.state is DISCARDING
    peer.sendall(frame(TEXT, "dropped") + close_frame(1000))
    connection._peek()
    assert connection.state is CLOSED
    assert connection.close_code == (4000 if behind else 1002)
    connection.abort("enough")
    assert connection.state is LOST
    assert connection.close_reason != "enough"  # the first cause counts


def test_the_peer_falls_silent(pair: tuple[ThreadsConnection, socket.socket]) -> None:
    connection, peer = pair
    peer.sendall(frame(TEXT, "not masked", mask=None))
    connection._peek()
    assert connection.state is DISCARDING
    eventually(lambda: connection.state is CLOSED, "its silence is noticed")


@pytest.mark.parametrize("words", [b"", frame(TEXT, "last words")])
def test_a_write_fails(pair: tuple[ThreadsConnection, socket.socket], words: bytes) -> None:
    connection, peer = pair
    peer.sendall(words + frame(PING, "there?") * 100 + close_frame(4001, "bye"))
    peer.close()
    with pytest.raises(ConnectionClosed):
        connection.post(connection.protocol.text, "hello?")
    assert connection.state is LOST
    assert (connection.close_code, connection.close_reason) == (4001, "bye")
    assert connection.receive_blocking() == ("last words" if words else None)


def test_a_child_leaves_it_to_the_parent(pair: tuple[ThreadsConnection, socket.socket]) -> None:
    connection, _ = pair
    connection.leave_to_parent()
    assert connection.state is RELEASED
    assert connection.receive_blocking() is None
    connection.start_closing(1001)
    connection.abort()


def test_who_asked_for_it_hears_of_the_release(
    pair: tuple[ThreadsConnection, socket.socket],
) -> None:
    connection, _ = pair
    heard: list[tuple[str, State]] = []
    for name in ("first", "second"):
        connection.on_release(lambda name=name: heard.append((name, connection.state)))
    connection.abort()
    assert not heard
    connection.release()
    connection.release()
    assert heard == [("first", RELEASED), ("second", RELEASED)]
    connection.on_release(lambda: heard.append(("late", connection.state)))
    assert len(heard) == 3


def test_no_child_hears_of_the_release(pair: tuple[ThreadsConnection, socket.socket]) -> None:
    connection, _ = pair
    heard: list[State] = []
    connection.on_release(lambda: heard.append(connection.state))
    connection.leave_to_parent()
    connection.release()
    assert not heard
