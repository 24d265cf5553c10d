"""What the library must reach, and whether a run shows it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from benchmarks import peers, works
from benchmarks.fanout.peers import BY_NAME as ROOM_PEERS
from benchmarks.fanout.works import BY_NAME as ROOM_WORKS
from benchmarks.peers import OURS
from benchmarks.results import Results

WORKS = {**works.BY_NAME, **ROOM_WORKS}
PEERS = {**peers.BY_NAME, **ROOM_PEERS}

#: Takes the place of one that cannot be installed.
STAND_INS = {"original-gevent": "uwsgi-gevent", "original-threads": "uwsgi-threads"}


@dataclass(frozen=True)
class Bar:
    """A limit to the ratio of ours to theirs.

    :param against: the peers; the best of them counts.
    :param limit: at least, or where less is better at most.
    :param cpu: whether it is about the CPU time for a message.
    :param tail: whether it is about the time within which 99 % of the messages have reached all.
    """

    work: str
    ours: str
    against: tuple[str, ...]
    limit: float
    cpu: bool = False
    tail: bool = False

    @property
    def figure(self) -> str:
        return "cpu_us" if self.cpu else "p99_ms" if self.tail else WORKS[self.work].figure

    @property
    def less(self) -> bool:
        return self.cpu or self.tail or WORKS[self.work].less

    @property
    def label(self) -> str:
        what = "CPU time for a message" if self.cpu else "99 % reach all" if self.tail else ""
        return WORKS[self.work].label + (f": {what}" if what else "")


@dataclass(frozen=True)
class Verdict:
    """A bar in a run.

    :param peer: the one that was the best.
    :param measured: the ratio; None where a figure is missing.
    :param failed: which of the two failed, if any.
    """

    bar: Bar
    peer: str
    measured: float | None
    failed: str | None = None

    @property
    def missed(self) -> bool:
        if self.measured is None:
            return self.failed == self.bar.ours
        if self.bar.less:
            return self.measured > self.bar.limit
        return self.measured < self.bar.limit

    @property
    def word(self) -> str:
        if self.measured is not None:
            return "MISSED" if self.missed else "met"
        if self.missed:
            return "OURS FAILED"
        return "the other failed" if self.failed else "not measured"


UVICORN = tuple(peer.name for peer in peers.PEERS if peer.name.startswith("uvicorn"))


def _kin(kind: str) -> tuple[str, ...]:
    return tuple(
        peer.name
        for peer in peers.PEERS
        if peer.kind == kind and not peer.is_ours and peer.dialect == "websocket"
    )


BARS = (
    Bar("echo-32", "ours-uvloop", ("uvicorn-websockets-sansio",), 1.6),
    Bar("echo-32", "ours-uvloop", ("aiohttp",), 1.15),
    Bar("echo-32", "ours-uvloop", ("picows",), 0.85),
    Bar("echo-32", "ours-gevent", ("picows",), 0.8),
    *(
        Bar("echo-32", ours, (against,), limit)
        for ours in ("ours-uvloop", "ours-gevent")
        for against, limit in (
            ("ws", 1.15),
            ("aiohttp-uvloop", 1.2),
            ("socketify", 1.3),
            ("granian", 2.0),
        )
    ),
    Bar("echo-32", "ours-gevent", ("aiohttp",), 1.0),
    Bar("echo-32", "ours-gevent", ("flask-sock-gevent",), 2.5),
    Bar("echo-32", "ours-gevent", ("original-gevent",), 3.0),
    Bar("echo-32", "ours-threads", ("uwsgi-threads",), 1.0),
    Bar("echo-32", "ours-threads", ("flask-sock-gthread",), 4.0),
    *(Bar(work, "ours-uvloop", ("picows",), 1.0) for work in ("pipelined", "echo-4k", "echo-256k")),
    *(Bar("fan-out", f"ours-{kind}", ("c",), 1.5, cpu=True) for kind in ("gevent", "uvloop")),
    *(
        Bar("fan-out", f"ours-{kind}", (against,), 3.0)
        for kind, against in (
            ("gevent", "aiohttp"),
            ("gevent", "websockets"),
            ("uvloop", "aiohttp-uvloop"),
            ("uvloop", "websockets"),
        )
    ),
    Bar("echo-4k", "ours-uvloop", ("uvicorn-websockets-sansio",), 1.2),
    Bar("echo-256k", "ours-uvloop", ("uvicorn-websockets-sansio",), 1.2),
    *(
        Bar("latency", OURS[kind], _kin(kind), 1.05)
        for kind in ("threads", "gevent", "asyncio", "uvloop")
    ),
    Bar("router-4k", "ours-gevent-router", ("ours-gevent",), 0.3),
    Bar("router-64k", "ours-gevent-router", ("ours-gevent",), 0.3),
    *(
        Bar(work.name, ours, against, 1.0)
        for work in works.MEMORY
        for ours in ("ours-gevent", "ours-asyncio", "ours-uvloop")
        for against in (("original-gevent",), UVICORN)
    ),
)


PYTHON = tuple(name for name, peer in ROOM_PEERS.items() if peer.kind == "python")
NODE = tuple(name for name, peer in ROOM_PEERS.items() if peer.kind == "node")

#: For rooms, on both backplanes, and with 8 messages under way: a chat that is busy.
ROOM_BARS = tuple(
    bar
    for ours in ("gevent-local", "gevent-redis", "uvloop-local", "uvloop-redis")
    for against, limit in ((PYTHON, 5.0), (NODE, 2.0))
    for bar in (
        Bar("flight-8", f"ours-{ours}", against, limit),
        Bar("flight-8", f"ours-{ours}", against, 1.0, tail=True),
    )
)


def judge(results: Results, bars: tuple[Bar, ...] = BARS) -> Iterator[Verdict]:
    """Each bar in a run."""
    for bar in bars:
        against = [
            STAND_INS[peer] if peer in results.missing and peer in STAND_INS else peer
            for peer in bar.against
        ]
        medians = {peer: results.median(bar.work, peer, bar.figure) for peer in against}
        known = {peer: value for peer, value in medians.items() if value is not None}
        if known:
            best = (min if bar.less else max)(known, key=lambda peer: known[peer])
            ratio = results.ratio(bar.work, bar.figure, bar.ours, best)
        else:
            best, ratio = against[0], None
        failed = [peer for peer in (bar.ours, best) if results.failed(bar.work, peer)]
        judged = bar.ours in results.peers and failed
        yield Verdict(bar, best, ratio, failed[0] if judged else None)


def label(name: str) -> str:
    return PEERS[name].label
