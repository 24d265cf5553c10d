"""A loop in C around epoll_wait, recv and send: what the kernel takes for itself."""

from __future__ import annotations

import base64
import ctypes
import hashlib
import os
import re
import select
import socket
import subprocess
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")
KEY = re.compile(rb"(?i)sec-websocket-key: *(\S+)")
GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"


def compiled() -> ctypes.CDLL:
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "bare.so")
        subprocess.run(
            ["cc", "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)], check=True
        )
        return ctypes.CDLL(str(library))


def handshake(client: socket.socket) -> bytes:
    """Answer a request.

    :returns: its first line.
    """
    request = b""
    while b"\r\n\r\n" not in request:
        request += client.recv(4096)
    key = KEY.search(request)
    assert key is not None
    accept = base64.b64encode(hashlib.sha1(key[1] + GUID).digest())
    client.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: %s\r\n\r\n" % accept
    )
    return request.partition(b"\r\n")[0]


def main() -> None:
    server = compiled()
    listener = socket.create_server(("127.0.0.1", int(os.environ["BENCHMARK_PORT"])), backlog=100)
    poller = select.epoll()
    poller.register(listener, select.EPOLLIN)
    while True:
        server.serve(poller.fileno(), listener.fileno())
        client, _ = listener.accept()
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if b" /all " in handshake(client):
            server.join(client.fileno())
        poller.register(client.detach(), select.EPOLLIN)


main()
