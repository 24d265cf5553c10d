"""Have an app's backplane fail, in tests of what the app does then."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING

from ..rooms.memory import faults_of

if TYPE_CHECKING:
    from flask import Flask

#: Where the extension keeps the rooms of an app.
_ROOMS = "uwsgi_websocket.rooms"


class RoomFaults:
    """What is wrong with the backplane of an app, until the end of a ``with`` block.

    :param app: whose backplane is ``memory://``, as it is outside of uWSGI.
    :raises ValueError: for an app without an extension, or with another backplane.
    """

    def __init__(self, app: Flask) -> None:
        urls = {rooms.settings.url for rooms in app.extensions.get(_ROOMS, {}).values()}
        if not urls or not all(url.startswith("memory:") for url in urls):
            found = ", ".join(urls) or "that of an app without WebSockets"
            raise ValueError(f"only a backplane memory:// fails on demand, not {found}")
        self._faults = [faults_of(url) for url in urls]

    def fail(self, error: str = "it was told to fail") -> None:
        """Have ``send`` and ``join`` raise ``BackplaneUnavailable``, as while Redis is away."""
        for faults in self._faults:
            faults.fail(error)

    def recover(self) -> None:
        """Have everything work again, and be told that messages may be missing."""
        for faults in self._faults:
            faults.recover()

    def lose(self, count: int = 1) -> None:
        """Lose the next messages, which nobody gets, though ``send`` returns."""
        for faults in self._faults:
            faults.lose(count)

    def __enter__(self) -> RoomFaults:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for faults in self._faults:
            faults.end()
