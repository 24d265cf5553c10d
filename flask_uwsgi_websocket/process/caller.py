"""Who is running."""

from __future__ import annotations

import sys
from _thread import get_ident
from typing import Any


def caller() -> tuple[int, Any, Any]:
    """Return the thread, and the greenlet and the Task where there are any, that call this.

    Whoever compares two of them has to do so while the first one lives.
    """
    greenlet, asyncio = sys.modules.get("greenlet"), sys.modules.get("asyncio")
    loop = asyncio._get_running_loop() if asyncio is not None else None
    return (
        get_ident(),
        greenlet.getcurrent() if greenlet is not None else None,
        asyncio.current_task(loop) if asyncio is not None and loop is not None else None,
    )
