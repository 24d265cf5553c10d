"""Thousands of WebSockets that write down what they get, in a thread of their own."""

from __future__ import annotations

import asyncio
import struct
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from typing import Any

from tests.rawclient import CLOSE, PING, PONG, TEXT, close_frame, frame
from tests.server import PATIENCE, Server, eventually

HANDSHAKE = (
    "GET {path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


class Member(asyncio.Protocol):
    """One WebSocket; the first message is who serves it."""

    def __init__(self, path: str, host: str) -> None:
        self._hello = HANDSHAKE.format(path=path, host=host).encode()
        self._rest = b""
        self._is_open = False
        self.joined: Future[Member] = Future()
        #: The worker's process.
        self.pid = 0
        self.messages: list[str] = []
        #: The code that it was closed with; 1006 without one.
        self.code: int | None = None
        self._reading: list[Callable[[bytes], None]] = []

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.write(self._hello)

    def data_received(self, data: bytes) -> None:
        self._rest += data
        if not self._is_open:
            head, end, self._rest = self._rest.partition(b"\r\n\r\n")
            if not end:
                self._rest = head
                return
            if b" 101 " not in head.partition(b"\r\n")[0]:
                self.joined.set_exception(AssertionError(head.decode()))
                return
            self._is_open = True
        begin = 0
        while (found := self._frame(begin)) is not None:
            opcode, body, begin = found
            self._take(opcode, body)
        self._rest = self._rest[begin:]

    def _frame(self, begin: int) -> tuple[int, bytes, int] | None:
        data = self._rest
        if len(data) < begin + 4:
            return None
        size, body = data[begin + 1], begin + 2
        if size == 126:
            size, body = struct.unpack_from("!H", data, body)[0], body + 2
        elif size == 127:
            if len(data) < begin + 10:
                return None
            size, body = struct.unpack_from("!Q", data, body)[0], body + 8
        if len(data) < body + size:
            return None
        return data[begin] & 15, data[body : body + size], body + size

    def _take(self, opcode: int, body: bytes) -> None:
        if opcode == TEXT and not self.pid:
            self.pid = int(body.split()[1])
            self.joined.set_result(self)
        elif opcode == TEXT:
            self.messages.append(body.decode())
        elif opcode == PING:
            self._transport.write(frame(PONG, body))
        elif opcode == CLOSE:
            self.code = int.from_bytes(body[:2], "big")
            self._transport.write(close_frame(1000))

    def connection_lost(self, error: Exception | None) -> None:
        self.code = self.code or 1006
        if not self.joined.done():
            self.joined.set_exception(ConnectionError(f"closed with {self.code}"))

    def say(self, text: str) -> None:
        """Send a message; on the crowd's loop."""
        self._transport.write(frame(TEXT, text))

    def leave(self) -> None:
        self._transport.close()

    def numbers(self, tag: str) -> list[int]:
        """The numbers of the messages with a tag."""
        words = [message.split(" ") for message in list(self.messages)]
        return [int(number) for mine, number, *_ in words if mine == tag]


class Crowd:
    """All of them.

    :param servers: where they connect, by turns.
    """

    def __init__(self, *servers: Server) -> None:
        self._servers = servers
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        self.members: list[Member] = []

    def __enter__(self) -> Crowd:
        return self

    def __exit__(self, *error: object) -> None:
        self._loop.call_soon_threadsafe(self._end)
        self._thread.join()
        self._loop.run_until_complete(asyncio.sleep(0))
        self._loop.close()

    def _end(self) -> None:
        for member in self.members:
            member.leave()
        self._loop.call_later(0.1, self._loop.stop)

    def begin_join(self, number: int, path: str) -> Future[list[Member]]:
        """Connect so many, 50 at a time."""
        return asyncio.run_coroutine_threadsafe(self._join(number, path), self._loop)

    def join(self, number: int, path: str) -> list[Member]:
        return self.begin_join(number, path).result(PATIENCE)

    async def _join(self, number: int, path: str) -> list[Member]:
        gate = asyncio.Semaphore(50)
        servers = [self._servers[i % len(self._servers)] for i in range(number)]
        return await asyncio.gather(*(self._join_one(gate, server, path) for server in servers))

    async def _join_one(self, gate: asyncio.Semaphore, server: Server, path: str) -> Member:
        async with gate:
            member = Member(path, f"{server.host}:{server.port}")
            await self._loop.create_connection(lambda: member, server.host, server.port)
            self.members.append(member)
            return await asyncio.wrap_future(member.joined)

    def say(self, member: Member, text: str) -> None:
        self._loop.call_soon_threadsafe(member.say, text)

    def leave(self, members: Iterable[Member]) -> None:
        for member in members:
            self._loop.call_soon_threadsafe(member.leave)


def by_worker(members: list[Member]) -> dict[int, list[Member]]:
    """The members that each worker serves, by its process."""
    workers: dict[int, list[Member]] = {}
    for member in members:
        workers.setdefault(member.pid, []).append(member)
    return workers


def have(members: list[Member], count: int, patience: float = PATIENCE) -> None:
    """Wait until each has got so many messages."""

    def all_have() -> bool:
        return all(len(member.messages) >= count for member in members)

    try:
        eventually(all_have, f"{len(members)} members to have {count} messages", patience)
    except AssertionError as error:
        short = [len(member.messages) for member in members if len(member.messages) < count]
        raise AssertionError(f"{error}: {len(short)} have less: {sorted(short)[:20]}") from None
