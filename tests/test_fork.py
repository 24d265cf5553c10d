"""Processes that a handler or a view starts have nothing of the worker's, and may be terminated."""

from __future__ import annotations

import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.rawclient import RawClient
from tests.server import PATIENCE, Server, eventually, tcp_sockets

#: Seconds in which a child that is terminated has ended, on a busy machine.
SOON = PATIENCE
#: WebSockets that are open when a child is made: 20 threads, which leaves some for HTTP.
CLIENTS = {"threads": 20}


@pytest.fixture
def server(engine: str, shared_server) -> Server:
    return shared_server(engine, app="forking")


def echoes(clients: list[RawClient], pid: bytes) -> None:
    """All are answered, and by the worker."""
    for number, client in enumerate(clients):
        client.text(f"hello {number}")
    for number, client in enumerate(clients):
        assert client.message() == f"{pid.decode()} hello {number}"


def terminate(server: Server, child: bytes | str) -> None:
    ended = json.loads(server.get(f"/terminate/{int(child)}").body)
    assert ended["code"] == -signal.SIGTERM
    assert ended["took"] < SOON


def test_a_child_ends_by_a_sigquit(server: Server) -> None:
    # The worker itself leaves it to its master. It is not sent: the end may be a dump of 100 MB.
    child = int(server.get("/child").body)
    eventually(lambda: not is_handled(signal.SIGQUIT, child), "the child to do what is usual")
    terminate(server, str(child))


def is_handled(signum: int, pid: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    handled = int(status.partition("SigCgt:")[2].split()[0], 16)
    return bool(handled >> signum - 1 & 1)


@pytest.mark.slow
@pytest.mark.parametrize("made_by", ["view", "handler"])
def test_a_child_leaves_all_connections_to_its_parent(
    server: Server, engine: str, made_by: str
) -> None:
    worker = server.get("/pid").body
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw()) for _ in range(CLIENTS.get(engine, 40))]
        echoes(clients, worker)
        if made_by == "view":
            child = server.get("/child").body
        else:
            maker = stack.enter_context(server.raw("/child"))
            child = maker.message()
            clients.append(maker)
        for _ in range(3):
            echoes(clients, worker)
            assert server.get("/pid").body == worker
        terminate(server, child)
        echoes(clients, worker)
        with server.raw() as later:
            echoes([*clients, later], worker)
        # What the child had of it would hold it open.
        clients[0].leave()
    assert server.get("/pid").body == worker


def test_a_child_is_no_worker_of_its_instance(server: Server) -> None:
    worker, child = (told.split(" ", 1) for told in json.loads(server.get("/identity").body))
    assert (worker[0], child[0]) == ("1", "0")
    assert worker[1] == child[1]


@pytest.mark.slow
def test_a_child_does_not_go_on_with_other_requests(server: Server) -> None:
    # They sleep when the child is made.
    with ThreadPoolExecutor() as pool, server.raw("/sleep") as client:
        slow = [pool.submit(server.get, "/sleep") for _ in range(3)]
        eventually(lambda: server.busy_cores() >= 3, "the requests to begin")
        child = server.get("/child").body
        worker = server.get("/pid").body
        assert client.message() == worker.decode()
        assert [each.result().body for each in slow] == [worker] * 3
        terminate(server, child)
        assert server.get("/sleepers").body == worker * 4


def test_a_child_holds_no_connection_and_no_port(server: Server) -> None:
    with server.raw() as client:
        child = int(server.get("/child").body)
        eventually(lambda: not tcp_sockets(child), "the child to give up what it has inherited")
        client.text("hello")
        client.message()
        terminate(server, str(child))


@pytest.mark.parametrize(
    ("how", "status"),
    [
        ("returns", 0),
        ("receives", 0),
        ("closes", 0),
        ("sends", 1),
        ("raises", 1),
        ("exits", 3),
        ("_exits", 3),
    ],
)
def test_a_child_that_comes_out_of_a_handler_ends(server: Server, how: str, status: int) -> None:
    server.allow_log("Traceback")
    worker = server.get("/pid").body
    with server.raw() as other, server.raw(f"/fork/{how}") as client:
        assert client.message() == str(status)
        echoes([client, other], worker)
        assert client.leave().code == 1000


@pytest.mark.parametrize("how", ["sleeps", "yields"])
def test_a_child_waits_for_itself(server: Server, engine: str, how: str) -> None:
    """Under gevent with a hub of its own; a coroutine's loop is its parent's, and ends it."""
    server.allow_log("Traceback")
    worker = server.get("/pid").body
    with server.raw() as other, server.raw(f"/fork/{how}") as client:
        assert client.message() == ("1" if engine.startswith("asyncio") else "0")
        echoes([client, other], worker)


@pytest.mark.parametrize("how", ["returns", "raises", "exits"])
def test_a_child_that_comes_out_of_a_view_ends(server: Server, how: str) -> None:
    server.allow_log("Traceback")
    worker = server.get("/pid").body
    with server.raw() as client:
        answer = server.get(f"/fork/{how}")
        assert answer.body == {"returns": b"0", "raises": b"1", "exits": b"3"}[how]
        echoes([client], worker)


def test_without_gevent_s_patch(serve) -> None:
    server = serve("gevent", app="forking", config={"UWSGI_WEBSOCKET_AGGRESSIVE_PATCH": False})
    worker = server.get("/pid").body
    with server.raw() as client:
        child = server.get("/child").body
        echoes([client], worker)
        terminate(server, child)
        echoes([client], worker)


def test_a_program_can_be_terminated(server: Server) -> None:
    for _ in range(3):  # under threads, in several of them
        program_is_terminated(server)


def test_processes_without_threads(serve) -> None:
    server = serve("single", app="forking", processes=2)
    for _ in range(3):
        program_is_terminated(server)
    with server.raw("/child") as client:
        child = int(client.message())
        os.kill(child, signal.SIGTERM)
        eventually(lambda: client.text("x") or is_gone(child), "the child to end", SOON)
        assert client.leave().code == 1000


def is_gone(pid: int) -> bool:
    """Whether a process has ended; its parent may not have asked for its status yet."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def program_is_terminated(server: Server) -> None:
    with server.raw("/popen") as client:
        ended = json.loads(client.message())
        assert ended["code"] == -signal.SIGTERM
        assert ended["took"] < SOON
