"""The part of docs/benchmarks.rst that is a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from benchmarks.charts import draw
from benchmarks.peer import ROOT
from benchmarks.report import report
from benchmarks.results import Results

PAGE = ROOT / "docs" / "benchmarks.rst"

#: What is above it in the page stays.
MARK = ".. What follows is written by: python -m benchmarks report FILE --docs\n"


def write_page(results: Results, page: Path = PAGE) -> None:
    """Replace the figures in the page, and the charts in the folder named like it."""
    above, mark, _ = page.read_text().partition(MARK)
    if not mark:
        raise ValueError(f"{page} has no line {MARK!r}")
    page.write_text("\n".join([above + mark, *figures(results, page), ""]))


def figures(results: Results, page: Path) -> Iterator[str]:
    charts = page.with_suffix("")
    for path in draw(results, charts):
        if path.suffix == ".svg":
            yield from (f".. image:: {charts.name}/{path.name}", f"   :alt: {path.stem}", "")
    yield from report(results)
