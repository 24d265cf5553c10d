"""Close codes as labels, of which there are few whatever clients and handlers send."""

from __future__ import annotations

from .observers import By

#: Codes of an app's own that are counted singly.
MOST_CODES = 32


class Closes:
    """How many connections ended by whom, and with which code; who calls holds a lock."""

    def __init__(self) -> None:
        self._counts: dict[By, dict[str, int]] = {"client": {}, "server": {}, "lost": {}}
        self._own: set[int] = set()

    def count(self, by: By, code: int) -> None:
        label = self._label(by, code)
        counts = self._counts[by]
        counts[label] = counts.get(label, 0) + 1

    def _label(self, by: By, code: int) -> str:
        if 1000 <= code <= 1015:
            return str(code)
        if by == "client":
            return "3000-3999" if 3000 <= code <= 3999 else "4000-4999"
        if code not in self._own:
            if len(self._own) >= MOST_CODES:
                return "other"
            self._own.add(code)
        return str(code)

    def snapshot(self) -> dict[str, dict[str, int]]:
        return {by: dict(counts) for by, counts in self._counts.items()}
