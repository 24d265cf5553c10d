"""Many sockets that listen, in one thread."""

from __future__ import annotations

import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from tests.rawclient import CLOSE, PING, PONG, TEXT, RawClient, frame
from tests.server import PATIENCE, Server


class Listener:
    """One socket, and the texts that it got."""

    def __init__(self, server: Server, path: str) -> None:
        self.server = server
        self._client: RawClient = server.raw(path)
        self.socket: socket.socket = self._client.socket
        self._buffer = b""
        self.texts: list[str] = []
        self.worker = str(self._client.message()).removeprefix("pid ")
        #: How it ended; None while it is open.
        self.end: str | None = None

    def read(self) -> None:
        try:
            data = self.socket.recv(1 << 16)
        except OSError as error:
            self.end = repr(error)
            return
        if not data:
            self.end = self.end or "without a Close"
            return
        self._buffer += data
        for opcode, payload in self._frames():
            if opcode == TEXT:
                self.texts.append(payload.decode())
            elif opcode == PING:
                self.socket.sendall(frame(PONG, payload))
            elif opcode == CLOSE:
                self.end = repr(payload)

    def _frames(self) -> Iterator[tuple[int, bytes]]:
        while len(self._buffer) >= 2:
            head, size = 2, self._buffer[1] & 127
            if size == 126:
                if len(self._buffer) < 4:
                    return
                head, (size,) = 4, struct.unpack_from(">H", self._buffer, 2)
            if len(self._buffer) < head + size:
                return
            opcode, payload = self._buffer[0] & 15, self._buffer[head : head + size]
            self._buffer = self._buffer[head + size :]
            yield opcode, payload

    def ask(self) -> None:
        self.socket.sendall(frame(TEXT, b"?"))

    def close(self) -> None:
        self._client.leave()


class Audience:
    """Listeners of a room, which read all the time.

    :param servers: where they connect, by turns.
    """

    def __init__(self, servers: list[Server], path: str, count: int) -> None:
        self.listeners = [Listener(servers[i % len(servers)], path) for i in range(count)]
        self._selector = selectors.DefaultSelector()
        for listener in self.listeners:
            self._selector.register(listener.socket, selectors.EVENT_READ, listener)
        self._over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Audience:
        self._thread.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self._over = True
        self._thread.join(PATIENCE)
        self._selector.close()
        for listener in self.listeners:
            listener.close()

    def _run(self) -> None:
        while not self._over:
            for key, _ in self._selector.select(0.1):
                listener: Listener = key.data
                listener.read()
                if listener.end is not None:
                    self._selector.unregister(listener.socket)

    def wait(self, happened: Callable[[Listener], object], patience: float = PATIENCE) -> None:
        """Wait until something has happened to all."""
        deadline = time.monotonic() + patience
        while not all(happened(listener) for listener in self.listeners):
            late = [x for x in self.listeners if not happened(x)]
            assert time.monotonic() < deadline, f"{len(late)}: {late[0].texts[-3:]} {late[0].end}"
            time.sleep(0.02)

    @property
    def workers(self) -> dict[str, list[Listener]]:
        """The listeners by worker."""
        found: dict[str, list[Listener]] = {}
        for listener in self.listeners:
            found.setdefault(listener.worker, []).append(listener)
        return found
