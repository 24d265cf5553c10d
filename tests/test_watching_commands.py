"""``stats`` and ``top``, of apps that run: what they print, and how they find them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.commands.figures import fitted, short, width_of
from flask_uwsgi_websocket.commands.stats import lines_of
from flask_uwsgi_websocket.commands.top import Screen
from flask_uwsgi_websocket.metrics.snapshot import add
from flask_uwsgi_websocket.metrics.worker import WorkerMetrics
from tests.server import Server, eventually
from tests.watching import Terminal, run_command

pytestmark = [pytest.mark.slow, pytest.mark.gevent]

#: Other tests have servers beside this one.
PREFIX = "watched"
OF_APP = ("--prefix", PREFIX)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("watched")


@pytest.fixture
def watched(shared_server: Callable[..., Server], place: Path) -> Server:
    return shared_server(
        "gevent",
        app="stats",
        processes=2,
        # What needs no such file finds it all the same.
        config={"UWSGI_WEBSOCKET_PREFIX": PREFIX, "UWSGI_WEBSOCKET_BACKPLANE": "memory://"},
        env={"XDG_RUNTIME_DIR": str(place)},
    )


def test_json_has_all_figures(watched: Server) -> None:
    with watched.connect() as client:
        client.recv()
        inside = json.loads(watched.get("/stats").body)
        done = run_command(watched, "stats", "--json", *OF_APP)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert inside.keys() - told.keys() == {"asked"}
    assert told["app"] == PREFIX
    assert told["instance"] == inside["instance"]
    assert [worker["worker"] for worker in told["workers"]] == [1, 2]


def test_the_table_is_for_people(watched: Server) -> None:
    with watched.connect("/echo/ann") as client:
        client.recv()
        printed = eventually(
            lambda: (
                "/echo/<name>  1 " in (text := run_command(watched, "stats", *OF_APP).stdout)
                and text
            ),
            "the route to be printed",
        )
    assert f"{PREFIX}: 1 open, 2 workers" in printed


def test_top_without_a_terminal_prints_once(watched: Server) -> None:
    done = run_command(watched, "top", *OF_APP)
    assert done.returncode == 0, done.stderr
    assert "Worker" in done.stdout
    assert "\x1b" not in done.stdout


def test_who_is_not_found_is_told_what_there_is(watched: Server) -> None:
    done = run_command(watched, "stats", "--prefix", "unknown")
    assert done.returncode == 1
    assert "no uWSGI of this user runs the app 'unknown'" in done.stderr
    assert "sudo -u" in done.stderr  # that of others is not seen
    assert f"--prefix {PREFIX}" in done.stderr
    done = run_command(watched, "stats", *OF_APP, "--pid", "1")
    assert done.returncode == 1
    assert "with the process id 1" in done.stderr


def test_top_in_a_terminal(watched: Server) -> None:
    with Terminal(watched, "top", *OF_APP, "--interval", "0.5") as terminal:
        terminal.shows(f"{PREFIX}: 0 open, 2 workers", "Route", "o OPEN")
        with watched.connect("/echo/ann") as client:
            client.recv()
            lines = terminal.shows(f"{PREFIX}: 1 open", "/echo/<name>")
            assert len(lines) == 24
            terminal.press(b"n")
            terminal.shows("n NAME")
            terminal.resize(12, 60)
            lines = terminal.shows("/echo/<name>", "q quit")
            assert len(lines) == 12
            terminal.resize(30, 120)
            terminal.shows("/echo/<name>", "r reverse")
        terminal.press(b"q")
        assert terminal.status() == 0


def test_top_ends_with_its_terminal(watched: Server) -> None:
    with Terminal(watched, "top", *OF_APP) as terminal:
        terminal.shows(f"{PREFIX}: ", "Route")
        terminal.hang_up()
        terminal.status()


def test_top_says_what_terminals_it_does_not_know(watched: Server) -> None:
    with Terminal(watched, "top", *OF_APP, TERM="no-such") as terminal:
        terminal.shows("nothing is known of the terminal 'no-such'")
        assert terminal.status() == 1


def stats_with(*patterns: str) -> dict[str, Any]:
    metrics = WorkerMetrics()
    for pattern in patterns:
        metrics.route(pattern).opened()
    counted: Any = add(metrics.snapshot(), {"refused": {"origin\x1b[2J": 2}})
    worker = {"worker": 1, "pid": 7, "state": "blocked", "age": 75.0, "started": 1.0}
    workers = [{**worker, "engine": "gevent", **counted}]
    head = {"complete": False, "time": 100.0, "instance": "6.1", "app": "app\x1b]0;x\x07"}
    return {**head, "workers": workers, **counted}


HOSTILE = "/\x1b[31m<b>\u202e\n\ud800/"


def test_no_terminal_obeys_a_name() -> None:
    stats = stats_with(HOSTILE, "/" + "x" * 300)
    printed = [*lines_of(stats), *(line for line, _ in Screen(stats).lines(80, 24))]
    assert all(line.isprintable() for line in printed)
    assert any("blocked 75 s" in line for line in printed)


@pytest.mark.parametrize("size", [(80, 24), (200, 60), (40, 10), (10, 4), (1, 1)])
def test_each_line_fits(size: tuple[int, int]) -> None:
    stats = stats_with(*(f"/{number}/中" for number in range(1000)))
    screen = Screen(stats)
    for key in ("down", "next", "r", "n", "x", "up", "previous"):
        assert not screen.press(key)
        lines = [line for line, _ in screen.lines(*size)]
        assert len(lines) == size[1]
        assert all(width_of(line) <= size[0] for line in lines)
    assert screen.press("q")


def test_speeds_are_those_between_two_looks_of_a_worker() -> None:
    screen = Screen(stats_with("/a"))
    for seconds, messages in ((1.0, 100), (0.0, 100), (2.0, 100)):
        stats = stats_with("/a")
        stats["workers"][0].update(state="live", age=0.0)
        stats["workers"][0]["routes"]["/a"]["messages_received"] = messages
        stats["time"] += seconds
        screen.take(stats)
    speeds = screen._speedometer.of_route("/a")
    assert speeds["messages_received"] == 0
    stats["workers"][0]["routes"]["/a"]["messages_received"] += 50
    stats["time"] += 5
    screen.take(stats)
    assert screen._speedometer.of_all()["messages_received"] == 10


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9.96, "10"), (0.25, "0.2"), (999, "999"), (999.6, "1.0k"), (12_345, "12k")],
)
def test_numbers_are_short(number: float, text: str) -> None:
    assert short(number) == text


def test_texts_are_cut_to_columns() -> None:
    assert fitted("abcdef", 4) == "abc…"
    assert fitted("ab", 4, right=True) == "  ab"
    assert fitted("中中中", 4) == "中… "
    assert fitted("abc", 0) == ""
