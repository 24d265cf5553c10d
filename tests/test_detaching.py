"""Under gevent and asyncio a WebSocket's request ends with its handshake: it holds no core."""

from __future__ import annotations

import json
import signal
import time
from contextlib import ExitStack

import pytest

from tests.rawclient import RawClient, Refused, close_frame
from tests.server import Server, eventually

pytestmark = pytest.mark.parametrize("engine", ["gevent", "asyncio", "asyncio-uvloop"])


@pytest.fixture
def server(engine: str, shared_server) -> Server:
    """A server that misses each core which is held."""
    return shared_server(engine, app="detaching", cores=2)


def try_to_connect(server: Server) -> RawClient | None:
    """None where the worker has no room."""
    try:
        return server.raw()
    except Refused as refused:
        if refused.answer.status != 503:
            raise
        return None


def echoes(client: RawClient, text: str) -> None:
    client.echo(text)


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/echo", "/lazy"])
@pytest.mark.parametrize("front", ["http-socket", "http", "nginx-uwsgi", "nginx-proxy"])
def test_more_websockets_than_cores(shared_server, engine: str, front: str, path: str) -> None:
    server = shared_server(engine, front, app="detaching", cores=2)
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw(path)) for _ in range(20)]
        for number, client in enumerate(clients):
            echoes(client, str(number))
        assert server.busy_cores() == 0
        assert server.open_connections() == 20
        # One descriptor for each: uWSGI has closed its own.
        assert server.descriptors() < 20 + 35  # and of uvloop, the mesh and the statistics
        assert server.get("/ready").body == b"ready"
        assert "hold all" not in server.new_log()
        for number, client in enumerate(clients):
            echoes(client, f"again {number}")
            assert client.leave(4000).code == 4000
    server.wait_idle()


def test_what_a_request_leaves(server: Server) -> None:
    with server.raw("/look", headers={"User-Agent": "first"}) as client:
        for number in range(4):  # each core has had another request
            with server.raw("/look", headers={"User-Agent": f"other {number}"}):
                pass
        client.text("look")
        facts = json.loads(client.message())
        assert facts == {
            "host": server.address,
            "agent": "first",
            "input": "",
            "descriptor": True,
        }


def test_nobody_reads_the_body_of_a_later_request(server: Server) -> None:
    with ExitStack() as stack:
        lookers = [stack.enter_context(server.raw("/look")) for _ in range(4)]
        posts = [stack.enter_context(server.tcp()) for _ in range(2)]
        for post in posts:
            post.send(b"POST /body HTTP/1.0\r\nHost: x\r\nContent-Length: 10\r\n\r\nfirst")
        eventually(lambda: server.busy_cores() == 2, "both requests to wait for their bodies")
        for looker in lookers:
            looker.text("look")
            assert json.loads(looker.message())["input"] == ""
        for post in posts:
            post.send(b"-last")
            answer = post.read_answer()
            assert (answer.status, answer.body) == (200, b"first-last")


@pytest.mark.parametrize("path", ["/echo", "/lazy"])
def test_the_end_of_a_request_comes_with_the_end_of_its_handler(
    server: Server, path: str, token: str
) -> None:
    with server.raw(f"{path}?teardown={token}") as client:
        echoes(client, "open")
        assert server.records(token) == []
    eventually(lambda: server.records(token), "the teardown function")
    assert server.records(token) == [{"path": path}]


@pytest.mark.parametrize("path", ["/echo", "/lazy"])
def test_an_error_at_the_end_is_logged(server: Server, path: str) -> None:
    server.allow_log("Traceback")
    for _ in range(3):
        with server.raw(f"{path}?raise=1") as client:
            echoes(client, "open")
            assert client.leave().code == 1000
    eventually(
        lambda: server.new_log().count("ValueError: raised at") == 3, "three errors in the log"
    )
    assert "at the end of a WebSocket's request" in server.new_log()
    with server.raw(path) as client:
        echoes(client, "the worker lives")


def test_what_leaves_at_the_end_does_not_take_the_worker_along(server: Server) -> None:
    server.allow_log("Traceback")
    worker = server.worker_pid
    with server.raw("/echo?leave=1") as client:
        echoes(client, "open")
        assert client.leave().code == 1000
    eventually(lambda: "SystemExit: left at the end" in server.new_log(), "the exit in the log")
    assert "at the end of a WebSocket's request" in server.new_log()
    assert server.get("/ready").body == b"ready"
    assert server.worker_pid == worker


def test_a_body_is_made_in_the_context_of_its_view(server: Server) -> None:
    for _ in range(3):
        answer = server.refused("/refuses-in-context")
        assert answer.body == b"/refuses-in-context /refuses-in-context"
        answer = server.http("GET", "/in-context", None, {"Sec-WebSocket-Key": "of a stranger"})
        assert answer.body == b"/in-context /in-context"


def test_the_first_websocket_of_a_worker_may_be_opened_by_a_thread(serve, engine: str) -> None:
    server = serve(engine, app="detaching", cores=2)
    worker = server.worker_pid
    for _ in range(4):
        with server.raw("/thread") as client:
            assert client.message() == "from a thread"
            eventually(lambda: server.busy_cores() == 0, "the core to be free")
            echoes(client, "in its own place")
            assert client.read_close().code == 1000
    assert server.worker_pid == worker


def test_the_loop_forgets_the_descriptors_of_requests(server: Server) -> None:
    with ExitStack() as stack:
        before = server.watched()
        clients = [stack.enter_context(server.raw()) for _ in range(20)]
        eventually(lambda: server.busy_cores() == 0, "the requests to end")
        # Those of uWSGI too would stay for as long as the connections, and have libev build its
        # epoll anew at each next message.
        assert server.watched() <= before + len(clients) + 5
        for client in clients:
            echoes(client, "all the same")


def test_an_answer_instead_of_the_handshake(server: Server) -> None:
    for _ in range(5):
        answer = server.refused("/refuses")
        assert answer.status == 403
        assert answer.body == b"012"


@pytest.mark.parametrize("path", ["/echo", "/lazy", "/thread"])
def test_what_uwsgi_logs(serve, engine: str, path: str) -> None:
    server = serve(engine, app="detaching", cores=2, options=["--logger", "stdio", "--log-5xx"])
    with server.raw(path) as client:
        client.text("hello")
        while client.message() != "hello":
            pass
    server.wait_idle()
    assert "HTTP/1.1 500" not in server.log()  # nor any other error


def test_harakiri_is_for_requests(serve, engine: str) -> None:
    server = serve(engine, app="detaching", options=["--harakiri", "1"])
    worker = server.worker_pid
    with server.raw() as client:
        began = time.monotonic()
        while time.monotonic() < began + 3.5:  # uWSGI looks once a second
            echoes(client, "alive")
            time.sleep(0.2)
    assert server.worker_pid == worker
    assert "any WebSocket" not in server.log()  # no warning


@pytest.mark.parametrize(
    "option", [["--cheaper", "1"], ["--idle", "60"], ["--socket-protocol", "http11"]]
)
def test_options_under_which_a_websocket_holds_its_request(
    serve, engine: str, option: list[str]
) -> None:
    server = serve(engine, app="detaching", processes=2, cores=4, options=option)
    with server.raw() as client, server.raw("/lazy") as other:
        echoes(client, "held")
        echoes(other, "held")
        assert server.busy_cores() == 2


def test_a_worker_keeps_descriptors_for_http(serve, engine: str) -> None:
    server = serve(engine, app="detaching", cores=4, options=["--max-fd", "100"])
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(50)]
        refused = 0
        while refused < 3:
            client = try_to_connect(server)
            if client is None:
                refused += 1
            else:  # also after a refusal, which itself takes a descriptor for a moment
                clients.append(stack.enter_context(client))
            assert len(clients) < 88
            assert server.get("/ready").body == b"ready"
        for number, client in enumerate(clients):
            echoes(client, str(number))
        assert server.log().count("ulimit -n") == 1
        clients.pop().leave()
        # A connection may be gone a moment before its descriptor is.
        with eventually(lambda: try_to_connect(server), "room for another") as client:
            echoes(client, "there is room again")


def test_a_reload_waits_for_handlers(serve, engine: str, token: str) -> None:
    server = serve(engine, app="detaching", cores=2)
    old: int = server.worker_pid
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw("/echo")) for _ in range(10)]
        for client in clients:
            echoes(client, "open")
        server.signal(signal.SIGHUP)
        for client in clients:
            assert client.read_close().code == 1012
    _replaced(server, old)


@pytest.mark.parametrize("signum", [signal.SIGHUP, signal.SIGTERM])
def test_a_reload_waits_for_what_comes_after_handlers(
    serve, engine: str, token: str, signum: int
) -> None:
    server = serve(engine, app="detaching", cores=2)
    old: int = server.worker_pid
    with server.raw(f"/echo?slow={token}") as client, server.raw(f"/lazy?slow={token}") as other:
        for each in (client, other):
            echoes(each, "open")
        server.signal(signum)
        for each in (client, other):
            assert each.read_close().code == 1012
            each.send(close_frame(1000))
    _replaced(server, old)
    assert server.log().count(f"slow end of {token}") == 2


def test_a_worn_out_worker_says_that_another_follows(serve, engine: str) -> None:
    options = ["--max-requests", "10", "--min-worker-lifetime", "1"]
    server = serve(engine, app="detaching", cores=2, options=options)
    old: int = server.worker_pid
    time.sleep(1.5)
    with server.raw() as client:
        echoes(client, "open")
        for _ in range(10):
            server.get("/ready")
        assert client.read_close().code == 1012
        client.send(close_frame(1000))
    _replaced(server, old)


def _replaced(server: Server, old: int) -> None:
    server.settle(old)
    with server.raw() as client:
        echoes(client, "again")


def test_what_was_the_requests_is_not_kept(server: Server) -> None:
    before = int(server.get("/dead-greenlets").body)
    with ExitStack() as clients:
        for _ in range(8):
            echoes(clients.enter_context(server.raw("/echo")), "hello")
        assert int(server.get("/dead-greenlets").body) < before + 8
