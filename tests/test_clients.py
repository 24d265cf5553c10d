"""The clients that the library keeps, and one message for all of them."""

from __future__ import annotations

import json
import re
from urllib.parse import urlencode

import pytest
from flask import Flask

from flask_uwsgi_websocket import WebSocket
from tests.server import Server, eventually


@pytest.fixture
def clients(engine: str, shared_server) -> Server:
    server: Server = shared_server(engine, app="clients")
    return server


def count(server: Server) -> int:
    return int(server.get("/count").body)


def test_they_are_those_that_are_open(clients: Server, token: str) -> None:
    with clients.raw("/listen") as first, clients.raw("/listen") as second:
        ids = sorted([first.message(), second.message()])
        assert json.loads(clients.get("/clients").body) == ids
        with clients.raw(f"/membership/{token}"):
            eventually(lambda: count(clients) == 3, "the third to be there")
        second.abort()
        eventually(lambda: count(clients) == 1, "those who left to be gone")
        first.leave()
        eventually(lambda: count(clients) == 0, "nobody to be there")
    seen = clients.record(token)
    assert seen == {"at_once": [True, True], "at_end": False, "other": False}


def test_a_lazy_handshake_is_not_a_client_yet(clients: Server, token: str) -> None:
    with clients.raw(f"/lazy/{token}"):
        assert clients.record(token) == {"before": [False, 0], "after": True}


def test_walking_over_them_while_they_come_and_go(clients: Server, token: str) -> None:
    with clients.raw(f"/walk/{token}"):
        while not clients.records(token):
            with clients.raw("/listen") as first, clients.raw("/listen") as second:
                first.message()
                second.abort()
    assert clients.record(token) == {"walked": True}


def test_a_message_for_all_and_one_for_the_others(clients: Server) -> None:
    with clients.raw("/chat") as first, clients.raw("/chat") as second:
        name = first.message()
        second.message()
        first.text("hello")
        assert [first.message(), second.message()] == ["hello", "hello"]
        assert second.message() == f"{name} to the others"
        first.binary(b"bytes")
        assert [first.message(), second.message()] == [b"bytes", b"bytes"]


def test_views_and_threads_send_to_all(clients: Server) -> None:
    with clients.raw("/listen") as first, clients.raw("/listen") as second:
        excluded = first.message()
        second.message()
        assert clients.get("/send?message=text").body == b"2"
        clients.get("/send?message=bytes&binary=1")
        assert [client.message() for client in (first, second)] == ["text", "text"]
        assert [client.message() for client in (first, second)] == [b"bytes", b"bytes"]
        clients.get(f"/send?{urlencode({'message': 'others', 'exclude': excluded})}")
        clients.get("/send-from-thread?message=thread")
        assert first.message() == "thread"
        assert [second.message(), second.message()] == ["others", "thread"]


def test_compressed_and_plain_clients_get_the_same(clients: Server) -> None:
    with (
        clients.connect("/listen-compressed") as compressed,
        clients.connect("/listen-compressed", compression=None) as plain,
    ):
        compressed.recv(30), plain.recv(30)
        for _ in range(3):
            clients.get("/send?message=abc&times=1000")
            assert compressed.recv(30) == plain.recv(30) == "abc" * 1000
            # Each goes on with a stream of its own after what went to all.
            for client in (compressed, plain):
                client.send("cab" * 500)
                assert client.recv(30) == "cab" * 500


def test_one_that_does_not_read_is_closed_and_holds_up_nobody(clients: Server) -> None:
    with clients.raw("/listen") as deaf, clients.raw("/listen") as reader:
        deaf.message(), reader.message()
        sent = 0
        while clients.get("/send?message=x&times=60000&count=10").body == b"2":
            sent += 10
            for _ in range(10):
                assert len(reader.message()) == 60000
            assert sent < 10_000
        assert len(reader.message()) == 60000
        deaf.abort()


def test_the_dead_are_passed_over(clients: Server) -> None:
    with clients.raw("/chat") as first, clients.raw("/chat") as last:
        first.message(), last.message()
        for number in range(20):
            clients.raw("/chat").abort()
            first.text(str(number))
            assert last.message() == str(number)
            assert last.message().endswith("to the others")
            assert first.message() == str(number)


def test_a_child_process_has_none(clients: Server) -> None:
    with clients.raw("/listen") as listener:
        listener.message()
        assert clients.get("/fork").body == b"0"
        assert count(clients) == 1
        clients.get("/send?message=from the parent".replace(" ", "+"))
        assert listener.message() == "from the parent"


def test_what_cannot_be_sent_is_said(clients: Server, token: str) -> None:
    with clients.raw("/listen") as listener:
        listener.message()
        clients.raw(f"/wrong/{token}").leave()
        found = [seen["is_type_error"] for seen in clients.records(token)]
        assert found == [True, True, False, False]
        clients.get("/send?message=next")
        assert listener.message() == "next"


def test_the_log_names_the_remedy_of_a_loop_that_breaks_at_the_dead(clients: Server) -> None:
    with clients.raw("/naive") as first, clients.raw("/naive") as second:
        for client in (first, second):  # each is in the list once it has heard itself
            client.text(f"this is {client}")
            while client.message() != f"this is {client}":
                pass
        second.abort()
        eventually(lambda: count(clients) == 1, "the second to be gone")
        clients.allow_log("Traceback")
        first.text("one is gone")
        assert first.read_close().code == 1011
    clients.wait_idle()
    lines = re.findall(r".*another client, which had left.*", clients.new_log())
    assert len(lines) == 1
    assert "/naive" in lines[0]
    for remedy in ("websocket.send_to_all()", "websocket.clients", "except ConnectionClosed"):
        assert remedy in lines[0]


def test_they_are_those_of_one_extension_and_all_of_its_apps() -> None:
    extensions = WebSocket(), WebSocket()
    apps = [Flask("one"), Flask("two")]
    for app in apps:
        for number, extension in enumerate(extensions):
            extension.init_app(app)
            if app is apps[0]:

                @extension.route(f"/{number}")
                def handler(ws):
                    ws.receive()

    first, second = extensions
    with (
        first.test_client(apps[0]).connect("/0") as one,
        first.test_client(apps[1]).connect("/0") as two,
        second.test_client(apps[0]).connect("/1") as other,
    ):
        eventually(lambda: (len(first.clients), len(second.clients)) == (2, 1), "all to be there")
        first.send_to_all("hello")
        second.send_to_all(b"other")
        assert [one.receive(), two.receive(), other.receive()] == ["hello", "hello", b"other"]
        assert repr(first.clients) == "<2 open clients>"
    assert list(first.clients) == list(second.clients) == []
