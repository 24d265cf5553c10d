"""Ours beside what else one could take: ``python -m benchmarks``; see docs/benchmarks.rst."""

from __future__ import annotations

import sys
from pathlib import Path

from benchmarks import peers, works
from benchmarks.bars import BARS
from benchmarks.command import Benchmark, main
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.run import Run


def draw(results: Results, folder: Path) -> list[Path]:
    """The charts; they need what not everybody has installed."""
    from benchmarks.charts import draw

    return draw(results, folder)


SERVERS = Benchmark(
    module="benchmarks",
    works=works.BY_NAME,
    peers=peers.BY_NAME,
    bars=BARS,
    run=Run,
    report=report,
    draw=draw,
)

if __name__ == "__main__":
    sys.exit(main(SERVERS))
