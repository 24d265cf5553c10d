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
from benchmarks.__main__ import chosen, missed
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
    assert missed(results) == 0
    for each in results.samples:
        each["figures"]["rate"] *= 0.5 if each["peer"] == "ours-gevent" else 1
    assert missed(results) == 1


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
    assert missed(results) == 0
    results.failures[0]["peer"] = "ours-gevent"
    results.samples[0]["peer"] = "aiohttp"
    assert missed(results) == 1


def test_the_beginning_of_names_is_enough() -> None:
    assert chosen("echo-4k,router", dict(works.BY_NAME), "work") == [
        *("echo-4k", "router-4k", "router-64k")
    ]
    assert chosen("uvicorn", dict(peers.BY_NAME), "peer") == list(bars.UVICORN)
    # A whole name means that one only.
    assert chosen("aiohttp", dict(peers.BY_NAME), "peer") == ["aiohttp"]


def test_every_bar_is_about_a_work_and_peers_that_exist() -> None:
    for bar in bars.BARS:
        work = works.BY_NAME[bar.work]
        for name in (bar.ours, *bar.against):
            assert work.reason_to_skip(peers.BY_NAME[name], 20_000) is None, bar
