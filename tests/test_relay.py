"""The relay examples: a real uWSGI between WebSocket clients and a real TCP service."""

from __future__ import annotations

import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from tests.browser import Example
from tests.server import PATIENCE, eventually, free_port

EXAMPLES = ["relay", "relay-asyncio"]


class Service(socketserver.ThreadingTCPServer):
    """Gives back what it gets, and hangs up at a line that says so."""

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Echo)
        self.open = 0
        self.lock = threading.Lock()

    def count(self, change: int) -> None:
        with self.lock:
            self.open += change


class Echo(socketserver.BaseRequestHandler):
    server: Service

    def handle(self) -> None:
        self.server.count(1)
        try:
            while data := self.request.recv(65536):
                if data == b"hang up":
                    return
                self.request.sendall(data)
        finally:
            self.server.count(-1)


@pytest.fixture
def service() -> Iterator[Service]:
    with Service() as service:
        thread = threading.Thread(target=service.serve_forever)
        thread.start()
        yield service
        service.shutdown()
        thread.join()


def dial(example: Example) -> ClientConnection:
    url = example.url.replace("http", "ws", 1) + "relay"
    return connect(url, open_timeout=PATIENCE, close_timeout=PATIENCE, compression=None)


def receive(client: ClientConnection, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = client.recv(PATIENCE)
        assert isinstance(part, bytes)
        data += part
    return data


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_relay(
    name: str, service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RELAY_TO", f"127.0.0.1:{service.server_address[1]}")
    with Example(name, "python", tmp_path) as example:
        with dial(example) as ada, dial(example) as grace:
            for client, text in ((ada, "from Ada"), (grace, "from Grace"), (ada, "again")):
                client.send(text)
                assert receive(client, len(text)) == text.encode()
            large = bytes(range(256)) * 1024
            ada.send(large)
            assert receive(ada, len(large)) == large
        eventually(lambda: service.open == 0, "the service to see both leave")

        with dial(example) as client:
            client.send("hang up")
            with pytest.raises(ConnectionClosed) as ended:
                client.recv(PATIENCE)
            assert ended.value.rcvd is not None
            assert ended.value.rcvd.code == 1000
        assert "Traceback" not in example.log()


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_relay_to_nobody(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RELAY_TO", f"127.0.0.1:{free_port()}")
    with Example(name, "uwsgi", tmp_path) as example:
        with pytest.raises(InvalidStatus) as refused:
            dial(example)
        assert refused.value.response.status_code == 502
        assert "No service at 127.0.0.1" in example.log()
