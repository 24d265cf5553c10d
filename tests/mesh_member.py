"""A process that takes part in a mesh and does what tests/test_mesh.py tells it, line by line."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import resource
import sys
import time
from collections.abc import Collection
from typing import Any

from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions, Inbox
from flask_uwsgi_websocket.rooms.local.mesh import LocalBackplane
from flask_uwsgi_websocket.rooms.record import Kind, Record


class Box(Inbox):
    def __init__(self) -> None:
        self.got: list[Record] = []
        self.delays: list[float] = []
        self.gaps: list[int] = []
        self.states: list[str | None] = []

    def record(self, record: Record) -> None:
        self.got.append(record)
        if record.data[:2] == b"t=":
            self.delays.append(time.monotonic() - float(record.data[2:20]))

    def gap(self, channels: Collection[str] | None = None, lost: int = 0) -> None:
        self.gaps.append(lost)

    def health(self, error: str | None) -> None:
        self.states.append(error)


class Member:
    def __init__(self, setting: dict[str, Any]) -> None:
        options = dict(setting["options"])
        if options.get("instance") is not None:
            options["instance"] = tuple(options["instance"])
        self.origin = os.urandom(8)
        options.setdefault("worker", self.origin.hex())
        self.box = Box()
        self.backplane = LocalBackplane(setting["url"], BackplaneOptions(**options))
        self.number = 0

    async def start(self) -> str:
        await self.backplane.start(self.box)
        return self.origin.hex()

    async def stop(self) -> None:
        await self.backplane.stop()

    async def subscribe(self, *channels: str) -> None:
        await self.backplane.subscribe(channels)

    async def workers(self) -> int | None:
        return await self.backplane.workers()

    async def publish(
        self,
        count: int = 1,
        size: int = 200,
        batch: int = 1,
        pause: float = 0.0,
        channel: str = "room:a",
    ) -> dict[str, Any]:
        """Publish records; tell how many were refused, the longest wait, and the time of all."""
        refused: list[str] = []
        longest, began = 0.0, time.monotonic()
        for _ in range(0, count, batch):
            records = [self._record(size, channel) for _ in range(batch)]
            before = time.monotonic()
            results = await self.backplane.publish(records)
            longest = max(longest, time.monotonic() - before)
            refused += [repr(error) for error in results if error is not None]
            await asyncio.sleep(pause)
        return {
            "refused": refused,
            "longest": longest,
            "seconds": time.monotonic() - began,
            "dropped": self.backplane.dropped,
        }

    def _record(self, size: int, channel: str) -> Record:
        self.number += 1
        data = f"t={time.monotonic():018.9f} {self.number} ".encode().ljust(size, b".")
        return Record(Kind.MESSAGE, (channel,), data, True, (), self.origin, self.number)

    async def got(self, count: int = 0, seconds: float = 30.0) -> dict[str, list[int]]:
        """Return what has come, by origin, once there are so many."""
        deadline = time.monotonic() + seconds
        while len(self.box.got) < count and time.monotonic() < deadline:
            await asyncio.sleep(0.005)
        found: dict[str, list[int]] = {}
        for record in self.box.got:
            found.setdefault(record.origin.hex(), []).append(record.number)
        return found

    async def told(self) -> dict[str, Any]:
        return {"gaps": self.box.gaps, "states": self.box.states, "delays": self.box.delays}

    async def ticks(self, seconds: float) -> float:
        """Return the longest time for which the loop did nothing else."""
        longest, end = 0.0, time.monotonic() + seconds
        while time.monotonic() < end:
            before = time.monotonic()
            await asyncio.sleep(0.001)
            longest = max(longest, time.monotonic() - before - 0.001)
        return longest

    async def take_descriptors(self, left: int) -> None:
        """Leave so many to the mesh."""
        resource.setrlimit(resource.RLIMIT_NOFILE, (60, 60))
        self.taken: list[int] = []
        with contextlib.suppress(OSError):
            while True:
                self.taken.append(os.open("/dev/null", os.O_RDONLY))
        for _ in range(left):
            os.close(self.taken.pop())

    async def give_descriptors(self) -> None:
        for fd in self.taken:
            os.close(fd)

    async def fork(self) -> int:
        """Return the id of a child that lives on, with all that it has inherited."""
        child = os.fork()
        if not child:
            time.sleep(60)
            os._exit(0)
        return child


async def main() -> None:
    setting = json.loads(sys.argv[1])
    if "umask" in setting:
        os.umask(setting["umask"])
    if "root" in setting:
        os.chroot(setting["root"])
        os.chdir("/")
    if "uid" in setting:
        os.setgroups([])
        os.setgid(setting["uid"])
        os.setuid(setting["uid"])
    member = Member(setting)
    reader = asyncio.StreamReader(limit=1 << 26)
    loop = asyncio.get_running_loop()
    protocol = asyncio.StreamReaderProtocol(reader)
    transport, _ = await loop.connect_read_pipe(lambda: protocol, sys.stdin)
    tasks = set()
    while line := await reader.readline():
        task = loop.create_task(obey(member, *json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    transport.close()
    await member.stop()


async def obey(member: Member, number: int, name: str, arguments: dict[str, Any] | list) -> None:
    try:
        method = getattr(member, name)
        answer = await (method(**arguments) if isinstance(arguments, dict) else method(*arguments))
        done = [number, answer, None]
    except Exception as error:
        done = [number, None, f"{type(error).__name__}: {error}"]
    print(json.dumps(done), flush=True)


if __name__ == "__main__":
    run = asyncio.run
    if json.loads(sys.argv[1]).get("uvloop"):
        from uvloop import run
    run(main())
