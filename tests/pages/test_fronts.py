"""The Python of docs/fronts.rst; its configurations are what tests/deployments starts."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("fronts")


def test_a_connection_that_says_its_end() -> None:
    app = PAGE.run("def no_further_request")["app"]
    assert app.test_client().get("/").headers["Connection"] == "close"
