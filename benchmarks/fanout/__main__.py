"""Rooms over several workers, ours beside others': ``python -m benchmarks.fanout``."""

from __future__ import annotations

import sys

from benchmarks.bars import ROOM_BARS
from benchmarks.command import Benchmark, main
from benchmarks.fanout import peers, works
from benchmarks.fanout.report import report
from benchmarks.fanout.run import RoomRun

ROOMS = Benchmark(
    module="benchmarks.fanout",
    works=works.BY_NAME,
    peers=peers.BY_NAME,
    bars=ROOM_BARS,
    run=RoomRun,
    report=report,
)

if __name__ == "__main__":
    sys.exit(main(ROOMS))
