"""`max_connections`: no client has more than so many, whichever workers they are on."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask

from flask_uwsgi_websocket import WebSocket
from flask_uwsgi_websocket.helpers import log
from flask_uwsgi_websocket.session.seats import Seat, Seats, client_name
from flask_uwsgi_websocket.testing import HandshakeRejected
from tests.conftest import ENGINES, ServerFactory
from tests.rawclient import RawClient, Refused, close_frame
from tests.server import PATIENCE, Server, eventually

CONFIG = {"UWSGI_WEBSOCKET_MAX_CONNECTIONS": 4}


@pytest.fixture(params=ENGINES)
def server(request: pytest.FixtureRequest, shared_server: ServerFactory) -> Server:
    return shared_server(request.param, app="limits", processes=2, config=CONFIG)


def attempt(server: Server, path: str) -> RawClient | None:
    """A client; None where it is refused for there are enough."""
    try:
        return server.raw(path)
    except Refused as refused:
        answer = refused.answer
    assert (answer.status, answer.get("Retry-After")) == (429, "5")
    whose = "user" if "user=" in path else "address"
    assert f"this {whose} has as many connections as it may" in answer.body.decode()
    return None


@contextmanager
def opened(server: Server, path: str, count: int) -> Iterator[list[RawClient]]:
    """So many clients, all of whom must be accepted; at the end they leave."""
    clients = []
    for _ in range(count):
        client = attempt(server, path)
        assert client is not None
        clients.append(client)
    yield clients
    leave(clients)


def has_ended(client: RawClient) -> bool:
    try:
        client.text("who?")
        client.message()
    except (OSError, EOFError):
        return True
    return False


def leave(clients: Iterable[RawClient]) -> None:
    for client in clients:
        if client.socket.fileno() >= 0:
            client.leave()


def all_at_once(server: Server, path: str, count: int) -> list[RawClient]:
    """Try to open so many at the same moment; return those that could be."""
    found: list[RawClient | None] = []
    threads = [
        threading.Thread(target=lambda: found.append(attempt(server, path))) for _ in range(count)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == count
    return [client for client in found if client is not None]


@pytest.mark.slow
def test_of_many_at_once_as_many_are_accepted_as_may_be(server: Server, token: str) -> None:
    for _ in range(5):
        clients = all_at_once(server, f"/three?user={token}", 12)
        assert len(clients) == 3
        leave(clients)


def test_who_closes_one_may_open_one_at_once(server: Server, token: str) -> None:
    path = f"/three?user={token}"
    with opened(server, path, 2):
        for _ in range(30):
            with opened(server, path, 1):
                assert attempt(server, path) is None


@pytest.mark.slow
def test_one_who_reconnects_all_the_time_is_never_refused_nor_is_there_one_more(
    server: Server, token: str
) -> None:
    path, failures = f"/three?user={token}", []

    def reconnect() -> None:
        for _ in range(30):
            client = attempt(server, path)
            if client is None:
                failures.append("refused")
            else:
                client.leave()

    threads = [threading.Thread(target=reconnect) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    clients = all_at_once(server, path, 8)
    assert len(clients) == 3
    leave(clients)


def test_a_seat_is_free_when_the_connection_has_ended_whatever_its_handler_does(
    server: Server, token: str
) -> None:
    path = f"/three/heedless?user={token}"
    for _ in range(3):
        with opened(server, path, 3) as clients:
            for client in clients:
                client.text("x")


def test_users_and_addresses_each_have_their_own(server: Server, token: str) -> None:
    with ExitStack() as stack:
        for path in (f"/three?user={token}", f"/three?user={token}2", "/three"):
            stack.enter_context(opened(server, path, 3))
        assert attempt(server, "/three") is None
        server.source = "127.0.0.2"
        try:
            stack.enter_context(opened(server, "/three", 3))
        finally:
            server.source = None


def test_routes_without_a_number_share_that_of_the_app(server: Server, token: str) -> None:
    user = f"?user={token}"
    with opened(server, f"/default{user}", 3), opened(server, f"/any{user}", 1):
        assert attempt(server, f"/default{user}") is None
        with opened(server, f"/three{user}", 3):
            assert attempt(server, f"/any{user}") is None


@pytest.mark.parametrize(
    "path", ["/three/decorated?refused=1&user=", "/three?refused-late=1&user="]
)
def test_who_is_refused_otherwise_leaves_no_seat_taken(
    server: Server, path: str, token: str
) -> None:
    for _ in range(5):
        assert server.refused(path + token).status == 403
    with opened(server, path.replace("refused", "not") + token, 3):
        assert attempt(server, path.replace("refused", "not") + token) is None


def test_those_are_counted(server: Server, token: str) -> None:
    path = f"/three?user={token}"
    with opened(server, path, 3):
        assert attempt(server, path) is None

        def is_counted() -> bool:
            return "max_connections" in server.get("/refused").body.decode()

        eventually(is_counted, "the worker that refused one to say so")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_worker_that_is_killed_leaves_none_taken(
    serve: ServerFactory, engine: str, token: str
) -> None:
    server = serve(engine, app="limits", processes=2, config=CONFIG)
    path = f"/three?user={token}"
    with opened(server, path, 3) as clients:
        clients[0].text("who?")
        pid = int(str(clients[0].message()).split()[0])
        os.kill(pid, signal.SIGKILL)
        ended = [client for client in clients if has_ended(client)]
        assert ended
        for client in ended:
            client.close()
        # The kernel closes its files one after the other.
        again = [eventually(lambda: attempt(server, path), "a seat") for _ in ended]
        assert attempt(server, path) is None
        leave([client for client in again if client is not None])
    server.settle(pid)
    server.allow_log("DAMN")


@pytest.mark.parametrize(
    ("engine", "lazily"), [*((engine, False) for engine in ENGINES), ("gevent", True)]
)
def test_a_reload_gives_all_back_and_goes_on_counting(
    serve: ServerFactory, engine: str, lazily: bool, token: str, tmp_path: Path
) -> None:
    touched = tmp_path / "touched"
    touched.touch()
    options = ["--lazy-apps", "--touch-chain-reload", str(touched)] if lazily else []
    server = serve(engine, app="limits", processes=2, config=CONFIG, options=options)
    old = server.pids()
    path = f"/three?user={token}"
    with opened(server, path, 3) as clients:
        if lazily:
            os.utime(touched, (os.stat(touched).st_mtime + 10,) * 2)
        else:
            server.signal(signal.SIGHUP)
        for client in clients:
            assert client.read_close().code == 1012
            client.send(close_frame(1012))
            client.close()
            if lazily:  # while the other worker, and its clients, may still be there
                attempts = [attempt(server, path) for _ in range(3)]
                leave([each for each in attempts if each is not None])
    server.settle(*old)
    clients = all_at_once(server, path, 8)
    assert len(clients) == 3
    leave(clients)


def test_after_a_time_without_locks_workers_count_together_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    process = SimpleNamespace(instance=lambda: (os.getpid(), 0))
    engine: Any = SimpleNamespace(process=process, call_at_end=lambda callback: None)
    seats, blocked = Seats("app", engine), tmp_path / f"flask-uwsgi-websocket-{os.geteuid()}"

    def is_locked(seat: Seat | None) -> bool:
        assert seat is not None
        [file] = blocked.rglob("seats.*")
        opened = f"import fcntl; file = open({str(file)!r}, 'r+')"
        [byte] = seat._bytes
        lock = f"fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, {byte})"
        return subprocess.call([sys.executable, "-c", f"{opened}; {lock}"]) != 0

    blocked.write_text("no directory")
    taken = [seats.take("ann", 4), seats.take("ann", 4)]
    assert None not in taken
    assert caplog.text.count("counts in each worker by itself") == 1
    blocked.unlink()
    with monkeypatch.context() as soon:
        soon.setattr(log, "WARNING_INTERVAL", 0)
        taken.append(seats.take("ann", 4))
    taken.append(seats.take("ann", 4))
    assert [is_locked(seat) for seat in taken] == [False, False, True, True]
    assert seats.take("ann", 4) is None
    seats._close()


def test_a_seat_is_left_while_others_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a handler of signals needs it that comes in between, and waits for a connection."""
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    (tmp_path / f"flask-uwsgi-websocket-{os.geteuid()}").write_text("no directory")
    process = SimpleNamespace(instance=lambda: (os.getpid(), 0))
    engine: Any = SimpleNamespace(process=process, call_at_end=lambda callback: None)
    seats = Seats("app", engine)
    seat = seats.take("ann", 1)
    assert seat is not None
    were_left: list[bool] = []

    class Leaving(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            other = threading.Thread(target=seat.leave, daemon=True)
            other.start()
            other.join(PATIENCE)
            were_left.append(not other.is_alive())

    handler = Leaving()
    monkeypatch.setattr(log, "WARNING_INTERVAL", 0)
    log.logger.addHandler(handler)
    try:
        assert seats.take("bob", 1) is not None
    finally:
        log.logger.removeHandler(handler)
    assert were_left == [True]
    assert seats.take("ann", 1) is not None


def make(**config: Any) -> tuple[Any, WebSocket]:
    app = Flask(__name__)
    app.config.update(config)
    websocket = WebSocket(app)
    app.errorhandler(429)(lambda error: ("enough", 429))
    return app, websocket


def test_outside_of_uwsgi_each_process_counts() -> None:
    _, websocket = make(UWSGI_WEBSOCKET_MAX_CONNECTIONS=2, UWSGI_WEBSOCKET_PREFIX="outside")
    websocket.add_url_rule("/x", "x", lambda ws: ws.receive())
    websocket.add_url_rule("/free", "free", lambda ws: ws.receive(), max_connections=False)
    client = websocket.test_client()
    for _ in range(3):
        with client.connect("/x"), client.connect("/x"), client.connect("/free"):
            with pytest.raises(HandshakeRejected) as caught:
                client.connect("/x")
            assert caught.value.response.status_code == 429
            assert caught.value.response.get_data(as_text=True) == "enough"
    routes = websocket._metrics.snapshot()["routes"]
    assert routes["/x"]["refused"] == {"max_connections": 3}


@pytest.mark.parametrize(
    ("user", "address", "other_user", "other_address", "same"),
    [
        ("ann", "10.0.0.1", "ann", "10.0.0.2", True),
        ("ann", "10.0.0.1", None, "10.0.0.1", False),
        (None, "10.0.0.1", None, "10.0.0.2", False),
        (None, "::ffff:10.0.0.1", None, "10.0.0.1", True),
        (None, "2001:db8:0:1::1", None, "2001:db8:0:1:ffff::2", True),
        (None, "2001:db8:0:1::1", None, "2001:db8:0:2::1", False),
        (None, "fe80::1%eth0", None, "fe80::2%eth0", True),
        (None, "unknown", None, "unknown", True),
        (None, "10.0.0.1:4711", None, "10.0.0.1:4712", True),
        (None, "10.0.0.1:4711", None, "10.0.0.1", True),
        (None, "[2001:db8::1]:4711", None, "2001:db8::2", True),
        (None, "[2001:db8::1]", None, "[2001:db8:0:1::1]", False),
        ("address 10.0.0.1", "", None, "10.0.0.1", False),
    ],
)
def test_who_is_one_client(
    user: str | None, address: str, other_user: str | None, other_address: str, same: bool
) -> None:
    assert (client_name(user, address) == client_name(other_user, other_address)) is same


@pytest.mark.parametrize("address", [None, ""])
def test_who_has_no_address_is_not_limited(address: str | None) -> None:
    assert client_name(None, address) is None
