"""One worker of an instance is the leader, whatever other users of the machine do to prevent it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time

import pytest

from flask_uwsgi_websocket.process import leader as leaders
from flask_uwsgi_websocket.process.leader import Leader
from tests.server import ROOT, eventually

NAME = "from flask_uwsgi_websocket.process.leader import Leader; print(Leader(1)._name[1:])"


def name_elsewhere() -> str:
    program = [sys.executable, "-c", NAME]
    return subprocess.check_output(program, cwd=ROOT, text=True).strip()


def test_forks_know_the_name_and_nobody_else() -> None:
    out, into = os.pipe()
    child = os.fork()
    if not child:
        os.write(into, Leader(1)._name[1:].encode())
        os._exit(0)
    os.waitpid(child, 0)
    assert os.read(out, 1000).decode() == Leader(1)._name[1:]
    assert len({Leader(1)._name[1:], name_elsewhere(), name_elsewhere()}) == 3


@pytest.mark.slow
@pytest.mark.parametrize("way", ["bind", "listen", "accept"])
def test_a_name_that_another_program_has_costs_nothing_but_the_wait(
    caplog, monkeypatch, way: str
) -> None:
    monkeypatch.setattr(leaders, "PATIENCE", 2)
    if way == "listen":  # by another user, as the tests' processes are all of one
        monkeypatch.setattr(leaders, "is_of_our_user", lambda sock: False)
    leader = Leader(0)
    cpu = []

    def wait() -> None:
        before = time.thread_time()
        leader.wait()
        cpu.append(time.thread_time() - before)

    other = socket.socket(socket.AF_UNIX)
    other.bind(leader._name)
    if way != "bind":
        other.listen(10)
    waiting = threading.Thread(target=wait)
    waiting.start()
    began = time.monotonic()
    while time.monotonic() - began < 0.6:
        if way == "accept":
            other.accept()[0].close()
    other.close()
    waiting.join(30)
    assert leader._listener is not None
    leader.leave_to_parent()
    assert cpu[0] < 0.2
    if way != "accept":
        eventually(lambda: "another program has bound the name" in caplog.text, "a warning")
