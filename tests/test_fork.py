"""Processes that a handler or a view starts have nothing of the worker's, and may be terminated."""

from __future__ import annotations

import json
import signal

#: Seconds in which a child that is terminated has ended, on a busy machine.
SOON = 5.0


def test_a_program_can_be_terminated(shared_server, engine: str) -> None:
    server = shared_server(engine, app="forking")
    for _ in range(3):  # under threads, in several of them
        with server.raw("/popen") as client:
            ended = json.loads(client.message())
            assert ended["code"] == -signal.SIGTERM
            assert ended["took"] < SOON


def test_a_program_can_be_terminated_without_threads(serve) -> None:
    server = serve("single", app="forking", processes=2)
    for _ in range(3):
        with server.raw("/popen") as client:
            ended = json.loads(client.message())
            assert ended["code"] == -signal.SIGTERM
            assert ended["took"] < SOON
