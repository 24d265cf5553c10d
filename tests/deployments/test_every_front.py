"""What must work behind every front, set up as docs/fronts.rst says."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from tests.conftest import ENGINE_MARKERS, Watch, assert_end_well, start
from tests.deployments.fronts import FRONTS
from tests.rawclient import PING, PONG, TEXT, RawClient, Refused, close_frame, frame
from tests.server import Server, eventually

pytestmark = pytest.mark.slow

#: Seconds of silence that the front endures, and between pings, which are to come before.
ENDURED, PING_INTERVAL = 3, 1

#: Those that cut a silent connection, by what the page sets.
CUTTING = {
    "http", "https", "nginx-uwsgi", "nginx-unix", "nginx-tls", "nginx-proxy", "nginx-proxy-tls",
    "haproxy", "haproxy-tls", "apache", "apache-tls", "varnish", "lighttpd",
}  # fmt: skip

#: Those that drop what comes before they have an answer, as no browser sends it.
DROPPING = {"http", "https", "caddy", "caddy-tls", "traefik"}

#: uWSGI's own router ends before the workers have said why they do.
SILENT_AT_RELOADS = {"http", "https"}

BEHIND_EACH = [
    "http-socket", "http", "https", "nginx-uwsgi", "nginx-unix", "nginx-tls", "nginx-proxy",
    "nginx-proxy-tls", "haproxy", "haproxy-tls", "apache", "apache-tls", "caddy", "caddy-tls",
    "traefik", "varnish", "lighttpd",
]  # fmt: skip

#: Engines that are tried behind one front. (uWSGI's async mode pings seconds late, and is stopped
#: by reloads without a word: tests/test_modes.py has what it can do.)
OTHERS = ["threads", "asyncio", "asyncio-uvloop"]


def deployment(engine: str, front: str) -> object:
    # A process of the suite's takes all of one: see tests.conftest.group_of.
    name = f"{engine}:{front.replace('-', '_')}"
    marks = [getattr(pytest.mark, name) for name in ENGINE_MARKERS[engine]]
    return pytest.param((engine, front), id=name, marks=marks)


DEPLOYMENTS = [
    *(deployment("gevent", front) for front in BEHIND_EACH),
    *(deployment(engine, "haproxy") for engine in OTHERS),
]


@pytest.fixture(scope="session", params=DEPLOYMENTS)
def running(request, tmp_path_factory) -> Iterator[Server]:
    engine, front = request.param
    config = {
        "TEST_PROXY_FIX": FRONTS[front].forwards,
        "UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE": 2 << 20,
        "UWSGI_WEBSOCKET_PING_INTERVAL": PING_INTERVAL,
    }
    place = tmp_path_factory.mktemp(f"{engine}-{front}")
    server = Server(place, engine, front, app="behind", config=config, proxy_timeout=ENDURED)
    server.source = "127.0.0.2"  # another one than that of the front
    yield start(server)
    assert_end_well([server])


@pytest.fixture
def server(running: Server, watch: Watch) -> Server:
    return watch.add(running)


def test_messages_small_and_large(server: Server) -> None:
    with server.raw() as client:
        client.echo("small")
        for size in (300_000, 1 << 20, 126, 65_536):
            large = os.urandom(size)
            client.binary(large)
            assert client.message() == large
        assert client.leave(4005).code == 4005


def test_messages_sent_with_the_request(server: Server) -> None:
    if server.front in DROPPING:
        return
    with server.tcp() as client:
        client.handshake("/echo", then=b"".join(frame(TEXT, str(n)) for n in range(1000)))
        assert [client.message() for n in range(1000)] == [str(n) for n in range(1000)]


def test_uploads_beside_websockets(server: Server) -> None:
    with server.raw() as client:
        for size in (1, 70_000, 120_000, 1_000_000):
            body = os.urandom(size)
            answer = server.http("POST", "/upload", body)
            assert answer.body.decode() == hashlib.sha256(body).hexdigest()
            client.echo(f"after {size}")


def test_requests_side_by_side(server: Server) -> None:
    # A front that keeps connections to uWSGI loses some of them.
    def ask(number: int) -> int:
        if number % 4:
            return server.http("POST", "/upload", b"x" * 1000).status
        with server.raw() as client:
            client.echo("hello")
        return 200

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(ask, range(400))) == {200}


@contextmanager
def configured(server: Server, name: str, seconds: float, usually: float) -> Iterator[None]:
    """What connections get that are opened meanwhile."""
    server.http("POST", f"/config/{name}/{seconds:.1f}")
    yield
    server.http("POST", f"/config/{name}/{usually:.1f}")


def answer_pings(client: RawClient, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = client.read()
        assert found.opcode == PING
        client.send(frame(PONG, found.payload))


def test_pings_keep_what_the_front_would_cut(server: Server, token: str) -> None:
    with server.raw() as client:
        answer_pings(client, ENDURED + 1)
        client.echo("still here")
    if server.front not in CUTTING:
        return
    with configured(server, "PING_INTERVAL", 0, PING_INTERVAL):
        client = server.raw(f"/end/{token}")
    with client:
        assert client.ended()
    assert server.record(token)["code"] == 1006


@pytest.mark.parametrize("way", ["abort", "close"])
def test_a_vanished_client_is_noticed(server: Server, way: str, token: str) -> None:
    client = server.raw(f"/end/{token}")
    client.echo("here")
    getattr(client, way)()
    assert server.record(token)["code"] == 1006


def test_a_client_whose_cable_is_out_is_noticed(server: Server, token: str) -> None:
    with configured(server, "PING_TIMEOUT", 1, 20):
        client = server.raw(f"/end/{token}")
    with client:
        assert server.record(token)["code"] == 1006


def abort(server: Server, number: int) -> None:
    for client in [server.raw() for _ in range(number)]:
        client.abort()


def test_clients_that_abort_leave_nothing_behind(server: Server) -> None:
    abort(server, 20)
    server.wait_idle()
    before = server.descriptors()
    for _ in range(9):
        abort(server, 20)  # threads hold no more at a time
    eventually(lambda: server.close_wait() == 0, "no connection in CLOSE_WAIT")
    eventually(lambda: server.descriptors() < before + 20, "as many descriptors as before")


def test_the_client_s_address_and_scheme(server: Server) -> None:
    expected = {
        "address": "127.0.0.2",
        "secure": server.tls is not None,
        "page": server.origin,
        "websocket": server.url("/echo"),
        "user": None,
    }
    assert json.loads(server.get("/sight").body) == expected
    with server.raw("/sight") as client:
        assert json.loads(client.message()) == expected


def test_own_pages_may_connect_and_no_others(server: Server) -> None:
    with server.raw(headers={"Origin": server.origin}) as client:
        client.echo("from a page of ours")
    for origin in ("https://evil.example", server.origin + "1"):
        answer = server.refused(headers={"Origin": origin})
        assert (answer.status, b"rigin" in answer.body) == (403, True)


def test_a_cookie_on_the_handshake(server: Server) -> None:
    with server.raw("/sight?login=ann") as client:
        cookie = client.answer.get("Set-Cookie")
        assert cookie.startswith("session=")
    with server.raw("/sight", headers={"Cookie": cookie.partition(";")[0]}) as client:
        assert json.loads(client.message())["user"] == "ann"


@pytest.mark.parametrize(
    ("status", "path"), [(401, "/echo?status=401"), (503, "/echo?status=503"), (404, "/nowhere")]
)
def test_refusals_come_with_their_bodies(server: Server, status: int, path: str) -> None:
    answer = server.refused(path)
    assert (answer.status, b"</p>" in answer.body) == (status, True)


def test_half_a_handshake_is_refused(server: Server) -> None:
    answer = server.refused(headers={"Sec-WebSocket-Version": "12"})
    assert answer.status == 426
    assert answer.get("Sec-WebSocket-Version") == "13"


def test_a_head_larger_than_uwsgi_s_buffer(server: Server) -> None:
    cookie = {"Cookie": "c=" + "x" * 5000}
    if server.front in {"http-socket", "http", "https", "varnish"}:
        with pytest.raises((EOFError, ConnectionError)):
            server.raw(headers=cookie)
    else:
        assert server.refused(headers=cookie).status in {500, 502}
    with server.raw(headers={"Cookie": "c=" + "x" * 3000}) as client:
        client.echo("here")


def test_a_graceful_reload(server: Server) -> None:
    old = server.worker_pid
    with server.raw() as client:
        client.echo("before")
        server.signal(signal.SIGHUP)
        if server.front in SILENT_AT_RELOADS:
            assert client.ended()
        else:
            assert client.read_close().code == 1012
            client.send(close_frame(1012))
            assert client.ended()
    eventually(lambda: server.worker_pid not in (0, old), "another worker")
    eventually(lambda: connects(server), "WebSockets after the reload", interval=0.1)


def connects(server: Server) -> bool:
    try:
        with server.raw() as client:
            client.echo("after")
    except (OSError, EOFError, Refused):  # a front that endures little gives up before
        return False
    return True
