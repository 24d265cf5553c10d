"""The end of a connection while other threads have to do with it."""

from __future__ import annotations

import socket
import threading
import time
from _socket import socket as Socket
from collections.abc import Callable, Iterator

import pytest

from flask_uwsgi_websocket.codec import SERVER, Protocol
from flask_uwsgi_websocket.connection.base import Limits
from flask_uwsgi_websocket.engines.gevent import GeventConnection, GeventEngine
from flask_uwsgi_websocket.engines.threads import ThreadsConnection, ThreadsEngine
from flask_uwsgi_websocket.exceptions import ConnectionClosed
from flask_uwsgi_websocket.servers.sockets import PlainProcess
from tests.rawclient import CLOSE, TEXT, frame

Pair = tuple[ThreadsConnection, socket.socket]


@pytest.fixture
def pair() -> Iterator[Pair]:
    ours, theirs = socket.socketpair()
    connection = ThreadsEngine(PlainProcess()).open(
        Socket(fileno=ours.detach()), Protocol(SERVER), Limits(timeout=1)
    )
    assert isinstance(connection, ThreadsConnection)
    with theirs:
        yield connection, theirs
        connection.release()


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_a_number_is_not_free_before_the_loop_has_forgotten_it(pair: Pair) -> None:
    connection, _ = pair
    worker, fd = connection.worker, connection.fd
    worker.call_soon(connection._watch)
    wait_for(lambda: fd in worker._watched)
    held, enough = threading.Event(), threading.Event()
    worker.call_soon(lambda: (held.set(), enough.wait(10)))
    assert held.wait(10)
    connection.release()
    assert connection.released
    assert connection.socket.fileno() == fd
    enough.set()
    wait_for(lambda: connection.socket.fileno() == -1)
    assert fd not in worker._watched


def test_what_nobody_watches_is_closed_at_once(pair: Pair) -> None:
    connection, _ = pair
    connection.release()
    assert connection.socket.fileno() == -1


def test_no_ping_follows_the_close(pair: Pair) -> None:
    """Not even one that was due when another thread was about to close."""
    connection, peer = pair
    with connection._lock:
        ticking = threading.Thread(target=connection.tick, args=(time.monotonic() + 1000,))
        ticking.start()
        wait_for(lambda: connection._pinged is not None)
        connection.start_closing(4000)
    ticking.join(10)
    assert not ticking.is_alive()
    assert peer.recv(100) == frame(CLOSE, b"\x0f\xa0", mask=None)
    peer.setblocking(False)
    with pytest.raises(BlockingIOError):
        peer.recv(100)


def test_the_last_words_are_read_when_another_thread_notices_the_end() -> None:
    ours, theirs = socket.socketpair()
    connection = GeventEngine(PlainProcess()).open(
        Socket(fileno=ours.detach()), Protocol(SERVER), Limits(timeout=1)
    )
    assert isinstance(connection, GeventConnection)
    theirs.sendall(frame(TEXT, "the last words"))
    theirs.close()

    def notice() -> None:
        with pytest.raises(ConnectionClosed):
            connection.post(None, "text")

    thread = threading.Thread(target=notice)
    thread.start()
    thread.join(10)
    assert connection.receive_blocking() == "the last words"
    assert connection.receive_blocking() is None
    connection.release()
