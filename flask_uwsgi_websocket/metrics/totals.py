"""A snapshot in a few numbers, for what knows no labels: sums over routes, reasons and patterns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .paths import follow

#: Of which figures each is the sum: by the keys that lead to them, ``*`` for all of a part.
TOTALS: Mapping[str, tuple[str, ...]] = {
    "open": ("routes/*/open",),
    "accepted": ("routes/*/accepted",),
    "refused": ("routes/*/refused/*", "refused/*"),
    "closed": ("routes/*/closed/*/*",),
    "lost": ("routes/*/closed/lost/*",),
    "errors": ("routes/*/errors",),
    "messages_received": ("routes/*/messages_received",),
    "messages_sent": ("routes/*/messages_sent",),
    "bytes_received": ("routes/*/bytes_received",),
    "bytes_sent": ("routes/*/bytes_sent",),
    "queued_bytes": ("routes/*/queued_bytes",),
    "slow_closed": ("routes/*/slow/closed",),
    "slow_dropped": ("routes/*/slow/dropped", "routes/*/slow/conflated"),
    "room_members": ("rooms/members",),
    "room_published": ("rooms/patterns/*/published",),
    "room_delivered": ("rooms/patterns/*/delivered",),
    "backplane_gaps": ("rooms/backplane/gaps",),
    "backplane_lost": ("rooms/backplane/lost",),
}


def totals(snapshot: Mapping[str, Any]) -> dict[str, int]:
    """Return the sums of a snapshot; 0 for what is not in it."""
    return {
        name: sum(int(figure) for path in paths for _, figure in follow(snapshot, path))
        for name, paths in TOTALS.items()
    }
