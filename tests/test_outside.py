"""Who serves nobody reaches the clients of real workers: programs, mules, spoolers, commands."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import pytest

from flask_uwsgi_websocket import Publisher
from tests.conftest import ENGINES
from tests.server import PATIENCE, ROOT, Server, eventually

pytestmark = pytest.mark.slow


@pytest.fixture
def prefix() -> str:
    """One that no other server on this machine has."""
    return f"outside-{uuid4().hex}"


@pytest.fixture
def serve_rooms(serve: Any, prefix: str) -> Callable[..., Server]:
    def start(engine: str = "gevent", **options: Any) -> Server:
        config = {"UWSGI_WEBSOCKET_PREFIX": prefix, **options.pop("config", {})}
        env = {"PREFIX": prefix}
        server: Server = serve(engine, app="outside", config=config, env=env, **options)
        return server

    return start


@pytest.fixture
def join() -> Iterator[Callable[..., Any]]:
    """Lets a client join a room; it has the id of its worker's process."""
    with ExitStack() as stack:

        def join(server: Server, room: str = "lobby", user: str = "") -> Any:
            client = stack.enter_context(server.connect(f"/room/{quote(room)}?user={user}"))
            client.worker = client.recv(PATIENCE)
            return client

        yield join


def on_each_worker(join: Callable[..., Any], server: Server, room: str = "lobby") -> list[Any]:
    """Clients, of whom each worker has at least one."""
    clients: list[Any] = []

    def spread() -> bool:
        clients.append(join(server, room))
        return len({client.worker for client in clients}) == server.processes

    eventually(spread, "a client on each worker")
    return clients


# A program


@pytest.mark.parametrize("engine", ENGINES)
def test_a_publisher_reaches_all_workers(
    engine: str, serve_rooms: Any, join: Any, prefix: str
) -> None:
    server = serve_rooms(engine, processes=2)
    clients = on_each_worker(join, server)
    ann = join(server, "other", user="ann")
    with Publisher(prefix=prefix) as rooms:
        for number in range(20):
            rooms.to("lobby").send(f"{number}")
        rooms.to("lobby", "other").send_json({"a": 1})
        rooms.to_user("ann").send(b"for ann")
        rooms.to_all().send("end")
        for client in clients:
            heard = [client.recv(PATIENCE) for _ in range(22)]
            assert heard == [*map(str, range(20)), '{"a": 1}', "end"]
        assert [ann.recv(PATIENCE) for _ in range(3)] == ['{"a": 1}', b"for ann", "end"]
        # On a busy machine an answer may take longer than the second that is waited for it.
        counts = {"lobby": (len(clients), 0, True), "other": (1, 1, True)}
        eventually(lambda: rooms.rooms() == counts, "all are counted")
        eventually(lambda: rooms.count("lobby") == counts["lobby"], "all are counted")
        rooms.to("other").join("lobby")
        rooms.to("lobby").send("to all")
        for client in (ann, *clients):
            assert client.recv(PATIENCE) == "to all"
        rooms.to_user("ann").close(4001, "enough")
        with pytest.raises(Exception, match="4001"):
            ann.recv(PATIENCE)


def test_who_leaves_at_once_is_heard(serve_rooms: Any, join: Any, prefix: str) -> None:
    clients = on_each_worker(join, serve_rooms(processes=2))
    for number in range(30):
        with Publisher(prefix=prefix) as rooms:
            rooms.to("lobby").send(f"{number}")
    for client in clients:
        heard = {client.recv(PATIENCE) for _ in range(30)}  # 30 publishers have no order
        assert heard == set(map(str, range(30)))


def test_a_publisher_follows_a_restart(serve_rooms: Any, join: Any, prefix: str) -> None:
    rooms = Publisher(prefix=prefix)
    rooms.to("lobby").send("to nobody")
    for number in range(2):
        server = serve_rooms()
        client = join(server)

        def hears(client: Any = client, text: str = f"{number}") -> bool:
            rooms.to("lobby").send(text)
            try:
                return bool(client.recv(0.1) == text)
            except TimeoutError:
                return False

        eventually(hears, "a message of the publisher that was there before")
        server.stop()
    rooms.close()


# Within uWSGI


@pytest.mark.parametrize("engine", ["threads", "gevent", "asyncio"])
def test_a_mule(engine: str, serve_rooms: Any, join: Any) -> None:
    options = [f"--mule={ROOT}/tests/apps/mule.py"]
    if engine == "gevent":
        # Any mule crashes else: uWSGI finalizes Python in its handler of the signal.
        options.append("--skip-atexit-teardown")
    server = serve_rooms(engine, options=options, processes=2)
    clients = on_each_worker(join, server)
    for text in ("1", "2"):
        server.get(f"/mule/{text}")
        for client in clients:
            assert client.recv(PATIENCE) == f"mule {text}"


@pytest.mark.parametrize("engine", ENGINES)
def test_a_spooler(engine: str, serve_rooms: Any, join: Any, tmp_path: Path) -> None:
    (tmp_path / "spool").mkdir()
    # By itself uWSGI looks again after 30 s for what was spooled while it was busy.
    spooler = ["--spooler", str(tmp_path / "spool"), "--spooler-frequency", "1"]
    server = serve_rooms(engine, options=spooler, processes=2)
    clients = on_each_worker(join, server)
    for text in ("1", "2"):
        server.get(f"/spool/{text}")
        for client in clients:
            # Nobody promises an order between two that publish.
            got = {client.recv(PATIENCE) for _ in range(2)}
            assert got == {f"publisher {text}", f"extension {text}"}


# Commands


def test_rooms_of_workers_that_do_not_answer_are_not_said_to_be_none(
    serve_rooms: Any, join: Any, prefix: str
) -> None:
    server = serve_rooms("threads", processes=1)
    join(server, "lobby")
    [worker] = server.stats()["workers"]
    os.kill(worker["pid"], signal.SIGSTOP)
    try:
        done = command("rooms", "--prefix", prefix)
        assert "not all workers have answered in time" in done.stderr
        done = command("rooms", "--json", "--prefix", prefix)
        assert json.loads(done.stdout) == {"rooms": {}, "complete": False}
    finally:
        os.kill(worker["pid"], signal.SIGCONT)


def command(*words: str, module: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    program = ["flask_uwsgi_websocket"] if module else ["flask", "--app", "tests.apps.outside"]
    words = words if module else ("websocket", *words)
    return subprocess.run(
        [sys.executable, "-m", *program, *words],
        cwd=ROOT,
        env={**os.environ, "TEST_ENGINE": "asyncio", **options.pop("env", {})},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        **options,
    )


def eventually_complete(*words: str, **said: Any) -> subprocess.CompletedProcess[str]:
    """Ask until all workers answer in time, which is a second."""
    deadline = time.monotonic() + PATIENCE
    while True:
        done = command(*words, **said)
        late = "not all workers" in done.stderr or '"complete": false' in done.stdout
        if not late or time.monotonic() > deadline:
            assert (late, done.stderr) == (False, "")
            return done


@pytest.mark.parametrize("module", [True, False], ids=["module", "flask"])
def test_commands(module: bool, serve_rooms: Any, join: Any, prefix: str) -> None:
    server = serve_rooms("threads", processes=2)
    clients = on_each_worker(join, server)
    join(server, "other room", user="ann")
    said: dict[str, Any] = {"module": module}
    which = ["--prefix", prefix] if module else []
    said["env"] = {"TEST_CONFIG": json.dumps({"UWSGI_WEBSOCKET_PREFIX": prefix})}

    done = eventually_complete("rooms", *which, **said)
    assert done.stdout.splitlines() == [
        "Room        Connections  Users",
        "----------  -----------  -----",
        f"lobby       {len(clients):<11}  0",
        "other room  1            1",
    ]
    done = eventually_complete("rooms", "--json", *which, **said)
    assert json.loads(done.stdout) == {
        "rooms": {
            "lobby": {"connections": len(clients), "users": 0},
            "other room": {"connections": 1, "users": 1},
        },
        "complete": True,
    }
    tail = subprocess.Popen(
        [sys.executable, "-m", "flask_uwsgi_websocket", "tail", "lobby", "--prefix", prefix],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stderr is not None
    assert tail.stderr.readline() == "listening\n"
    for words, stdin in (
        (["lobby", "hé\x1b"], None),
        (["--json", "lobby", "-"], '{"a": 1}\n'),
        (["--binary", "lobby", "x"], None),
        (["--all", "to all"], None),
    ):
        done = command("publish", *words, *which, input=stdin, **said)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    for client in clients:
        heard = [client.recv(PATIENCE) for _ in range(4)]
        assert heard == ["hé\x1b", '{"a": 1}', b"x", "to all"]
    tail.send_signal(signal.SIGINT)
    assert tail.communicate(timeout=PATIENCE) == ('hé\\x1b\n{"a": 1}\n78\n', "")
    assert tail.returncode == 0


def test_a_tail_ends_quietly_where_an_app_has_brought_gevent(tmp_path: Path) -> None:
    code = "from flask import Flask\nfrom flask_uwsgi_websocket import GeventWebSocket\n"
    (tmp_path / "chat.py").write_text(code + "app = Flask('chat')\nGeventWebSocket(app)\n")
    words = ["-m", "flask", "--app", "chat", "websocket", "tail", "a"]
    tail = subprocess.Popen(
        [sys.executable, *words, "--backplane", f"local://{tmp_path}/rooms"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stderr is not None
    assert tail.stderr.readline() == "listening\n"
    tail.send_signal(signal.SIGINT)
    assert tail.communicate(timeout=PATIENCE) == ("", "")
    assert tail.returncode == 0


def test_a_tail_ends_with_its_reader(tmp_path: Path) -> None:
    where = ["--backplane", f"local://{tmp_path}/rooms", "--prefix", "x"]
    tail = subprocess.Popen(
        [sys.executable, "-m", "flask_uwsgi_websocket", "tail", "a", *where],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert tail.stdout is not None
    assert tail.stderr is not None
    assert tail.stderr.readline() == "listening\n"
    assert command("publish", "a", "1", *where).returncode == 0
    assert tail.stdout.readline() == "1\n"
    tail.stdout.close()
    assert command("publish", "a", "2", *where).returncode == 0
    assert tail.wait(PATIENCE) == 0
    assert tail.stderr.read() == ""
    tail.stderr.close()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["rooms", "--prefix", "nobody's"], "no app with rooms"),
        (["publish", "a", "b", "--prefix", "nobody's"], "no app with rooms"),
        (["tail", "a", "--prefix", "nobody's"], "no app with rooms"),
        (["rooms", "--backplane", "redis://127.0.0.1:1", "--prefix", "x"], "nothing listens"),
        (["rooms", "--backplane", "redis://127.0.0.1:1"], "--backplane needs --prefix"),
        (["rooms", "--backplane", "pigeon://", "--prefix", "x"], "no backplane for pigeon"),
        (["publish", "a"], "give ROOM and MESSAGE"),
        (["publish", "--all", "--user", "7", "a"], "give ROOM and MESSAGE"),
        (["publish", "a", "--json", "{"], "not JSON"),
        (["publish", "", "x", "--backplane", "memory://", "--prefix", "x"], "1 to 255 bytes"),
        (["tail", "a\n"], "control"),
    ],
)
def test_what_is_wrong_is_told(words: list[str], message: str) -> None:
    done = command(*words)
    assert done.returncode in (1, 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stderr.count(message) == 1


def test_memory_is_out_of_reach() -> None:
    env = {"TEST_CONFIG": json.dumps({"UWSGI_WEBSOCKET_BACKPLANE": "memory://"})}
    done = command("rooms", module=False, env=env)
    assert done.returncode == 1
    assert "nobody reaches" in done.stderr


def test_redis_that_is_not_installed() -> None:
    code = (
        "import sys; sys.modules['redis'] = None\n"
        "from flask_uwsgi_websocket.__main__ import main; main()"
    )
    words = ["rooms", "--backplane", "redis://x", "--prefix", "x"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    assert done.returncode == 1
    assert "pip install 'Flask-uWSGI-WebSocket[redis]'" in done.stderr
