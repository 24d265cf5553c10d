"""What ``python -m benchmarks`` and ``python -m benchmarks.fanout`` have in common."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from benchmarks.bars import Bar, judge
from benchmarks.page import write_page
from benchmarks.peer import ROOT, Peer
from benchmarks.report import bars_table
from benchmarks.results import Results
from benchmarks.run import Run
from benchmarks.works import Work

FOLDER = ROOT / "benchmarks" / "results"


@dataclass(frozen=True)
class Benchmark:
    """Works, who does them, and how the figures look.

    :param module: what ``python -m`` runs.
    :param draw: draws the charts of a run into a folder, if there are any.
    """

    module: str
    works: Mapping[str, Work]
    peers: Mapping[str, Peer]
    bars: tuple[Bar, ...]
    run: type[Run]
    report: Callable[[Results], Iterable[str]]
    draw: Callable[[Results, Path], list[Path]] | None = None


def chosen(text: str, known: Mapping[str, Any], what: str) -> list[str]:
    """Names from a list with commas, ``ours`` and the like for all that begin so."""
    names: list[str] = []
    for each in text.split(","):
        matching = [each] if each in known else [name for name in known if name.startswith(each)]
        if not each or not matching:
            raise argparse.ArgumentTypeError(f"no {what} {each!r}; there are {', '.join(known)}")
        names += matching
    return [name for name in known if name in names]


def parse(benchmark: Benchmark, arguments: list[str]) -> argparse.Namespace:
    prog = f"python -m {benchmark.module}"
    parser = argparse.ArgumentParser(
        prog=prog,
        description="Serve the same works with each peer in turn, and compare.",
        epilog=f"{prog} report FILE prints a saved run again.",
    )
    parser.add_argument(
        "--works",
        type=lambda text: chosen(text, benchmark.works, "work"),
        default=list(benchmark.works),
        help="names with commas; the beginning of several is enough: echo,latency",
    )
    parser.add_argument(
        "--peers",
        type=lambda text: chosen(text, benchmark.peers, "peer"),
        default=list(benchmark.peers),
        help="names with commas; the beginning of several is enough: ours,aiohttp",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--output", type=Path, help="the JSON file; else in benchmarks/results/")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    parser.add_argument("--list", action="store_true", help="name the works and peers")
    return parser.parse_args(arguments)


def parse_report(benchmark: Benchmark, arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {benchmark.module} report")
    parser.add_argument("file", type=Path)
    parser.add_argument("--charts", type=Path, help="draw SVG and PNG into this folder")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    parser.add_argument("--bars", action="store_true", help="only the bars")
    parser.add_argument(
        "--docs", action="store_true", help="put tables and charts into docs/benchmarks.rst"
    )
    return parser.parse_args(arguments)


def stop(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


def main(benchmark: Benchmark) -> int:
    if sys.argv[1:2] == ["report"]:
        return show(benchmark, parse_report(benchmark, sys.argv[2:]))
    options = parse(benchmark, sys.argv[1:])
    if options.list:
        for work in benchmark.works.values():
            print(f"{work.name:14} {work.label}")
        print()
        for peer in benchmark.peers.values():
            print(f"{peer.name:26} {peer.label:36} {peer.missing() or ''}")
        return 0
    return measure(benchmark, options)


def show(benchmark: Benchmark, options: argparse.Namespace) -> int:
    results = Results.load(options.file)
    if options.docs:
        write_page(results, benchmark.module, benchmark.report, benchmark.draw)
        return 0
    shown = bars_table(results, benchmark.bars) if options.bars else benchmark.report(results)
    print("\n".join(shown))
    if options.charts and benchmark.draw:
        benchmark.draw(results, options.charts)
    return missed(results, benchmark.bars) if options.check else 0


def measure(benchmark: Benchmark, options: argparse.Namespace) -> int:
    results = Results()
    results.settings = {
        "works": options.works,
        "peers": options.peers,
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    path = options.output or FOLDER / time.strftime("%Y%m%d-%H%M%S.json")
    signal.signal(signal.SIGTERM, stop)
    interrupted = False
    with tempfile.TemporaryDirectory() as logs:
        run = benchmark.run(
            results,
            [benchmark.peers[name] for name in options.peers],
            [benchmark.works[name] for name in options.works],
            options.rounds,
            options.seconds,
            Path(logs),
        )
        try:
            run.perform()
        except KeyboardInterrupt:
            interrupted = results.settings["interrupted"] = True
    results.save(path)
    print("\n".join(benchmark.report(results)))
    print(f"Saved as {path}", file=sys.stderr)
    if interrupted:
        return 130
    if benchmark.draw:
        try:
            benchmark.draw(results, path.with_suffix(""))
        except ImportError as error:
            print(f"No charts: {error}", file=sys.stderr)
    return missed(results, benchmark.bars) if options.check else 0


def missed(results: Results, bars: tuple[Bar, ...]) -> int:
    """The exit status: 1 where a bar is missed, or ours failed at its work."""
    return 1 if any(verdict.missed for verdict in judge(results, bars)) else 0
