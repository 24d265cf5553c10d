"""The benchmarks' machinery, on runs too short to say anything about speed."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks import bars, peers, works
from benchmarks.command import chosen, missed
from benchmarks.fanout import peers as room_peers
from benchmarks.fanout import works as room_works
from benchmarks.fanout.report import report as room_report
from benchmarks.fanout.run import RoomRun
from benchmarks.report import report
from benchmarks.results import Results
from benchmarks.run import Run
from tests.server import ROOT

PEERS = ["picows", "aiohttp", "ours-gevent"]


def benchmark(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "benchmarks", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("benchmarks") / "run.json"
    short = ["--rounds", "1", "--seconds", "0.2", "--output", str(path)]
    run = benchmark("--works", "latency,echo-32,connect", "--peers", ",".join(PEERS), *short)
    assert run.returncode == 0, run.stderr
    assert "Echo, 50 connections, 32 B" in run.stdout
    return path


@pytest.mark.slow
def test_a_run_is_saved_with_what_it_depends_on(saved: Path) -> None:
    run: dict[str, Any] = json.loads(saved.read_text())
    assert run["failures"] == []
    assert run["machine"].keys() >= {"CPU", "cores", "kernel", "Python", "uWSGI", "revision"}
    assert list(run["peers"]) == PEERS
    assert all("Python" in peer["versions"] for peer in run["peers"].values())
    done = {(sample["peer"], sample["work"]) for sample in run["samples"]}
    assert done == {(peer, work) for peer in PEERS for work in ("latency", "echo-32", "connect")}
    for sample in run["samples"]:
        figures = sample["figures"]
        assert figures["rate"] > 0, sample
        assert 0 <= figures["client_cpu"] < 3, sample
        if sample["work"] == "latency":
            assert 0 < figures["p50_us"] <= figures["p99_us"], sample


@pytest.mark.slow
def test_a_saved_run_is_printed_again(saved: Path) -> None:
    run = benchmark("report", str(saved), "--bars")
    assert run.returncode == 0, run.stderr
    assert "ours, gevent" in run.stdout
    assert "bars" in run.stdout


def small_run(peer: peers.Peer, tmp_path: Path) -> Results:
    results = Results(settings={"rounds": 1, "seconds": 0.1})
    Run(results, [peer], [works.BY_NAME["echo-32"]], 1, 0.1, tmp_path).perform()
    return results


def test_a_peer_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    script = "import sys; sys.exit('no licence key')"
    broken = dataclasses.replace(
        peers.BY_NAME["picows"], command=lambda port, cores: [sys.executable, "-c", script]
    )
    results = small_run(broken, tmp_path)
    [failure] = results.failures
    assert failure["peer"] == "picows"
    assert failure["log"] == "no licence key"
    text = "\n".join(report(results))
    assert "FAILED" in text
    assert "no licence key" in text


def test_wrong_replies_are_a_failure(tmp_path: Path) -> None:
    script = """if True:
        import asyncio, os, websockets
        async def answer(ws):
            async for _ in ws:
                await ws.send("something else")
        async def serve():
            async with websockets.serve(answer, "127.0.0.1", int(os.environ["BENCHMARK_PORT"])):
                await asyncio.Future()
        asyncio.run(serve())
    """
    wrong = dataclasses.replace(
        peers.BY_NAME["websockets"], command=lambda port, cores: [sys.executable, "-c", script]
    )
    results = small_run(wrong, tmp_path)
    [failure] = results.failures
    assert "unexpected message" in failure["reason"]


def sample(peer: str, work: str, round_: int = 1, **figures: float) -> dict[str, Any]:
    return {"round": round_, "peer": peer, "work": work, "figures": figures}


def known(*names: str) -> dict[str, dict[str, Any]]:
    return {name: {"label": name, "kind": "", "versions": {}} for name in names}


def test_bars_take_the_median_of_the_rounds_ratios() -> None:
    rates = [(100.0, 100.0), (90.0, 60.0), (20.0, 10.0)]
    results = Results(peers=known("ours-gevent", "aiohttp"))
    for number, (ours, theirs) in enumerate(rates):
        results.samples += [
            sample("ours-gevent", "echo-32", number, rate=ours),
            sample("aiohttp", "echo-32", number, rate=theirs),
        ]
    [verdict] = [each for each in bars.judge(results) if each.measured is not None]
    assert verdict.measured == 1.5
    assert verdict.word == "met"
    assert missed(results, bars.BARS) == 0
    for each in results.samples:
        each["figures"]["rate"] *= 0.5 if each["peer"] == "ours-gevent" else 1
    assert missed(results, bars.BARS) == 1


def test_the_best_of_several_peers_counts() -> None:
    results = Results(peers=known("ours-threads", "flask-sock-gthread", "uwsgi-threads"))
    results.samples = [
        sample("ours-threads", "latency", p50_us=50.0),
        sample("flask-sock-gthread", "latency", p50_us=100.0),
        sample("uwsgi-threads", "latency", p50_us=40.0),
    ]
    [verdict] = [each for each in bars.judge(results) if each.measured is not None]
    assert (verdict.peer, verdict.measured, verdict.word) == ("uwsgi-threads", 1.25, "MISSED")


def test_the_bare_api_stands_in_for_a_missing_original() -> None:
    results = Results(
        peers=known("ours-gevent", "uwsgi-gevent"), missing={"original-gevent": "no Python 3.8"}
    )
    results.samples = [
        sample("ours-gevent", "echo-32", rate=40.0),
        sample("uwsgi-gevent", "echo-32", rate=10.0),
    ]
    [verdict] = [each for each in bars.judge(results) if each.measured is not None]
    assert (verdict.peer, verdict.measured) == ("uwsgi-gevent", 4.0)


def test_ours_failing_misses_a_bar_and_theirs_does_not() -> None:
    results = Results(peers=known("ours-gevent", "aiohttp"))
    results.samples = [sample("ours-gevent", "echo-32", rate=40.0)]
    results.failures = [{"peer": "aiohttp", "work": "echo-32", "round": 1}]
    assert missed(results, bars.BARS) == 0
    results.failures[0]["peer"] = "ours-gevent"
    results.samples[0]["peer"] = "aiohttp"
    assert missed(results, bars.BARS) == 1


def test_the_beginning_of_names_is_enough() -> None:
    assert chosen("echo-4k,router", dict(works.BY_NAME), "work") == [
        *("echo-4k", "router-4k", "router-64k")
    ]
    assert chosen("uvicorn", dict(peers.BY_NAME), "peer") == list(bars.UVICORN)
    # A whole name means that one only.
    assert chosen("aiohttp", dict(peers.BY_NAME), "peer") == ["aiohttp"]


def test_every_bar_is_about_a_work_and_peers_that_exist() -> None:
    for bar in (*bars.BARS, *bars.ROOM_BARS):
        work = bars.WORKS[bar.work]
        for name in (bar.ours, *bar.against):
            assert work.reason_to_skip(bars.PEERS[name], 20_000) is None, bar


#: A chat in one process for all ports; ``spoil`` says what becomes of a text that goes to all.
CHAT = """if True:
    import asyncio, os, websockets
    everybody, held = set(), []

    def spoil(text, number):
        return [text]
    SPOIL
    async def chat(ws):
        everybody.add(ws)
        async for text in ws:
            number = int(text[2:11]) if text[0] == "#" else 0
            for each in spoil(text, number):
                websockets.broadcast(everybody, each)

    async def serve():
        ports = os.environ["BENCHMARK_PORTS"].split(",")
        servers = [await websockets.serve(chat, "127.0.0.1", int(port)) for port in ports]
        await asyncio.Future()

    asyncio.run(serve())
"""


def chat(tmp_path: Path, spoil: str, name: str = "starlette-redis") -> Results:
    """Fan-out in a small room, of a server that spoils some messages."""
    command = [sys.executable, "-c", CHAT.replace("SPOIL", spoil)]
    peer = dataclasses.replace(
        room_peers.BY_NAME[name],
        command=lambda port, cores: command,
        packages=("websockets",),
        redis=False,
        whole=True,
    )
    return rooms_run(peer, tmp_path)


def rooms_run(peer: room_peers.RoomPeer, tmp_path: Path) -> Results:
    work = dataclasses.replace(room_works.BY_NAME["flight-8"], connections=8)
    results = Results(settings={"rounds": 1, "seconds": 0.2})
    RoomRun(results, [peer], [work], 1, 0.2, tmp_path).perform()
    assert results.missing == {}
    return results


def figures_of(results: Results) -> dict[str, float]:
    assert results.failures == []
    [only] = results.samples
    figures: dict[str, float] = only["figures"]
    return figures


@pytest.mark.slow
def test_a_fan_out_counts_deliveries_and_finds_them_in_order(tmp_path: Path) -> None:
    results = chat(tmp_path, "")
    figures = figures_of(results)
    assert (figures["lost"], figures["twice"], figures["disordered"]) == (0, 0, 0)
    assert figures["expected"] % 8 == 0
    assert figures["expected"] > 8 * 50
    assert 0 < figures["p50_ms"] <= figures["p99_ms"]
    text = "\n".join(room_report(results))
    assert "8 messages of 200 B under way" in text
    assert "Starlette" in text


LOSE = "spoil = lambda text, number: [] if number == 7 else [text]"
DOUBLE = "spoil = lambda text, number: [text, text] if number == 7 else [text]"
SWAP = """
    def spoil(text, number):
        if number == 7:
            held.append(text)
        return [] if number == 7 else [text, held.pop()] if held and number == 9 else [text]
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        # The eight who speak in turn have a message with this number each.
        pytest.param(LOSE, {"lost": 8 * 8, "twice": 0, "disordered": 0}, id="lost"),
        pytest.param(DOUBLE, {"lost": 0, "twice": 8 * 8, "disordered": 0}, id="twice"),
        pytest.param(SWAP, {"lost": 0, "twice": 0, "disordered": 8 * 8}, id="out of order"),
    ],
)
def test_a_fan_out_counts_what_goes_wrong(
    tmp_path: Path, spoil: str, found: dict[str, int]
) -> None:
    figures = figures_of(chat(tmp_path, spoil))
    assert {name: figures[name] for name in found} == found


@pytest.mark.slow
def test_a_fan_out_of_ours_that_loses_messages_fails(tmp_path: Path) -> None:
    results = chat(tmp_path, LOSE, "ours-gevent-local")
    [failure] = results.failures
    assert "64 lost" in failure["reason"]
    assert "FAILED" in "\n".join(room_report(results))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["gevent", "uvloop"])
def test_ours_loses_nothing_in_a_fan_out(tmp_path: Path, engine: str) -> None:
    figures = figures_of(rooms_run(room_peers.BY_NAME[f"ours-{engine}-local"], tmp_path))
    assert figures["expected"] > 0
