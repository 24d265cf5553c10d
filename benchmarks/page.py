"""A run's figures, put into docs/benchmarks.rst."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from benchmarks.peer import ROOT
from benchmarks.results import Results

PAGE = ROOT / "docs" / "benchmarks.rst"

#: What is between these two stands for a run; the last one may also end with the page.
BEGIN = ".. What follows is written by: python -m {} report FILE --docs\n"
END = ".. That was it.\n"

Draw = Callable[[Results, Path], list[Path]]


def write_page(
    results: Results,
    module: str,
    report: Callable[[Results], Iterable[str]],
    draw: Draw | None,
    page: Path = PAGE,
) -> None:
    """Replace a benchmark's figures in the page, and its charts in the folder named like it."""
    begin = BEGIN.format(module)
    above, found, rest = page.read_text().partition(begin)
    if not found:
        raise ValueError(f"{page} has no line {begin!r}")
    _, end, below = rest.partition(END)
    lines = [above + begin, *(charts(results, page, draw) if draw else ()), *report(results), ""]
    page.write_text("\n".join(lines) + end + below)


def charts(results: Results, page: Path, draw: Draw) -> Iterator[str]:
    folder = page.with_suffix("")
    for path in draw(results, folder):
        if path.suffix == ".svg":
            yield from (f".. image:: {folder.name}/{path.name}", f"   :alt: {path.stem}", "")
