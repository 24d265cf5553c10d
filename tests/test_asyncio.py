"""The asyncio engine: its loops, what handlers and views do on them, the old API."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from flask import Flask

from flask_uwsgi_websocket import AsyncioWebSocket, EngineError, run_coroutine
from tests.server import PATIENCE, Server, eventually, free_port

LOOPS = ["asyncio", "asyncio-uvloop"]


@pytest.fixture(scope="module")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Redis of this module's own."""
    port = free_port()
    directory = tmp_path_factory.mktemp("redis")
    options = ["--save", "", "--bind", "127.0.0.1", "--dir", str(directory)]
    server = subprocess.Popen(
        ["redis-server", "--port", str(port), *options], stdout=subprocess.DEVNULL
    )
    try:
        yield f"redis://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(PATIENCE)


@pytest.fixture(params=LOOPS)
def server(request: pytest.FixtureRequest, shared_server, redis_url: str) -> Server:
    """The app of this module, on the plain loop and on uvloop."""
    served: Server = shared_server(
        request.param,
        app="asyncio_app",
        extension="asyncio",
        config={"REDIS_URL": redis_url},
    )
    return served


# Loops


@pytest.mark.parametrize("lazy", [False, True], ids=["", "lazy-apps"])
@pytest.mark.parametrize("master", [True, False], ids=["master", "no-master"])
@pytest.mark.parametrize("env", ["", "0"], ids=["", "refused"])
def test_uvloop_is_taken_where_it_is_installed(serve, env: str, master: bool, lazy: bool) -> None:
    server = serve(
        "asyncio-uvloop",
        env={"FLASK_UWSGI_UVLOOP": env},
        master=master,
        options=["--lazy-apps"] if lazy else [],
    )
    assert server.get("/loop").body == (b"asyncio.unix_events" if env == "0" else b"uvloop")
    with server.raw() as client:
        client.echo("hello")


@pytest.mark.slow
def test_several_extensions_have_one_loop(server: Server) -> None:
    expected = b"uvloop" if server.engine == "asyncio-uvloop" else b"asyncio.unix_events"
    assert server.get("/loop").body == expected


@pytest.mark.slow
@pytest.mark.parametrize("loop", LOOPS)
def test_thousands_of_aborts_lose_nothing(shared_server, loop: str) -> None:
    server = shared_server(loop)

    def abuse(number: int) -> None:
        for index in range(250):
            client = server.tcp() if index % 5 == 4 else server.raw("/quickstart")
            if index % 5 == 1:
                client.text("x")
            elif index % 5 == 2:
                client.half_close()
            elif index % 5 == 3:
                client.send(b"\x81\xfe")  # part of a frame
            client.abort()

    abuse(0)
    server.wait_idle()
    worker, descriptors = server.worker_pid, server.settled_descriptors()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(abuse, range(8)))
    server.wait_idle()
    assert server.worker_pid == worker
    eventually(lambda: server.descriptors() <= descriptors, "all descriptors to be closed")
    # Every core serves again: more connections than were ever lost at a time.
    clients = [server.raw() for _ in range(server.cores - 1)]
    for client in clients:
        client.text("still here")
    for client in clients:
        assert client.message() == "still here"
        client.abort()


@pytest.mark.slow
def test_a_broken_pipe_is_an_exception(server: Server) -> None:
    with server.raw("/broken-pipe") as client:
        for _ in range(3):
            client.text("go")
            assert client.message() == "broken pipe, SIG_IGN"


# The old API


@pytest.mark.parametrize("path", ["/a_names", "/old-names"])
def test_old_names(server: Server, path: str) -> None:
    with server.raw(path) as client:
        for text in ("hello", "", "Grüße"):
            client.echo(text)
        assert client.leave().code == 1000


def test_old_names_that_do_not_wait(server: Server, token: str) -> None:
    with server.raw(f"/nb-names/{token}") as client:
        assert client.message() == "ready"
        client.echo("polled")
        assert client.leave().code == 1000
    assert server.record(token) == {"empty": "", "connected": False, "end": None}


def test_old_names_that_are_coroutines(server: Server) -> None:
    with server.raw("/kinds") as client:
        names = json.loads(client.message())
    assert names == ["a_recv", "a_send", "receive", "recv", "send", "close"]


# Handlers


def test_messages_by_anext(server: Server, token: str) -> None:
    with server.raw(f"/anext/{token}") as client:
        for text in ("one", "two"):
            client.echo(text)
        assert client.message() == "timeout"
        assert client.leave().code == 1000
    assert server.record(token) == {"end": "end"}


def test_a_plain_function_is_refused() -> None:
    websocket = AsyncioWebSocket(Flask(__name__))
    with pytest.raises(TypeError, match=r"plain is a plain function.*async def"):

        @websocket.route("/plain")
        def plain(ws):  # type: ignore[no-untyped-def]
            pass


def test_decorated_handlers(server: Server) -> None:
    with server.raw("/decorated/Ada") as client:
        assert [client.message() for _ in range(3)] == ["BEFORE", "Ada", "AFTER"]
        assert client.read_close().code == 1000


def test_login_required(server: Server) -> None:
    cookie = server.get("/login/ann").headers["Set-Cookie"].partition(";")[0]
    with server.raw("/members", headers={"Cookie": cookie}) as client:
        for text in ("one", "two"):
            client.text(text)
            assert client.message() == f"ann: {text}"
        assert client.leave().code == 1000


def test_timeouts_lose_no_message(server: Server) -> None:
    with server.raw("/timeout") as client:
        assert client.message() == "timeout"
        assert client.message() == "wait_for"
        client.echo("still here")


def test_gather(server: Server) -> None:
    with server.raw("/gather") as client:
        assert sorted(client.message() for _ in range(10)) == [str(n) for n in range(10)]
        assert json.loads(client.message()) == list(range(10))


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is of Python 3.11")
def test_task_group(server: Server, token: str) -> None:
    with server.raw(f"/taskgroup/{token}") as client:
        for text in ("one", "two", "three"):
            client.echo(text)
        assert client.leave().code == 1000
    assert server.record(token) == {"sender": "cancelled"}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="TaskGroup is of Python 3.11")
def test_a_task_group_whose_sender_hears_of_the_end_ends_quietly(server: Server) -> None:
    with server.raw("/taskgroup-that-sends") as client:
        assert client.message() == "now"
        assert client.leave().code == 1000
    server.wait_idle()
    assert "Traceback" not in server.new_log()


def test_to_thread(server: Server) -> None:
    with server.raw("/to_thread") as client, server.raw("/to_thread") as other:
        client.text("one")
        other.text("two")
        assert client.message() == "one /to_thread True"
        assert other.message() == "two /to_thread True"


def test_context_variables_follow_into_tasks(server: Server) -> None:
    cookie = server.get("/login/ann").headers["Set-Cookie"].partition(";")[0]
    clients = {name: server.raw(f"/context/{name}", headers={"Cookie": cookie}) for name in "abc"}
    for name, client in clients.items():
        path, own, _, flavour = json.loads(client.message())
        assert (path, own, flavour) == (f"/context/{name}", name, name)
        client.leave()
        client.close()


def test_an_exception_of_a_task_that_is_awaited(server: Server) -> None:
    server.allow_log("Traceback")
    with server.raw("/task-that-fails") as client:
        client.text("now")
        assert client.read_close().code == 1011
    eventually(lambda: "in a task of its own" in server.new_log(), "the log to tell of it")


def test_a_task_that_a_handler_waits_for_is_cancelled(serve, token: str) -> None:
    server = serve("asyncio", app="asyncio_app", config={"TEST_TIMEOUT": 0.5})
    with server.raw(f"/abandoned/{token}") as client:
        assert client.message() == "busy"
        client.abort()
    assert server.record(token) == {"code": 1006}
    server.wait_idle()
    assert server.get("/tasks").body == b"0"


def test_redis(server: Server, token: str) -> None:
    with server.raw(f"/redis/{token}") as one, server.raw(f"/redis/{token}") as two:
        for client in (one, two):
            assert client.message() == "subscribed"
        one.text("to both")
        for client in (one, two):
            assert client.message() == "to both"


class Page(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"page {self.path}".encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def site() -> Iterator[str]:
    """A local website."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Page) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_aiohttp_client(server: Server, site: str) -> None:
    with server.raw("/aiohttp") as client:
        for path in ("/one", "/two"):
            client.text(site + path)
            assert client.message() == f"200 page {path}"


# Views


def test_a_view_waits_for_a_coroutine(server: Server) -> None:
    assert server.get("/wait/0.01/done").body == b"done /wait/0.01/done"
    assert json.loads(server.get("/wait-again").body) == [f"{n} /wait-again" for n in range(20)]
    assert server.get("/wait-future").body == b"from a future"
    assert json.loads(server.get("/wait-gather").body) == ["one /wait-gather", "two /wait-gather"]


def test_others_go_on_while_a_view_waits(server: Server) -> None:
    with server.raw("/a_names") as client, ThreadPoolExecutor(20) as pool:
        # 20 half seconds one after the other would be 10 s.
        waits = [pool.submit(server.get, f"/wait/0.5/{n}", timeout=8) for n in range(20)]
        while not all(wait.done() for wait in waits):
            client.echo("x")
        assert [wait.result().body.split()[0] for wait in waits] == [b"%d" % n for n in range(20)]


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        ("error", "ValueError"),
        ("exit", "SystemExit"),
        ("cancel", "CancelledError"),
        ("timeout", "TimeoutError"),
    ],
)
def test_what_a_coroutine_raises_is_raised_in_the_view(
    server: Server, kind: str, answer: str
) -> None:
    worker = server.worker_pid
    assert server.get(f"/wait-error/{kind}").body.decode() == answer
    assert server.worker_pid == worker


def test_a_coroutine_aborts_the_request(server: Server) -> None:
    assert server.get("/wait-error/abort").status == 418


def test_async_views(server: Server) -> None:
    assert server.get("/async-view/ada").body == b"ada /async-view/ada None"
    assert server.get("/async-view-fails").status == 418
    assert server.get("/async-view-fails").body == b"418, after some awaiting"


def test_an_async_function_before_the_handshake(server: Server) -> None:
    with server.raw("/blueprint/hello") as client:
        assert json.loads(client.message()) == [True, "blueprint"]
    assert b"403" in _refusal(server, "/blueprint/hello?deny=1")


def _refusal(server: Server, path: str) -> bytes:
    with pytest.raises(AssertionError) as refused:
        server.raw(path)
    return str(refused.value).encode()


def test_a_streamed_response_waits_between_its_parts(server: Server) -> None:
    lines = server.get("/stream").body.decode().splitlines()
    assert lines == [f"{number} /stream" for number in range(5)]


def test_where_run_coroutine_is_out_of_place(server: Server) -> None:
    with server.raw("/thread-names") as client:
        assert "asyncio.run_coroutine_threadsafe" in client.message()
        assert "await in a coroutine" in client.message()


def test_run_coroutine_needs_the_engine() -> None:
    async def nothing() -> None: ...

    with pytest.raises(EngineError, match="--asyncio N --greenlet"):
        run_coroutine(nothing())


def test_what_has_waited_already_cannot_be_awaited(server: Server) -> None:
    body = server.get("/awaits-a-result").body.decode()
    assert body.startswith("run_coroutine() was given Count, which")
    assert "have waited already" in body


def test_views_that_their_clients_abandon(server: Server) -> None:
    """A client that leaves while its view waits costs nothing but the wait."""
    for _ in range(50):
        client = server.tcp()
        client.send(b"GET /wait/0.2/x HTTP/1.1\r\nHost: x\r\n\r\n")
        client.abort()
    server.wait_idle()
    assert server.get("/wait/0.01/done").status == 200


def test_installed_uvloop_is_not_needed_to_import(tmp_path: Path) -> None:
    code = "import flask_uwsgi_websocket, sys; assert 'uvloop' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)


def test_hooks_of_others_after_the_fork_run(serve, tmp_path):
    """Those of uWSGI's decorators, which have one hook for all of them."""
    hooks = tmp_path / "hooks.py"
    hooks.write_text(
        "import uwsgi, uwsgidecorators\n"
        "uwsgidecorators.postfork(lambda: print('worker', uwsgi.worker_id(), 'is there'))\n"
    )
    log = serve("asyncio", options=["--import", str(hooks)]).log()
    assert log.count("worker 1 is there") == 1
