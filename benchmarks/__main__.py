"""Ours beside what else one could take: ``python -m benchmarks``; see docs/benchmarks.rst."""

from __future__ import annotations

import argparse
import signal
import sys
import tempfile
import time
from pathlib import Path
from typing import NoReturn

from benchmarks import peers, works
from benchmarks.bars import judge
from benchmarks.peer import ROOT
from benchmarks.report import bars_table, report
from benchmarks.results import Results
from benchmarks.run import Run

FOLDER = ROOT / "benchmarks" / "results"


def chosen(text: str, known: dict[str, object], what: str) -> list[str]:
    """Names from a list with commas, ``ours`` and the like for all that begin so."""
    names: list[str] = []
    for each in text.split(","):
        matching = [each] if each in known else [name for name in known if name.startswith(each)]
        if not each or not matching:
            raise argparse.ArgumentTypeError(f"no {what} {each!r}; there are {', '.join(known)}")
        names += matching
    return [name for name in known if name in names]


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Serve the same works with each peer in turn, and compare.",
        epilog="python -m benchmarks report FILE prints a saved run again.",
    )
    parser.add_argument(
        "--works",
        type=lambda text: chosen(text, dict(works.BY_NAME), "work"),
        default=list(works.BY_NAME),
        help="names with commas; the beginning of several is enough: echo,latency",
    )
    parser.add_argument(
        "--peers",
        type=lambda text: chosen(text, dict(peers.BY_NAME), "peer"),
        default=list(peers.BY_NAME),
        help="names with commas; the beginning of several is enough: ours,aiohttp",
    )
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each measurement")
    parser.add_argument("--output", type=Path, help="the JSON file; else in benchmarks/results/")
    parser.add_argument("--check", action="store_true", help="fail when a bar is missed")
    parser.add_argument("--list", action="store_true", help="name the works and peers")
    return parser.parse_args(arguments)


def parse_report(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks report")
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


def main() -> int:
    if sys.argv[1:2] == ["report"]:
        return show(parse_report(sys.argv[2:]))
    options = parse(sys.argv[1:])
    if options.list:
        for work in works.WORKS:
            print(f"{work.name:14} {work.label}")
        print()
        for peer in peers.PEERS:
            print(f"{peer.name:26} {peer.label:36} {peer.missing() or ''}")
        return 0
    return measure(options)


def show(options: argparse.Namespace) -> int:
    results = Results.load(options.file)
    if options.docs:
        from benchmarks.page import write_page

        write_page(results)
        return 0
    print("\n".join(bars_table(results) if options.bars else report(results)))
    if options.charts:
        from benchmarks.charts import draw

        draw(results, options.charts)
    return missed(results) if options.check else 0


def measure(options: argparse.Namespace) -> int:
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
        run = Run(
            results,
            [peers.BY_NAME[name] for name in options.peers],
            [works.BY_NAME[name] for name in options.works],
            options.rounds,
            options.seconds,
            Path(logs),
        )
        try:
            run.perform()
        except KeyboardInterrupt:
            interrupted = results.settings["interrupted"] = True
    results.save(path)
    print("\n".join(report(results)))
    print(f"Saved as {path}", file=sys.stderr)
    if interrupted:
        return 130
    try:
        from benchmarks.charts import draw
    except ImportError as error:
        print(f"No charts: {error}", file=sys.stderr)
    else:
        draw(results, path.with_suffix(""))
    return missed(results) if options.check else 0


def missed(results: Results) -> int:
    """The exit status: 1 where a bar is missed, or ours failed at its work."""
    return 1 if any(verdict.missed for verdict in judge(results)) else 0


if __name__ == "__main__":
    sys.exit(main())
