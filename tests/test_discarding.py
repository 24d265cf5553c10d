"""A client that breaks the protocol in the middle of an upload hears why.

Whoever ends its side at once loses its Close: routers cut a connection that is half-closed while
the client sends.
"""

from __future__ import annotations

import threading
import time

import pytest

from tests.rawclient import BINARY, TEXT, RawClient, close_frame, frame
from tests.server import FRONTS

PIECE = 65536


class Upload(threading.Thread):
    """Sends the rest of a message, piece by piece, for a while."""

    def __init__(self, client: RawClient, pieces: int) -> None:
        super().__init__(daemon=True)
        self.client, self.pieces = client, pieces
        self.failure: OSError | None = None
        self.start()

    def run(self) -> None:
        try:
            for _ in range(self.pieces):
                self.client.send(bytes(PIECE))
                time.sleep(0.01)
        except OSError as error:
            self.failure = error


@pytest.mark.slow
@pytest.mark.parametrize("front", FRONTS)
@pytest.mark.parametrize("code", [1009, 1002, 1007])
def test_the_close_arrives_and_nothing_is_reset(
    shared_server, engine: str, front: str, code: int
) -> None:
    server = shared_server(engine, front)
    begun = frame(BINARY, length=64 * PIECE)
    with server.raw("/tiny" if code == 1009 else "/echo") as client:
        if code == 1002:
            client.send(frame(TEXT, "x", rsv=7) + begun)
        elif code == 1007:
            client.send(frame(TEXT, b"\xff") + begun)
        else:
            client.send(begun)
        upload = Upload(client, 64)
        assert client.read_close().code == code
        upload.join(30)
        assert not upload.is_alive()
        assert upload.failure is None
        client.send(close_frame(code))
        assert client.ended()


def test_a_client_that_never_stops_is_cut_off(serve, engine: str) -> None:
    server = serve(engine, config={"TEST_TIMEOUT": 1})
    before = server.rss()
    with server.raw("/tiny") as client:
        client.send(frame(BINARY, length=1 << 40))
        began = time.monotonic()
        upload = Upload(client, 1 << 20)
        assert client.read_close().code == 1009
        upload.join(30)
        assert upload.failure is not None
        assert 0.5 < time.monotonic() - began < 15
        server.wait_idle()
        assert server.rss() - before < 16 << 20
