"""What the servers are made to do."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.peer import Peer

#: Connections beyond those of the client's load that a server can hold.
SPARE = 14

#: Descriptors that a connection takes in a server at most, and some for everything else.
DESCRIPTORS, MORE_DESCRIPTORS = 2, 200


@dataclass(frozen=True)
class Work:
    """A load and the figure that counts.

    :param action: one of `benchmarks.client.ACTIONS`.
    :param session: works of the same session run on a server one after the other, in the order of
        `WORKS`; each session starts the server anew.
    :param figure: the name of the figure that tells who is better.
    :param less: whether less of it is better.
    :param scale: what the figure is multiplied by to be shown in its unit.
    :param peers: only these; else all but those that run through a router.
    :param most_rounds: further rounds leave it out.
    """

    name: str
    label: str
    action: str
    session: str = "few"
    figure: str = "rate"
    unit: str = "messages/s"
    less: bool = False
    scale: float = 1
    connections: int = 50
    size: int = 32
    depth: int = 1
    compression: bool = False
    peers: tuple[str, ...] = ()
    most_rounds: int | None = None

    @property
    def goes_to_all(self) -> bool:
        return self.action in ("ticks", "fan-out")

    def reason_to_skip(self, peer: Peer, descriptors: int) -> str | None:
        """Why a peer does not do it; empty where it is not meant to."""
        if peer.name not in self.peers if self.peers else peer.name.endswith("-router"):
            return ""
        if self.compression and not peer.compresses:
            return "it has no permessage-deflate"
        if self.goes_to_all and not peer.sends_to_others:
            return "its requests send from within themselves only"
        if peer.most is not None and self.connections > peer.most:
            return "it takes a thread for each connection"
        if self.connections * DESCRIPTORS + MORE_DESCRIPTORS > descriptors:
            return f"ulimit -n allows {descriptors} descriptors"
        return None


def _growth(connections: int) -> Work:
    return Work(
        name=f"growth-{connections}",
        label=f"echo, {connections:,} connections, 32 B",
        action="echo",
        session="many",
        figure="cpu_us",
        unit="µs of CPU for a message",
        less=True,
        connections=connections,
        most_rounds=1,
    )


def _memory(connections: int, session: str) -> Work:
    return Work(
        name=f"memory-{connections}",
        label=f"memory for each of {connections:,} idle connections",
        action="memory",
        session=session,
        figure="bytes",
        unit="KiB",
        less=True,
        scale=1 / 1024,
        connections=connections,
        most_rounds=1,
    )


GROWTH = tuple(_growth(number) for number in (10, 100, 1000, 5000))
MEMORY = (_memory(1000, "idle"), _memory(5000, "many"))
ROUTED = ("ours-gevent", "ours-gevent-router")

WORKS = (
    Work(
        name="latency",
        label="echo, 1 connection, 32 B: the time there and back",
        action="latency",
        figure="p50_us",
        unit="µs",
        less=True,
        connections=1,
    ),
    Work("echo-32", "echo, 50 connections, 32 B", "echo"),
    Work("echo-4k", "echo, 50 connections, 4 KiB", "echo", size=1 << 12),
    Work("echo-256k", "echo, 4 connections, 256 KiB", "echo", connections=4, size=1 << 18),
    Work("echo-1m", "echo, 4 connections, 1 MiB", "echo", connections=4, size=1 << 20),
    Work(
        "pipelined", "echo, 50 connections, 32 B, 16 messages under way in each", "echo", depth=16
    ),
    Work(
        name="connect",
        label="connect, echo one message, close; 10 at a time",
        action="connect",
        unit="connections/s",
        connections=10,
    ),
    Work(
        name="deflate",
        label="echo, 50 connections, 4 KiB with permessage-deflate",
        action="echo",
        session="deflate",
        size=1 << 12,
        compression=True,
    ),
    Work(
        name="router-4k",
        label="through app.run's router and direct: echo, 50 connections, 4 KiB",
        action="echo",
        session="router",
        size=1 << 12,
        peers=ROUTED,
    ),
    Work(
        name="router-64k",
        label="through app.run's router and direct: echo, 50 connections, 64 KiB",
        action="echo",
        session="router",
        size=1 << 16,
        peers=ROUTED,
    ),
    # Memory first on each server: what earlier connections left behind would be used again.
    MEMORY[0],
    Work(
        name="ticks",
        label="1,000 connections, a tick to all: until the last has it",
        action="ticks",
        session="idle",
        figure="last_ms",
        unit="ms",
        less=True,
        connections=1000,
        most_rounds=1,
    ),
    Work(
        name="fan-out",
        label="1,000 connections, 200 B to all of them",
        action="fan-out",
        session="idle",
        unit="deliveries/s",
        connections=1000,
        size=200,
    ),
    MEMORY[1],
    *GROWTH,
)

BY_NAME = {work.name: work for work in WORKS}
