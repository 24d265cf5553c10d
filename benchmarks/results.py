"""What was measured: kept as JSON, asked for medians and ratios."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

#: From this share of a core on, the client may have been what limited the server.
BUSY = 0.95

#: When processes other than server and client took so much of a core, they may have slowed both.
DISTURBED = 0.25


@dataclass
class Results:
    """A run.

    :param machine: what it ran on.
    :param settings: its options.
    :param peers: name -> label, kind and versions of each that took part.
    :param missing: name -> why a peer could not take part.
    :param skipped: dictionaries with peer, work and reason.
    :param samples: dictionaries with round, peer, work and figures.
    :param failures: dictionaries with round, peer, work, reason and log.
    """

    machine: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    peers: dict[str, dict[str, Any]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    skipped: list[dict[str, str]] = field(default_factory=list)
    samples: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, Any]] = field(default_factory=list)

    def save(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n")

    @classmethod
    def load(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))

    def series(self, work: str, peer: str, figure: str) -> dict[int, float]:
        """A figure in each round that has it."""
        return {
            sample["round"]: sample["figures"][figure]
            for sample in self.samples
            if sample["work"] == work and sample["peer"] == peer and figure in sample["figures"]
        }

    def median(self, work: str, peer: str, figure: str) -> float | None:
        series = self.series(work, peer, figure)
        return median(series.values()) if series else None

    def ratio(self, work: str, figure: str, ours: str, theirs: str) -> float | None:
        """The median of the rounds' ratios."""
        a, b = self.series(work, ours, figure), self.series(work, theirs, figure)
        ratios = [a[number] / b[number] for number in a.keys() & b.keys() if b[number]]
        return median(ratios) if ratios else None

    def is_busy(self, work: str, peer: str) -> bool:
        """Whether the client was at its limit."""
        share = self.median(work, peer, "client_cpu")
        return share is not None and share >= BUSY

    def is_disturbed(self, work: str, peer: str) -> bool:
        """Whether other processes had much of the machine in most of the rounds."""
        share = self.median(work, peer, "other_cpu")
        return share is not None and share >= DISTURBED

    def measured(self, work: str) -> list[str]:
        """The peers that have figures for a work."""
        return [
            peer
            for peer in self.peers
            if any(sample["work"] == work and sample["peer"] == peer for sample in self.samples)
        ]

    def failed(self, work: str, peer: str) -> bool:
        return any(each["work"] == work and each["peer"] == peer for each in self.failures)
