"""A run as pictures, SVG and PNG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "benchmarks"  # the same run, the same file

from matplotlib import pyplot  # noqa: E402

from benchmarks import works  # noqa: E402
from benchmarks.peers import BY_NAME  # noqa: E402
from benchmarks.results import Results  # noqa: E402
from benchmarks.works import GROWTH, MEMORY, Work  # noqa: E402

OURS, THEIRS, CEILING = "#1f6f8b", "#b9c0c6", "#e3c88f"

#: file name -> title and the works below each other
BARS = {
    "small": ("Small messages", ("echo-32", "pipelined", "echo-4k")),
    "large": ("Large messages", ("echo-256k", "echo-1m", "deflate")),
    "latency": ("One message there and back", ("latency",)),
    "connections": ("Connections", ("connect", "ticks", "fan-out")),
    "memory": (
        "Memory of the server for each idle connection",
        tuple(work.name for work in MEMORY),
    ),
    "router": ("Through app.run's router and direct", ("router-4k", "router-64k")),
}


def draw(results: Results, folder: Path) -> list[Path]:
    """The charts for which there are figures.

    :returns: their files.
    """
    drawn: list[Path] = []
    for name, (title, names) in BARS.items():
        measured = [works.BY_NAME[work] for work in names if results.measured(work)]
        if measured:
            figure, axes = _figure(title, len(measured), _rows(results, measured))
            for axis, work in zip(axes, measured, strict=True):
                _bars(axis, results, work)
            drawn += _save(figure, folder, name)
    if any(results.measured(work.name) for work in GROWTH):
        drawn += _save(_growth(results), folder, "growth")
    return drawn


def _rows(results: Results, measured: Sequence[Work]) -> int:
    return max(len(results.measured(work.name)) for work in measured)


def _figure(title: str, number: int, rows: int) -> tuple[Any, Sequence[Any]]:
    figure, axes = pyplot.subplots(
        *(number, 1),
        figsize=(9, 0.6 + number * (0.8 + 0.26 * rows)),
        constrained_layout=True,
        squeeze=False,
    )
    figure.suptitle(title)
    return figure, [row[0] for row in axes]


def _bars(axis: Any, results: Results, work: Work) -> None:
    """One bar for each peer, the best on top."""
    values = {
        peer: value * work.scale
        for peer in results.measured(work.name)
        if (value := results.median(work.name, peer, work.figure)) is not None
    }
    order = sorted(values, key=lambda peer: values[peer], reverse=work.less)
    labels = [BY_NAME[peer].label for peer in order]
    bars = axis.barh(
        labels, [values[peer] for peer in order], color=[_color(peer) for peer in order]
    )
    axis.bar_label(
        bars,
        [
            (f"{values[peer]:,.0f}" if values[peer] >= 100 else f"{values[peer]:.1f}")
            + (" !" if results.is_busy(work.name, peer) else "")
            for peer in order
        ],
        padding=3,
        fontsize=8,
    )
    less = ", less is better" if work.less else ""
    axis.set_title(f"{work.label}\n{work.unit}{less}", fontsize=9)
    axis.tick_params(labelsize=8)
    axis.margins(x=0.15, y=0.02)
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.grid(axis="x", alpha=0.3)
    axis.set_axisbelow(True)


def _color(peer: str) -> str:
    if BY_NAME[peer].is_ours:
        return OURS
    return CEILING if BY_NAME[peer].kind == "ceiling" else THEIRS


def _growth(results: Results) -> Any:
    """A line for each peer."""
    figure, axis = pyplot.subplots(figsize=(9, 7), constrained_layout=True)
    axis.set_prop_cycle(color=matplotlib.colormaps["tab20"](range(20)))
    for peer in results.peers:
        points = [
            (work.connections, value)
            for work in GROWTH
            if (value := results.median(work.name, peer, "cpu_us")) is not None
        ]
        if points:
            ours = BY_NAME[peer].is_ours
            axis.plot(
                *zip(*points, strict=True),
                marker="o",
                linewidth=2.5 if ours else 1,
                linestyle="-" if ours else "--",
                label=BY_NAME[peer].label,
            )
    axis.set_xscale("log")
    axis.set_yscale("log")
    axis.set_xticks([work.connections for work in GROWTH], [f"{w.connections:,}" for w in GROWTH])
    axis.set_xlabel("connections, all of them busy")
    axis.set_ylabel("server CPU µs for a message of 32 B")
    axis.set_title("Cost of a message as connections grow, less is better")
    axis.grid(alpha=0.3)
    axis.legend(fontsize=8)
    return figure


def _save(figure: Any, folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name}.svg", folder / f"{name}.png"]
    figure.savefig(paths[0], metadata={"Date": None})
    figure.savefig(paths[1], dpi=110)
    pyplot.close(figure)
    return paths
