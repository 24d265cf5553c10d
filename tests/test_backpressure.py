"""Who does not read makes the other wait: memory stays bounded, everybody else goes on."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from tests.rawclient import BINARY, TEXT, RawClient, frame
from tests.server import Server, eventually

MIB = 1 << 20

#: What a connection may cost beyond what it had; the kernel's buffers are not the worker's.
BOUNDED = 24 * MIB


class Writer:
    """Sends `count` messages of 64 KiB in a thread, and counts them."""

    def __init__(self, client: RawClient, count: int) -> None:
        self.sent = 0
        self.failure: BaseException | None = None
        self._client = client
        self._count = count
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        data = frame(BINARY, bytes(65536))
        try:
            for _ in range(self._count):
                self._client.send(data)
                self.sent += 1
        except BaseException as error:
            self.failure = error

    def stalled(self) -> bool:
        """Whether it gets nothing more sent, for a good while."""
        before = self.sent
        time.sleep(1)
        return before == self.sent

    def join(self) -> None:
        self._thread.join(30)
        assert not self._thread.is_alive()
        assert self.failure is None


@pytest.mark.slow
def test_reading_stops_when_the_handler_does_not_receive(server: Server, token: str) -> None:
    count = 1024  # 64 MiB, far more than the kernel buffers
    with server.raw(f"/paused/{token}") as client, server.raw() as other:
        assert client.message() == "paused"
        memory = server.rss()
        writer = Writer(client, count)
        eventually(writer.stalled, "the writer to be held up")
        assert writer.sent < count
        assert server.rss() - memory < BOUNDED
        other.echo("goes on")
        server.http("POST", f"/gates/{token}")
        assert [client.message() for _ in range(count)] == ["65536"] * count
        writer.join()


def test_send_waits_for_a_client_that_does_not_read(server: Server, token: str) -> None:
    memory = server.rss()
    with server.raw(f"/flood/{token}") as client, server.raw() as other:
        assert client.read().payload == b"x" * 65536
        for _ in range(20):
            other.echo("goes on")
        assert server.get("/both").body == b"http GET"
        assert server.rss() - memory < BOUNDED
        client.abort()
        server.record(token)


@pytest.mark.slow
def test_a_client_that_reads_again_gets_everything(server: Server) -> None:
    with server.raw("/count/200000") as client:
        assert client.message() == "0"
        # The server has filled every buffer by the time it has nothing to do.
        eventually(lambda: server.cpu_share(0.3) < 0.15, "the sender to be held up")
        for index in range(1, 200_000):
            assert client.message() == str(index)


def test_send_gives_up_on_a_client_that_never_reads(serve, engine: str, token: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_SEND_TIMEOUT": 2})
    with server.raw(f"/flood/{token}") as client:
        seen = server.record(token)
        assert seen["number"] * 65536 < BOUNDED
        server.wait_idle()
        client.close()


@pytest.mark.parametrize("size", [1 << 16, 1 << 18])
def test_what_the_kernel_takes_for_a_client_that_never_reads(
    serve, engine: str, token: str, size: int
) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_SEND_BUFFER": size})
    with server.raw(f"/flood/{token}") as client:
        sizes = [0, -1]

        def full() -> bool:
            sizes.append(in_kernel(client.socket.getsockname()[1]))
            return sizes[-1] == sizes[-2] > 0

        eventually(full, "the server to be held up")
        # Linux doubles the size, to have room for what it needs to keep account.
        assert size / 2 < sizes[-1] < size * 2.5
        client.abort()
        server.record(token)


def in_kernel(port: int) -> int:
    """How many bytes the kernel has of us for the peer with this port, who has yet to take them."""
    rows = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    queues = [row[4] for row in rows if row[2].endswith(f":{port:04X}")]
    return sum(int(queue.partition(":")[0], 16) for queue in queues)


def test_send_nb_is_bounded(serve, engine: str, token: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_SEND_QUEUE_SIZE": MIB})
    with server.raw(f"/flood-nb/{token}") as client:
        memory = server.rss()
        server.record(token)
        assert server.rss() - memory < BOUNDED
        server.wait_idle()
        client.close()


def test_send_nb_within_the_limit_arrives_in_order(server: Server, token: str) -> None:
    with server.raw(f"/room/{token}") as client:
        assert client.message() == "joined"
        for index in range(200):
            assert server.http("POST", f"/room/{token}", f"{index}".encode()).body == b"1"
        assert [client.message() for _ in range(200)] == [str(index) for index in range(200)]


def test_a_deaf_member_does_not_hold_a_broadcast_up(serve, engine: str, token: str) -> None:
    server = serve(engine, config={"UWSGI_WEBSOCKET_SEND_QUEUE_SIZE": MIB})
    message = "m" * 65536
    with server.raw(f"/room/{token}") as deaf, server.raw(f"/room/{token}") as client:
        assert deaf.message() == client.message() == "joined"
        for _ in range(300):
            server.http("POST", f"/room/{token}", message.encode())
            assert client.message() == message
        client.leave()


@pytest.mark.parametrize(("number", "size"), [(3, 200_000), (200, 2_000)])
def test_send_nb_holds_only_against_a_client_what_it_did_not_take(
    server: Server, number: int, size: int
) -> None:
    # Replies to messages that came together are held back for one write.
    with server.raw(f"/replies-nb/{number}/{size}") as client:
        client.send(frame(TEXT, "x") * 2)
        for _ in range(2 * number):
            assert len(client.message()) == size
