"""A pytest fixture, which every project has that installs this package."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from flask import Flask

    from .testing import WebSocketTestClient


# So that a failure of BackplaneConformance shows the values.
pytest.register_assert_rewrite(f"{__package__}.rooms.conformance")


@pytest.fixture
def websocket_client(app: Flask) -> WebSocketTestClient:
    """Make a test client that opens WebSockets, for the project's own fixture ``app``."""
    from .testing import client_class

    return client_class(app)(app, app.response_class)
