"""What the page asks of the connections: which, in what order, and where to go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from .rows import SORTS

#: Where a search looks; "" for all of them.
FIELDS = ("", "user", "address", "route", "room", "id")
#: Rows of one answer.
MOST_ROWS = 100
#: Characters of a search: those of the longest name of a room, which is limited in bytes.
LONGEST_SEARCH = 255
#: Before it is the last page.
END = "end"

#: A row's place in the order: what it is sorted by, then what tells apart those that are alike.
Place = tuple[Any, str, int]


class BadQuery(ValueError):
    """What the page has asked for cannot be meant."""


@dataclass(frozen=True, slots=True)
class Query:
    """Which connections are asked for.

    :param search: a part of a user, address, route, room or id, in whatever case.
    :param field: which of these; "" for any.
    :param exact: whether it is the whole, not a part.
    :param limit: how many rows at most.
    :param after: the place of the row before the first one.
    :param before: the place of the row behind the last one, or ``"end"``.
    :param hide_admins: whether the sockets of admin pages are left out.
    :param tag: comes back with the answer.
    """

    search: str = ""
    field: str = ""
    exact: bool = False
    sort: str = "opened"
    descending: bool = False
    limit: int = 50
    after: Place | None = None
    before: Place | str | None = None
    hide_admins: bool = False
    tag: str | int | None = None

    @classmethod
    def of(cls, asked: Any) -> Query:
        """Read a query, from a page or another worker.

        :raises BadQuery: for what is none.
        """
        values = checked(asked, _CHECKS)
        for name in ("after", "before"):
            if isinstance(values.get(name), list):
                values[name] = _place(values[name], values.get("sort", "opened"))
        return cls(**values)

    def question(self) -> dict[str, Any]:
        """Return what other workers are asked."""
        return asdict(self)

    @property
    def takes_smallest(self) -> bool:
        """Whether the rows are the smallest of those that come into question, or the largest."""
        return (self.before is None) is not self.descending

    def may_have(self, place: Place) -> bool:
        """Return whether a place is on the right side of where the page goes on."""
        border = self.after if self.before is None else self.before
        if border is None or isinstance(border, str):
            return True
        return place > border if self.takes_smallest else place < border


def checked(asked: Any, checks: Mapping[str, Callable[[Any], bool]]) -> dict[str, Any]:
    """Return the values that were asked for, but for those that are None.

    :raises BadQuery: for one that fails its check, and for a name that has none.
    """
    if not isinstance(asked, dict):
        raise BadQuery("it must be an object")
    for name, value in asked.items():
        if name not in checks:
            raise BadQuery(f"there is no {name!a:.40}")
        if value is not None and not checks[name](value):
            raise BadQuery(f"{name} cannot be {value!a:.40}")
    return {name: value for name, value in asked.items() if value is not None}


def is_search(value: Any) -> bool:
    """Return whether something can be looked for."""
    return isinstance(value, str) and len(value) <= LONGEST_SEARCH


def is_limit(value: Any) -> bool:
    """Return whether something is a number of rows."""
    return type(value) is int and 0 < value <= MOST_ROWS


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_list(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and len(value) == 3


_CHECKS: dict[str, Callable[[Any], bool]] = {
    "search": is_search,
    "field": lambda value: isinstance(value, str) and value in FIELDS,
    "exact": _is_bool,
    "sort": lambda value: isinstance(value, str) and value in SORTS,
    "descending": _is_bool,
    "limit": is_limit,
    "after": _is_list,
    "before": lambda value: value == END or _is_list(value),
    "hide_admins": _is_bool,
    "tag": lambda value: type(value) is int or is_search(value),
}


def _place(value: list[Any], sort: str) -> Place:
    key, worker, number = value
    is_right = isinstance(key, str) if SORTS[sort].is_text else type(key) in (int, float)
    if not is_right or not isinstance(worker, str) or type(number) is not int:
        raise BadQuery("this page was sorted otherwise: begin with the first one")
    return key, worker, number
