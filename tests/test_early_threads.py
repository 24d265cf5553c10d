"""A thread that is started while the app is imported: too early for gevent, and for a fork."""

from __future__ import annotations

import pytest

from tests.server import Server

LOST = "the thread 'dashboard' was started while the app was imported, and does not run"


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--lazy-apps"]], ids=["preloaded", "lazy"])
def test_gevent_refuses_a_thread_from_before_its_patch(tmp_path, options: list[str]) -> None:
    server = Server(tmp_path, "gevent", app="early_threads", options=options)
    try:
        with pytest.raises((ProcessLookupError, AssertionError)):
            server.start()
        log = server.log()
        assert "the thread 'dashboard' was started before GeventWebSocket could call" in log
        assert "@websocket.on_worker_start, or add --gevent-early-monkey-patch" in log
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("engine", "kwargs"),
    [
        ("threads", {"processes": 2}),
        ("asyncio", {}),
        ("gevent", {"config": {"UWSGI_WEBSOCKET_AGGRESSIVE_PATCH": False}}),
    ],
)
def test_a_warning_of_a_thread_that_the_fork_loses(serve, engine: str, kwargs) -> None:
    log = serve(engine, app="early_threads", **kwargs).log()
    assert log.count(LOST) == 1


@pytest.mark.parametrize(
    ("engine", "kwargs"),
    [
        ("threads", {"options": ["--lazy-apps"]}),
        ("threads", {"master": False}),
        ("gevent", {"options": ["--gevent-early-monkey-patch"]}),
    ],
    ids=["lazy", "no-master", "patched"],
)
def test_no_warning_of_a_thread_that_runs(serve, engine: str, kwargs) -> None:
    assert LOST not in serve(engine, app="early_threads", **kwargs).log()
