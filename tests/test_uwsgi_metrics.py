"""uWSGI's own metrics, as its stats server has them, against the traffic that there was."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.launch import defaults
from flask_uwsgi_websocket.launch.keywords import arguments
from flask_uwsgi_websocket.metrics.totals import TOTALS, totals
from flask_uwsgi_websocket.monitoring.uwsgi_metrics import UWSGIMetrics
from flask_uwsgi_websocket.servers import uwsgi
from tests.server import Server, eventually
from tests.test_stats import settle, stats_of

OPTIONS = defaults.complete({"enable_metrics": True, "processes": 2})
#: What ``app.run()`` adds for these.
DECLARED = [*arguments("metric", OPTIONS["metric"]), "--metrics-no-cores"]


def shown(server: Server, worker: int | None = None) -> dict[str, int]:
    """The values of our metrics, of one worker or in all."""
    metrics = server.stats()["metrics"]
    place = "" if worker is None else f"worker.{worker}."
    return {name: metrics[f"{place}flask_websocket.{name}"]["value"] for name in TOTALS}


def until(server: Server, **expected: int) -> dict[str, int]:
    """Wait until some of the sums are so, which takes uWSGI and us a second each."""

    def are_so() -> dict[str, int] | None:
        found = shown(server)
        return found if expected.items() <= found.items() else None

    return eventually(are_so, f"{expected} in uWSGI's metrics") or {}


@pytest.fixture
def server(serve: Callable[..., Server], engine: str, tmp_path: Path) -> Server:
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    return serve(engine, app="stats", processes=2, options=DECLARED, env=environment)


def talk(server: Server, stack: ExitStack, number: int) -> list[Any]:
    """Connect, and have two messages echoed; return which worker serves each."""
    clients = [stack.enter_context(server.connect()) for _ in range(number)]
    pids = [int(client.recv()) for client in clients]
    for client in clients:
        for text in ("one", "second"):
            client.send(text)
            assert client.recv() == text
    return pids


def test_they_are_what_happened(server: Server) -> None:
    with ExitStack() as stack:
        pids = talk(server, stack, 6)
        server.refused("/nothing")
        sums = until(server, open=6, messages_received=12, messages_sent=18, refused=1)
        assert sums["accepted"] == 6
        assert sums["bytes_received"] == 6 * (2 * 6 + 3 + 6)  # each frame masked
        for worker in server.stats()["workers"]:
            assert shown(server, worker["id"])["open"] == pids.count(worker["pid"])
        assert sums == totals(stats_of(server))
    sums = until(server, open=0, closed=6)
    assert (sums["accepted"], sums["lost"]) == (6, 0)


@pytest.mark.parametrize("engine", ["async"])
def test_a_thread_that_is_none_of_uwsgi_s_sets_them(server: Server) -> None:
    with ExitStack() as stack:
        talk(server, stack, 6)
        until(server, open=6, messages_received=12, messages_sent=18)


def test_a_killed_worker_and_a_reload(server: Server, tmp_path: Path) -> None:
    with ExitStack() as stack:
        pids = talk(server, stack, 6)
        before = until(server, open=6, messages_received=12)
        server.allow_log(rf"pid: {pids[0]}\) died, killed by signal 9")
        os.kill(pids[0], signal.SIGKILL)
        lost = pids.count(pids[0])
        after = until(server, open=6 - lost, lost=lost)
        assert after["messages_received"] == before["messages_received"]
        settle(server, tmp_path, pids[0])
        workers = server.pids()
        server.signal(signal.SIGHUP)
        server.settle(*workers)
    # uWSGI's own begin anew then.
    again = until(server, open=0, accepted=6, closed=6, messages_received=12)
    assert again["bytes_received"] >= before["bytes_received"]  # and their Close frames


def test_some_of_them_are_enough(serve: Callable[..., Server], tmp_path: Path) -> None:
    option = "--metric=name=worker.1.flask_websocket.accepted,type=gauge"
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = serve("threads", app="stats", options=[option], env=environment)
    with ExitStack() as stack:
        talk(server, stack, 2)

    def is_shown() -> bool:
        metrics: dict[str, Any] = server.stats()["metrics"]
        ours = {name: metrics[name]["value"] for name in metrics if "flask_websocket" in name}
        return ours == {"worker.1.flask_websocket.accepted": 2}

    eventually(is_shown, "the only one")


@pytest.mark.parametrize(
    ("given", "workers"),
    [
        ({"enable_metrics": True}, 1),
        ({"enable-metrics": True, "workers": 3}, 3),
        ({"stats_push": "statsd:127.0.0.1:8125", "p": "2"}, 2),
        ({"metrics_dir": "/tmp", "processes": 0}, 1),
        ({}, 0),
        ({"enable_metrics": False}, 0),
    ],
)
def test_which_are_declared(given: dict[str, Any], workers: int) -> None:
    declared = defaults.complete(given).get("metric", [])
    names = {line.partition(",")[0] for line in declared}
    places = [*(f"worker.{number}." for number in range(1, workers + 1)), ""] if workers else []
    assert names == {f"name={place}flask_websocket.{each}" for place in places for each in TOTALS}


def test_the_caller_s_own_stand_beside_ours() -> None:
    declared = defaults.complete({"metric": ["mine", "his"]})["metric"]
    assert declared[-2:] == ["mine", "his"]
    assert len(declared) == 2 + 2 * len(TOTALS)


def test_several_apps_of_a_worker_are_summed(monkeypatch: pytest.MonkeyPatch) -> None:
    values: dict[str, int] = {}
    monkeypatch.setattr(uwsgi, "worker_id", lambda: 3)
    monkeypatch.setattr(uwsgi, "has_metric", lambda name: name.endswith((".open", ".refused")))
    monkeypatch.setattr(uwsgi, "set_metric", values.__setitem__)
    metrics = UWSGIMetrics()
    route = {"open": 2, "refused": {"origin": 1, "app": 2}}
    metrics.show("shop", {"routes": {"/a": route, "/b": route}, "refused": {"not_found": 4}})
    metrics.show("blog", {"routes": {"/a": route}})
    metrics.show("blog", {"routes": {"/a": {**route, "open": 7}}})
    assert values == {
        "worker.3.flask_websocket.open": 2 + 2 + 7,
        "worker.3.flask_websocket.refused": 3 + 3 + 4 + 3,
    }


def test_a_worker_that_the_sums_lack_is_named(serve: Callable[..., Server], tmp_path: Path) -> None:
    figures = ("accepted", "closed")
    options = [f"--metric=name=worker.1.flask_websocket.{each},type=gauge" for each in figures]
    environment = {"XDG_RUNTIME_DIR": str(tmp_path)}
    server = serve("threads", app="stats", processes=2, options=options, env=environment)
    line = (
        "metric worker.1.flask_websocket.accepted is declared for worker 1 and not for this one, "
        "which the sum then lacks: declare worker.2.flask_websocket.accepted, too, and 1 more"
    )
    server.allow_log("and not for this one")
    eventually(lambda: line in server.log(), "the warning")
    assert server.log().count("and not for this one") == 1
