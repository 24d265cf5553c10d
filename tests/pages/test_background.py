"""The code of docs/background.rst, as it stands there."""

from __future__ import annotations

import os
import queue
import subprocess
import threading
from contextlib import suppress
from typing import Any

from tests.pages import Page
from tests.server import eventually

PAGE = Page("background")


def test_work_that_begins_with_a_worker() -> None:
    names = PAGE.run("def show_load", os=os)
    names["websocket"].add_url_rule("/load", "load", lambda ws: ws.receive())
    with names["websocket"].test_client(names["app"]).connect("/load") as conn:
        assert float(conn.receive()) >= 0
        conn.send("bye")


def test_work_that_a_view_begins() -> None:
    class db:
        class session:
            @staticmethod
            def execute(query: Any) -> list[Any]:
                return []

    class current_user:
        id = "7"

    names = PAGE.run("def make_report", db=db, current_user=current_user)
    names["websocket"].identify(lambda: "7")
    names["websocket"].add_url_rule("/inbox", "inbox", lambda ws: ws.receive())
    client = names["websocket"].test_client(names["app"])
    with client.connect("/inbox") as conn:
        assert client.post("/report").status_code == 202
        assert conn.receive() == "Your report is ready"
        conn.send("bye")


def test_a_loop_that_ends_with_its_worker() -> None:
    jobs: queue.Queue[str] = queue.Queue()
    jobs.put("a job")
    done = []

    class websocket:
        stopping = False

    def until_stopped() -> None:
        names = {"websocket": websocket, "jobs": jobs, "do": done.append}
        PAGE.run("websocket.stopping", queue=queue, suppress=suppress, **names)

    thread = threading.Thread(target=until_stopped)
    thread.start()
    eventually(lambda: done == ["a job"], "the job to be done")
    websocket.stopping = True
    thread.join()


def test_a_process_for_each_image() -> None:
    class cat:
        @staticmethod
        def run(command: list[str], **options: Any) -> Any:
            assert command[0] == "convert"
            return subprocess.run(["cat"], check=True, **options)

    names = PAGE.run("def thumbnails", subprocess=cat)
    with names["websocket"].test_client(names["app"]).connect("/thumbnails") as conn:
        conn.send(b"an image")
        assert conn.receive() == b"an image"
