"""The series of each metric: its figures by the values of its labels, fit to be shown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from ..metrics.observers import REASONS
from ..metrics.snapshot import add
from .families import FAMILIES, Family, Figure, Labels, Stats
from .stats import ENDED, LIVE, STATES, shown_workers

#: Different values of one label that are shown singly. An app with more routes than this shows the
#: rest of them as one: each route is some 50 series for Prometheus to store.
MOST_VALUES = 200
OTHER = "other"
#: Characters of a label's value.
LONGEST_VALUE = 200
#: What ends lines, hides text or is no UTF-8.
_UNFIT = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def collect(stats: Stats, version: str) -> Iterator[tuple[Family, dict[Labels, Figure]]]:
    """Yield each metric with its figures by label values, all of them fit to be shown.

    However many names there are in the statistics, and whatever is in them: what becomes the same
    label values, or has to be shown as "other", is added up.
    """
    tree = _tree(stats, version)
    found = [
        (family, [(tuple(map(_fit, labels)), figure) for labels, figure in family.figures(tree)])
        for family in FAMILIES
    ]
    shown = _shown_values(found)
    for family, figures in found:
        yield family, _added_up(family, figures, shown)


def _tree(stats: Stats, version: str) -> dict[str, Any]:
    # increase() does not see what a series begins with, so that the first refusal would be missed.
    none_refused = dict.fromkeys(REASONS, 0)
    states = [worker["state"] for worker in stats["workers"]]
    return {
        **stats,
        "routes": {
            route: {**figures, "refused": {**none_refused, **figures["refused"]}}
            for route, figures in stats["routes"].items()
        },
        "refused": {**none_refused, **stats["refused"]},
        "workers": {str(worker["worker"]): _of_worker(worker) for worker in shown_workers(stats)},
        "states": {state: states.count(state) for state in STATES},
        "build": {version: {worker["engine"]: 1 for worker in stats["workers"]}},
    }


def _of_worker(worker: Mapping[str, Any]) -> dict[str, Any]:
    shown = {**worker, "up": worker["state"] == LIVE}
    if worker["state"] == ENDED:
        shown.pop("rooms", None)  # its backplane does not work, and nobody is to be woken by that
    return shown


def _fit(value: str) -> str:
    return _UNFIT.sub("\ufffd", value)[:LONGEST_VALUE]


def _shown_values(
    found: Iterable[tuple[Family, list[tuple[Labels, Figure]]]],
) -> dict[str, frozenset[str]]:
    """Return the values of each label that are shown singly: the same in all metrics, and by
    their names alone, so that every worker that is asked chooses the same."""
    values: dict[str, set[str]] = {}
    for family, figures in found:
        for labels, _ in figures:
            for name, value in zip(family.labels, labels, strict=True):
                values.setdefault(name, set()).add(value)
    return {name: frozenset(sorted(those)[:MOST_VALUES]) for name, those in values.items()}


def _added_up(
    family: Family, figures: list[tuple[Labels, Figure]], shown: dict[str, frozenset[str]]
) -> dict[Labels, Figure]:
    added: dict[Labels, Figure] = {}
    for labels, figure in figures:
        named = zip(family.labels, labels, strict=True)
        key = tuple(value if value in shown[name] else OTHER for name, value in named)
        added[key] = add(added[key], figure) if key in added else figure
    return added
