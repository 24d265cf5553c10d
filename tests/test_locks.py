"""No exception from outside leaves a lock behind: PyThreadState_SetAsyncExc strikes anywhere."""

from __future__ import annotations

import ctypes
import socket
import threading
import time
from _socket import socket as Socket
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest

from flask_uwsgi_websocket.codec import SERVER, Protocol
from flask_uwsgi_websocket.connection.base import Limits
from flask_uwsgi_websocket.engines.threads import ThreadsConnection, ThreadsEngine
from flask_uwsgi_websocket.servers.sockets import PlainProcess
from tests.rawclient import TEXT, frame

STRIKES = 3000


class Strike(BaseException):
    """What strikes."""


def strike(thread: threading.Thread) -> None:
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident or 0), ctypes.py_object(Strike)
    )


class Peer:
    """Reads all that comes, and sends small messages now and then."""

    def __init__(self, sock: socket.socket) -> None:
        self.socket = sock
        self.seen = b""
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    def _read(self) -> None:
        with suppress(OSError):
            while data := self.socket.recv(65536):
                self.seen = (self.seen + data)[-4096:]

    def _write(self) -> None:
        with suppress(OSError):
            while True:
                self.socket.sendall(frame(TEXT, "x") * 3)
                time.sleep(0.0005)


@pytest.fixture
def pair() -> Iterator[tuple[ThreadsConnection, Peer]]:
    ours, theirs = socket.socketpair()
    limits = Limits(send_queue_size=4096, ping_interval=0.1)
    connection = ThreadsEngine(PlainProcess()).open(
        Socket(fileno=ours.detach()), Protocol(SERVER), limits
    )
    assert isinstance(connection, ThreadsConnection)
    yield connection, Peer(theirs)
    connection.release()
    theirs.close()


def send(connection: ThreadsConnection) -> None:
    if connection.post(connection.protocol.text, "y" * 1000):
        connection.run(connection.drained())


def send_nb(connection: ThreadsConnection) -> None:
    if not connection.congested:
        connection.post_nowait(connection.protocol.text, "y")


def receive(connection: ThreadsConnection) -> None:
    connection.receive_blocking()


def receive_with_timeout(connection: ThreadsConnection) -> None:
    with suppress(TimeoutError):
        connection.receive_blocking(0.001)


def poll(connection: ThreadsConnection) -> None:
    connection.receive_nowait()


def done(work: Callable[[], object]) -> bool:
    """Whether another thread can do it."""
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(10)
    return not thread.is_alive()


@pytest.mark.slow
@pytest.mark.parametrize("use", [send, send_nb, receive, receive_with_timeout, poll])
def test_others_go_on(
    pair: tuple[ThreadsConnection, Peer], use: Callable[[ThreadsConnection], None]
) -> None:
    connection, peer = pair
    over = False

    def work() -> None:
        while not over:
            with suppress(Strike):
                while not over:
                    use(connection)

    def survive() -> None:
        while not over:  # a strike may hit where work() catches none
            with suppress(Strike):
                work()

    victim = threading.Thread(target=survive, daemon=True)
    victim.start()
    for _ in range(STRIKES):
        strike(victim)
        time.sleep(0.0002)
    over = True
    victim.join(10)
    assert not connection.ended
    assert done(lambda: connection.receive_blocking(5))
    assert done(lambda: connection.post(connection.protocol.text, "the last"))
    assert done(lambda: connection.run(connection.drained()))
    heard = threading.Event()
    connection.worker.call_later(0, heard.set)
    assert heard.wait(10)  # by the helper thread
    deadline = time.monotonic() + 10
    while b"the last" not in peer.seen and time.monotonic() < deadline:
        connection.flush()
        time.sleep(0.01)
    assert b"the last" in peer.seen
