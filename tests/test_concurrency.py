"""Many senders on one connection, many connections from one sender."""

from __future__ import annotations

import threading
from collections import defaultdict
from contextlib import ExitStack

import pytest

from tests.rawclient import TEXT, RawClient, frame
from tests.server import Server, eventually


def by_sender(messages: list[str]) -> dict[str, list[int]]:
    seen: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        sender, index = message.split()
        seen[sender].append(int(index))
    return seen


def test_four_senders_on_one_connection(server: Server) -> None:
    with server.raw("/senders/4/1000") as client:
        messages = [client.message() for _ in range(4000)]
        assert by_sender(messages) == {str(sender): list(range(1000)) for sender in range(4)}
        assert client.message() == "done"


def test_four_senders_while_the_client_sends_too(server: Server) -> None:
    with server.raw("/senders/4/1000") as client:
        writer = threading.Thread(
            target=lambda: [client.send(frame(TEXT, "x" * 100)) for _ in range(1000)], daemon=True
        )
        writer.start()
        messages = [client.message() for _ in range(4000)]
        assert by_sender(messages) == {str(sender): list(range(1000)) for sender in range(4)}
        writer.join(30)


def test_threads_of_the_operating_system_send_too(server: Server) -> None:
    with server.raw("/from-threads/4/250") as client:
        messages = [client.message() for _ in range(1000)]
        assert by_sender(messages) == {str(sender): list(range(250)) for sender in range(4)}


def test_send_itself_called_in_another_thread(server: Server) -> None:
    for _ in range(20):
        with server.raw("/coroutine-from-thread") as client:
            assert client.message() == "from a thread"


def test_one_receives_while_another_sends(server: Server) -> None:
    with server.raw("/both-ways") as client:
        sent = [f"message {index}" for index in range(1000)]
        for start in range(0, 1000, 50):
            client.send(b"".join(frame(TEXT, text) for text in sent[start : start + 50]))
        assert [client.message() for _ in sent] == sent
        assert client.leave().code == 1000


def test_several_receive_from_one_connection(server: Server) -> None:
    with server.raw("/receivers/3") as client:
        sent = [f"message {index}" for index in range(600)]
        for text in sent[:100]:  # one at a time
            client.send(frame(TEXT, text))
            assert client.message() == text
        for start in range(100, 600, 50):
            client.send(b"".join(frame(TEXT, text) for text in sent[start : start + 50]))
        assert sorted(client.message() for _ in sent[100:]) == sorted(sent[100:])
        assert client.leave().code == 1000


def test_ten_thousand_sends_without_a_receive(server: Server) -> None:
    with server.raw("/count/10000") as client:
        assert [client.message() for _ in range(10_000)] == [str(n) for n in range(10_000)]


def test_ten_thousand_sends_to_the_websockets_client(server: Server) -> None:
    with server.connect("/count/10000") as client:
        assert [client.recv(30) for _ in range(10_000)] == [str(n) for n in range(10_000)]


@pytest.fixture
def room(server: Server, token: str):
    """Eighteen clients in one room."""
    with ExitStack() as stack:
        clients = [stack.enter_context(server.raw(f"/room/{token}")) for _ in range(18)]
        for client in clients:
            assert client.message() == "joined"
        yield clients


def test_a_broadcast_from_a_handler_reaches_all(room: list[RawClient]) -> None:
    room[0].text("hello, all")
    assert {client.message() for client in room} == {"hello, all"}


def test_a_broadcast_from_an_http_view_reaches_all(
    server: Server, room: list[RawClient], token: str
) -> None:
    for index in range(20):
        message = f"message {index} ☃"
        answer = server.http("POST", f"/room/{token}", message.encode())
        assert answer.body == b"18"
        assert {client.message() for client in room} == {message}


def test_broadcasts_of_all_to_all_keep_each_sender_s_order(room: list[RawClient]) -> None:
    for index in range(30):
        for name, client in enumerate(room):
            client.text(f"{name} {index}")
    expected = {str(name): list(range(30)) for name in range(len(room))}
    for client in room:
        assert by_sender([client.message() for _ in range(30 * len(room))]) == expected


def test_broadcasts_while_members_come_and_go(
    server: Server, room: list[RawClient], token: str
) -> None:
    for _ in range(20):
        server.raw(f"/room/{token}").abort()
        server.raw(f"/room/{token}").close()
        assert server.http("POST", f"/room/{token}", b"still on").status == 200
    for client in room:
        assert [client.message() for _ in range(20)] == ["still on"] * 20
    eventually(
        lambda: server.get(f"/room/{token}").body == b"18", "those who left to be out of the room"
    )


def test_many_connections_echo_at_once(server: Server) -> None:
    failures: list[object] = []

    def talk(name: int) -> None:
        try:
            with server.raw() as client:
                for index in range(200):
                    client.echo(f"{name} {index}")
                client.leave()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=talk, args=(name,), daemon=True) for name in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert not any(thread.is_alive() for thread in threads)
