"""pytest fixtures, which every project has that installs this package."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from .testing import RoomFaults, WebSocketTestClient


# So that a failure of BackplaneConformance shows the values.
pytest.register_assert_rewrite(f"{__package__}.rooms.conformance")


@pytest.fixture
def websocket_client(app: Flask) -> WebSocketTestClient:
    """Make a test client that opens WebSockets, for the project's own fixture ``app``."""
    from .testing import client_class

    return client_class(app)(app, app.response_class)


@pytest.fixture
def room_faults(app: Flask) -> Iterator[RoomFaults]:
    """Have the backplane of the project's own fixture ``app`` fail, until the end of the test."""
    from .testing import RoomFaults

    with RoomFaults(app) as faults:
        yield faults
