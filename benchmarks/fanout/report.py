"""A run with rooms as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from benchmarks.bars import ROOM_BARS, label
from benchmarks.fanout.client import WRONG
from benchmarks.fanout.works import FLIGHTS, ROOMS, SOCKETS, RoomWork
from benchmarks.report import (
    bars_table,
    failures,
    heading,
    left_out,
    matrix,
    number,
    shares,
    surroundings,
    table,
    warnings,
)
from benchmarks.results import Results

#: What the others are compared with: they all take a Redis.
OURS = "ours-gevent-redis"

HEADER = (
    *("Server", "deliveries/s", "ours / theirs", "half reach all in, ms", "99 % in, ms"),
    *("CPU µs for a delivery", "of it Redis", "server CPU", "client CPU", "others"),
    *("lost", "twice", "out of order"),
)


def report(results: Results) -> Iterator[str]:
    """All of it."""
    yield from bars_table(results, ROOM_BARS)
    for work in FLIGHTS:
        yield from work_table(results, work)
    for title, works, key in (
        ("members of a room", (*SOCKETS[:2], FLIGHTS[1], SOCKETS[2]), "connections"),
        ("rooms", ROOMS, "rooms"),
    ):
        yield from scaling(results, title, works, key)
    yield from failures(results)
    yield from left_out(results)
    yield from surroundings(results)


def work_table(results: Results, work: RoomWork) -> Iterator[str]:
    measured = results.measured(work.name)
    failed = [peer for peer in results.peers if results.failed(work.name, peer)]
    if not measured and not failed:
        return
    yield from heading(work.label)
    order = sorted(measured, key=lambda peer: -(results.median(work.name, peer, "rate") or 0))
    rows = [row(results, work, peer) for peer in order]
    rows += [
        (label(peer), "FAILED", *["-"] * (len(HEADER) - 2))
        for peer in failed
        if peer not in measured
    ]
    yield from table(HEADER, rows)
    yield from warnings(results, work, measured)


def row(results: Results, work: RoomWork, peer: str) -> tuple[str, ...]:
    ratio = results.ratio(work.name, "rate", OURS, peer) if peer != OURS else None
    return (
        label(peer) + (" (failed later)" if results.failed(work.name, peer) else ""),
        number(results.median(work.name, peer, "rate")),
        "" if peer == OURS else "-" if ratio is None else f"{ratio:.2f}",
        *(
            number(results.median(work.name, peer, figure))
            for figure in ("p50_ms", "p99_ms", "cpu_us", "broker_us")
        ),
        *shares(results, work, peer),
        *(f"{sum(results.series(work.name, peer, figure).values()):,.0f}" for figure in WRONG),
    )


def scaling(results: Results, title: str, works: Sequence[RoomWork], key: str) -> Iterator[str]:
    """The same with more and more members, or rooms."""
    for what, figure, less in (
        ("Deliveries/s", "rate", False),
        ("Until 99 % have reached all, in ms", "p99_ms", True),
        ("CPU µs for a delivery", "cpu_us", True),
    ):
        columns = [(f"{getattr(work, key):,}", work.name, figure, 1.0) for work in works]
        yield from matrix(results, f"{what}, by the number of {title}", columns, less)
