"""What the start of the log says of uWSGI's options: each once, whatever wrote them down."""

from __future__ import annotations

import pytest

from tests.server import free_port

#: How our lines begin that a rule is behind.
HARAKIRI = "--harakiri 90: it kills the worker"
MERCY = "--worker-reload-mercy 3: uWSGI kills a worker"


@pytest.mark.parametrize("lazy", [[], ["--lazy-apps"]])
def test_each_is_said_once(serve, tmp_path, lazy: list[str]) -> None:
    # In a file, in other spellings, through the environment: uWSGI tells us of all of them.
    file = tmp_path / "more.ini"
    file.write_text("[uwsgi]\nset-placeholder = mercy=3\nworker-reload-mercy = %(mercy)\n")
    server = serve(
        "threads",
        processes=3,
        options=["-t", "90", "--ini", str(file), *lazy],
        env={"UWSGI_CHMOD_SOCKET": "660"},
    )
    log = server.log()
    assert log.count(HARAKIRI) == 1
    assert log.count(MERCY) == 1
    assert "leave it out for workers that serve WebSockets" in log
    # Hints are for the doctor.
    assert "--processes 3" not in log


@pytest.mark.parametrize(
    ("engine", "option", "line"),
    [
        ("gevent", ["--http11-socket"], "--http11-socket with --gevent: "),
        ("asyncio", ["--puwsgi-socket"], "--puwsgi-socket with --asyncio: "),
        ("threads", ["--fastcgi-socket"], "--fastcgi-socket: FastCGI knows no upgrade"),
    ],
)
def test_sockets_that_cannot_carry_websockets(serve, engine, option, line) -> None:
    server = serve(engine, options=[*option, f"127.0.0.1:{free_port()}"])
    assert server.log().count(line) == 1


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
def test_right_options_are_not_spoken_of(serve, engine: str) -> None:
    server = serve(
        engine, "http", options=["--http-buffer-size", "32768", "--max-requests", "9999"]
    )
    assert "WebSocket" not in server.log()


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
def test_several_apps(serve, tmp_path, engine: str) -> None:
    # The first one warns: a second one that has no WebSockets cannot. A file has them as well.
    (tmp_path / "other.py").write_text("def application(environ, start_response): pass\n")
    file = tmp_path / "more.ini"
    file.write_text(f"[uwsgi]\npythonpath = {tmp_path}\nmount = /third=other\n")
    mounts = ["--mount", "/second=other", "--ini", str(file), "--manage-script-name"]
    line = "several apps (--mount) without --single-interpreter: "
    assert serve(engine, options=mounts).log().count(line) == 1
    assert line not in serve(engine, options=[*mounts, "--single-interpreter"]).log()


def test_a_class_of_another_engine(serve) -> None:
    server = serve("threads", extension="asyncio", processes=2)
    line = "the app uses AsyncioWebSocket, and uWSGI is started with other options than its"
    assert server.log().count(line) == 1
    assert "start uWSGI with --asyncio N --greenlet, or use WebSocket" in server.log()
