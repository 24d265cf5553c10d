"""Clients that come and go at random, resume where they were, and note whether any is missing."""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from typing import Any

from flask_uwsgi_websocket.rooms.envelope import SUBPROTOCOL
from flask_uwsgi_websocket.rooms.positions import Position
from tests.crowd import Member
from tests.rawclient import CLOSE, PING, PONG, close_frame, frame
from tests.server import PATIENCE, Server

#: Messages that a client may have missed before it is told, not given, them: 1,000 by the package.
REPLAYED = 1000


class Truth:
    """What all of them have seen, which has to be the same."""

    def __init__(self) -> None:
        #: The message at each position.
        self.messages: dict[Position, str] = {}
        self.wrong: list[str] = []
        self.counters: Counter[str] = Counter()

    def note(self, position: Position, text: str, who: object) -> None:
        known = self.messages.setdefault(position, text)
        if known != text:
            self.complain(f"{who} has {text!r} at {position}, others have {known!r}")

    def complain(self, text: str) -> None:
        self.wrong.append(text)

    @property
    def epochs(self) -> list[str]:
        return list(dict.fromkeys(position.epoch for position in self.messages))

    def check(self, sent: dict[str, Position | None]) -> None:
        """See that each message is at one position, the one that its sender was told, and in the
        order of its sender."""
        assert not self.wrong, self.wrong[:10]
        where: dict[str, Position] = {}
        for position, text in self.messages.items():
            assert text not in where, f"{text!r} is at {position} and at {where[text]}"
            where[text] = position
        for text, told in sent.items():
            assert told is None or where.get(text, told) == told, (text, told, where.get(text))
        latest: dict[tuple[str, str], tuple[int, str]] = {}
        for position, text in sorted(self.messages.items()):
            name, _, number = text.partition(" ")
            before, last = latest.get((position.epoch, name), (-1, ""))
            assert int(number) > before, f"{text!r} is behind {last!r}"
            latest[position.epoch, name] = int(number), text


class Connection(Member):
    """One connection of a client."""

    def __init__(self, resumer: Resumer, server: Server) -> None:
        path, host = f"/in/{resumer.room}", f"{server.host}:{server.port}"
        if resumer.position is not None:
            path += f"?_since={resumer.room}:{resumer.position}"
        super().__init__(path, host)
        offer = f"Sec-WebSocket-Protocol: {SUBPROTOCOL}\r\n\r\n"
        self._hello = self._hello[:-2] + offer.encode()
        self._resumer = resumer
        self.over, self.news = asyncio.Event(), asyncio.Event()

    def _take(self, opcode: int, body: bytes) -> None:
        if opcode == PING:
            self._transport.write(frame(PONG, body))
        elif opcode == CLOSE:
            self.code = int.from_bytes(body[:2], "big")
            self._transport.write(close_frame(1000))
        elif not self.over.is_set():
            self._resumer.take(json.loads(body))
            self.news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self.joined.cancel()
        self.over.set()
        self.news.set()

    def drop(self) -> None:
        """Be gone, without a word or with one."""
        self.over.set()
        if random.random() < 0.5:
            self._transport.abort()
        else:
            self._transport.write(close_frame(1000))
            self._transport.close()


class Resumer:
    """A client, over all its connections."""

    def __init__(self, name: str, truth: Truth, room: str = "chaos") -> None:
        self.name, self.room = name, room
        self.position: Position | None = None
        self._truth = truth
        self._asked: Position | None = None
        self.is_in = False

    def __repr__(self) -> str:
        return self.name

    def begin(self) -> None:
        """Connect once more."""
        self._asked, self.is_in = self.position, False
        self._truth.counters["connections"] += 1

    def take(self, message: dict[str, Any]) -> None:
        if "in" in message:
            self._enter(message)
        elif "room" in message:
            self._receive(message)

    def _enter(self, message: dict[str, Any]) -> None:
        at = Position.parse(message["at"])
        assert at is not None, message
        recovered = message.get("recovered")
        self._truth.counters[f"recovered: {recovered}".lower()] += 1
        if not self.is_in and (recovered is None) != (self._asked is None):
            self._truth.complain(f"{self} asked since {self._asked} and was told {message}")
        if recovered and at != self.position:
            self._truth.complain(f"{self} was at {self.position} and is to go on at {at}")
        if recovered is False and self._asked is not None and at.epoch == self._asked.epoch:
            missed = at.offset - self._asked.offset
            if not self.is_in and 0 <= missed < REPLAYED // 2:
                self._truth.complain(f"{self} could have got the {missed} that it has missed")
        self.position, self.is_in = at, True

    def _receive(self, message: dict[str, Any]) -> None:
        at = Position.parse(message["at"])
        assert at is not None, message
        before = self.position
        if not self.is_in or before is None:
            self._truth.complain(f"{self} got {message} before it was in")
        elif at != (before.epoch, before.offset + 1):
            self._truth.complain(f"{self} was at {before} and got {at}")
        self._truth.note(at, message["text"], self)
        self._truth.counters["messages received"] += 1
        self.position = at


class Resumers:
    """Many of them, in a thread with a loop."""

    def __init__(self, server: Server, number: int, stay: float) -> None:
        self.truth = Truth()
        self._server, self._stay = server, stay
        self._all = [Resumer(f"client {n}", self.truth) for n in range(number)]
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._run(),))
        self._is_over = False  # coming and going
        self._end: Position | None = None
        self._deadline = float("inf")

    def __enter__(self) -> Resumers:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._deadline = 0
        self._thread.join()
        self._loop.close()

    def finish(self, end: Position) -> None:
        """Have all come back and stay until they are at the end."""
        self._deadline = time.monotonic() + 2 * PATIENCE
        self._end, self._is_over = end, True
        self._thread.join(3 * PATIENCE)
        assert not self._thread.is_alive()
        behind = [(each, each.position) for each in self._all if each.position != end]
        assert not behind, f"the end is {end}, but {behind[:10]}"

    async def _run(self) -> None:
        await asyncio.gather(*map(self._live, self._all))

    async def _live(self, resumer: Resumer) -> None:
        while not (self._is_over and resumer.position == self._end):
            if time.monotonic() > self._deadline:
                return
            resumer.begin()
            connection = Connection(resumer, self._server)
            try:
                await self._loop.create_connection(
                    lambda connection=connection: connection, self._server.host, self._server.port
                )
            except OSError:
                await asyncio.sleep(0.1)
                continue
            await self._stay_in(connection, resumer)
            await asyncio.sleep(random.uniform(0, 0.5))

    async def _stay_in(self, connection: Connection, resumer: Resumer) -> None:
        """Be connected for a while; at last until all is there."""
        leave = time.monotonic() + random.uniform(0, 2 * self._stay)
        while not connection.over.is_set() and time.monotonic() < min(leave, self._deadline):
            await asyncio.sleep(0.05)
            if self._is_over:
                leave = float("inf")
                if resumer.position == self._end:
                    break
        connection.drop()
