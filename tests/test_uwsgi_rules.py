"""The rules over uWSGI's options: each wrong option gives its finding, right ones give none."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.inspection.findings import Finding, Severity, Surroundings
from flask_uwsgi_websocket.inspection.options import (
    FLAGS,
    OPTIONAL,
    SHORT,
    Options,
    split_words,
)
from flask_uwsgi_websocket.inspection.rules import RULES, judge, unsupported_reason
from flask_uwsgi_websocket.launch.defaults import complete, take_over_reloading

ROOT = Path(__file__).resolve().parent.parent

# Options that are right for each engine, with which no rule finds anything.
COMMON = "-M --buffer-size 32768 --die-on-term --wsgi app:app"
ROUTER = f"{COMMON} --http :80 --http-websockets --http-buffer-size 32768"
THREADS = f"{ROUTER} --threads 16"
GEVENT = f"{ROUTER} --gevent 100"
ASYNCIO = f"{ROUTER} --asyncio 100 --greenlet"
SUSPEND = f"{ROUTER} --async 100 --greenlet"
BEHIND_NGINX = f"{COMMON} -s /run/app.sock --chmod-socket=660 --gevent 100"

RIGHT = {
    "threads": THREADS,
    "gevent": GEVENT,
    "asyncio": ASYNCIO,
    "suspend": SUSPEND,
}


def options(words: str) -> Options:
    pairs, others = split_words(shlex.split(words))
    assert not others
    return Options.of(pairs)


def found(words: str, around: Surroundings | None = None) -> list[Finding]:
    return judge(options(words), around)


@pytest.mark.parametrize(
    "words",
    [
        *RIGHT.values(),
        BEHIND_NGINX,
        f"{COMMON} --http-socket 127.0.0.1:8080 --gevent 100",
        f"{COMMON} --socket 127.0.0.1:3031 --threads 16 --worker-reload-mercy 30",
        f"{COMMON} --socket /run/app.sock --uid www-data --gevent 100",
        f"{COMMON} --uwsgi-socket /run/app.sock --chown-socket app:nginx --uid app --gevent 100",
        f"{GEVENT} --http-timeout 60 --mount /=other:app --single-interpreter",
        f"{THREADS} --mount /=other:app --single-interpreter",
        f"{GEVENT} --lazy-apps --py-autoreload 1 --gevent-early-monkey-patch",
        f"{GEVENT} --py-auto-reload=1",
        f"{GEVENT} --harakiri 0 --max-requests 0 --cheaper 0 --http11-socket no",
        f"{GEVENT} --socket-protocol uwsgi",
        f"{GEVENT} --threads 1",
        f"{THREADS} --protocol http --socket :8000",
        f"{GEVENT} --http-keepalive --http-processes 2",
        f"{ROUTER} --gevent 100 --http-raw-body",
        # A master comes with many an option, and uWSGI needs none for a vassal.
        GEVENT.replace("-M", "--die-on-term --stats :1717 --master"),
        "--emperor /etc/uwsgi/vassals",
        "--http :80 --http-websockets --http-buffer-size 32768 --http-to 127.0.0.1:3031",
    ],
)
def test_right_options(words: str) -> None:
    assert found(words) == []


WRONG = [
    # options, rule, severity
    ("http-websockets", Severity.ERROR, GEVENT.replace("--http-websockets", "")),
    (
        "http-websockets",
        Severity.ERROR,
        f"{GEVENT} --http-websockets=no",
    ),
    (
        "http-websockets",
        Severity.ERROR,
        GEVENT.replace("--http-websockets", "").replace("--http ", "--https2 "),
    ),
    (
        "http-websockets",
        Severity.WARNING,
        GEVENT.replace("--http-websockets", "--socket /s"),
    ),
    ("tls-socket", Severity.ERROR, f"{GEVENT} --https-socket :443,c.pem,k.pem"),
    ("tls-socket", Severity.ERROR, f"{GEVENT} --ssl-socket :443,c.pem,k.pem"),
    ("fastcgi", Severity.WARNING, f"{COMMON} --gevent 100 --fastcgi-socket :9000"),
    ("fastcgi", Severity.WARNING, f"{BEHIND_NGINX} --protocol=fastcgi"),
    ("kept-connections", Severity.ERROR, f"{COMMON} --gevent 100 --http11-socket :80"),
    ("kept-connections", Severity.ERROR, f"{BEHIND_NGINX} --socket-protocol http11"),
    ("kept-connections", Severity.ERROR, f"{BEHIND_NGINX} --protocol puwsgi"),
    (
        "kept-connections",
        Severity.ERROR,
        f"{COMMON} --asyncio 100 --greenlet --puwsgi-socket /s --chmod-socket",
    ),
    ("greenlet", Severity.ERROR, ASYNCIO.replace("--greenlet", "")),
    ("greenlet", Severity.ERROR, SUSPEND.replace("--greenlet", "--ugreen")),
    ("two-engines", Severity.ERROR, f"{GEVENT} --threads 8"),
    ("two-engines", Severity.ERROR, f"{ASYNCIO} --gevent 100"),
    ("late-patch", Severity.ERROR, f"{GEVENT} --lazy-apps --python-autoreload 1"),
    ("mounts", Severity.ERROR, f"{GEVENT} --mount /a=a:app"),
    (
        "mounts",
        Severity.ERROR,
        ASYNCIO.replace("--wsgi app:app", "--mount /a=a:app --mount /b=b:app"),
    ),
    ("mounts", Severity.WARNING, f"{THREADS} --mount /a=a:app"),
    ("harakiri", Severity.ERROR, f"{THREADS} --harakiri 30"),
    ("harakiri", Severity.ERROR, f"{THREADS} -t30"),
    ("harakiri", Severity.ERROR, f"{SUSPEND} -t 30"),
    ("harakiri", Severity.ERROR, f"{GEVENT} --harakiri 30 --cheaper 1"),
    ("harakiri", Severity.HINT, f"{GEVENT} --harakiri 30"),
    ("recycling", Severity.HINT, f"{GEVENT} --max-requests 5000"),
    ("recycling", Severity.HINT, f"{GEVENT} -R 5000"),
    ("recycling", Severity.HINT, f"{THREADS} --max-worker-lifetime 3600"),
    ("recycling", Severity.HINT, f"{ASYNCIO} --reload-on-rss 512"),
    ("evil", Severity.WARNING, f"{ASYNCIO} --evil-reload-on-rss 512"),
    ("evil", Severity.WARNING, f"{THREADS} --evil-reload-on-as 900"),
    ("mercy", Severity.WARNING, f"{GEVENT} --worker-reload-mercy 4"),
    (
        "http-buffer-size",
        Severity.ERROR,
        f"{GEVENT} --http-buffer-size 131072",
    ),
    (
        "http-buffer-size",
        Severity.ERROR,
        f"{GEVENT} --http-buffer-size 65535",
    ),
    ("http-buffer-size", Severity.HINT, GEVENT.replace("--http-buffer-size 32768", "")),
    (
        "http-buffer-size",
        Severity.HINT,
        f"{GEVENT} --http-buffer-size 8192",
    ),
    ("buffer-size", Severity.HINT, GEVENT.replace("--buffer-size 32768 --die", "--die")),
    ("buffer-size", Severity.WARNING, f"{GEVENT} -b 2048"),
    ("few-cores", Severity.WARNING, ROUTER),
    ("few-cores", Severity.WARNING, f"{ROUTER} --threads 4"),
    ("few-cores", Severity.WARNING, f"{ROUTER} --gevent 4 --cheaper 1"),
    ("http-timeout", Severity.WARNING, f"{GEVENT} --http-timeout 10"),
    ("http-timeout", Severity.WARNING, f"{GEVENT} --http-timeout 25"),
    (
        "socket-permissions",
        Severity.WARNING,
        f"{COMMON} --socket /run/app.sock --uid app --gevent 100",
    ),
    ("descriptors", Severity.WARNING, f"{THREADS} --max-fd 64"),
    ("descriptors", Severity.WARNING, f"{GEVENT} --max-fd 128"),
    ("descriptors", Severity.HINT, f"{GEVENT} --max-fd 1024"),
    ("master", Severity.WARNING, GEVENT.replace("-M ", "")),
    ("die-on-term", Severity.HINT, GEVENT.replace("--die-on-term", "")),
]


@pytest.mark.parametrize(("rule", "severity", "words"), WRONG)
def test_wrong_options(rule: str, severity: Severity, words: str) -> None:
    (finding,) = found(words)
    assert (finding.rule, finding.severity) == (rule, severity)
    assert finding.why
    assert finding.remedy
    assert "{" not in str(finding)


@pytest.mark.parametrize(
    ("rule", "severity", "around"),
    [
        ("version", Severity.WARNING, Surroundings(version=(2, 0, 20))),
        ("wrong-class", Severity.ERROR, Surroundings(engine="asyncio")),
        ("missing-engine", Severity.ERROR, Surroundings(features=frozenset({"asyncio"}))),
        ("mercy", Severity.WARNING, Surroundings(timeout=90)),
        ("http-timeout", Severity.WARNING, Surroundings(ping_interval=60)),
        ("http-timeout", Severity.WARNING, Surroundings(ping_interval=0)),
        ("descriptors", Severity.WARNING, Surroundings(descriptors=128)),
        ("processes", Severity.WARNING, Surroundings(backplane="memory://")),
    ],
)
def test_wrong_surroundings(rule: str, severity: Severity, around: Surroundings) -> None:
    (finding,) = found(f"{GEVENT} --worker-reload-mercy 60 --processes 2", around)
    assert (finding.rule, finding.severity) == (rule, severity)


@pytest.mark.parametrize("engine", RIGHT)
def test_right_surroundings(engine: str) -> None:
    around = Surroundings(
        engine=engine,
        timeout=5,
        ping_interval=25,
        descriptors=16384,
        version=(2, 0, 31),
        features=frozenset({"gevent", "asyncio", "greenlet"}),
        backplane="local://",
    )
    assert found(f"{RIGHT[engine]} --processes 2 --worker-reload-mercy 60", around) == []


def test_threads_of_old_versions() -> None:
    old, new = Surroundings(version=(2, 0, 21)), Surroundings(version=(2, 0, 28))
    assert "enable-threads" in {finding.rule for finding in found(SUSPEND, old)}
    for words in (f"{SUSPEND} --enable-threads", THREADS, GEVENT, ASYNCIO):
        assert "enable-threads" not in {finding.rule for finding in found(words, old)}
    assert "enable-threads" not in {finding.rule for finding in found(SUSPEND, new)}


def test_limits_of_old_versions() -> None:
    old, new = Surroundings(version=(2, 0, 21)), Surroundings(version=(2, 0, 28))
    for limit in ("--max-requests 100", "--reload-on-rss 100"):
        for engine in (ASYNCIO, THREADS):
            rules = {finding.rule for finding in found(f"{engine} {limit}", old)}
            assert "abrupt-recycling" in rules
    for words in (f"{GEVENT} --max-requests 100", f"{ASYNCIO} --max-worker-lifetime 100"):
        assert "abrupt-recycling" not in {finding.rule for finding in found(words, old)}
    assert "abrupt-recycling" not in {f.rule for f in found(f"{ASYNCIO} --max-requests 9", new)}


def test_every_rule_has_a_case() -> None:
    told = {rule for rule, _, _ in WRONG} | {"version", "wrong-class", "missing-engine"}
    told |= {"enable-threads", "abrupt-recycling", "processes"}
    cases = [*(words for _, _, words in WRONG), f"{GEVENT} --processes 2"]
    surroundings = Surroundings(
        engine="suspend", version=(2, 0), features=frozenset(), backplane="memory://"
    )
    assert {finding.rule for words in cases for finding in found(words, surroundings)} == told
    for rule in RULES:
        assert any(list(rule(options(words), surroundings)) for words in cases), rule


def test_in_doubt_nothing_is_found() -> None:
    every = {name for words in (case[2] for case in WRONG) for name in options(words).names()}
    assert judge(Options({}, every)) == []
    assert judge(Options({}, complete=False)) == []
    assert judge(Options({name: ["$(UNKNOWN)"] for name in every})) == []


def test_what_blocks_every_websocket() -> None:
    blocked = [words for _, _, words in WRONG if unsupported_reason(options(words))]
    assert blocked == [
        words
        for rule, severity, words in WRONG
        if rule in ("tls-socket", "http-websockets") and severity is Severity.ERROR
    ]


@pytest.mark.parametrize(
    "file", [f"docs/{name}.rst" for name in ("asyncio", "development", "uwasp")]
)
def test_the_commands_of_the_docs_are_right(file: str) -> None:
    text = re.sub(r" \\\n\s+", " ", (ROOT / file).read_text())
    commands = re.findall(r"^ +(?:\$ )?(?:\w+=\S+ )?uwsgi (--.*)$", text, re.MULTILINE)
    assert commands
    for command in commands:
        hints = {finding.rule for finding in found(command) if finding.severity is Severity.HINT}
        assert hints <= {"buffer-size", "die-on-term"}, command
        assert [f for f in found(command) if f.severity is not Severity.HINT] == [], command


@pytest.mark.parametrize("debug", [False, True])
@pytest.mark.parametrize("given", [{}, {"gevent": 100}, {"asyncio": 100}, {"processes": 1}])
def test_what_app_run_gives_is_right(given: dict[str, Any], debug: bool) -> None:
    given = complete(given, debug)
    take_over_reloading(given)
    pairs = [(name, None if value is True else str(value)) for name, value in given.items()]
    findings = judge(Options.of(pairs), Surroundings(version=(2, 0, 31)))
    assert {finding.rule for finding in findings} <= {"buffer-size"}


# The form


@pytest.mark.parametrize(
    ("words", "pairs"),
    [
        ("-p 4", [("processes", "4")]),
        ("-p4 -Mi", [("processes", "4"), ("master", None), ("single-interpreter", None)]),
        ("-Mp4", [("master", None), ("processes", "4")]),
        ("--workers=4 --master", [("workers", "4"), ("master", None)]),
        ("--pyargv --x --master", [("pyargv", "--x"), ("master", None)]),
        ("--logger - --env A=B=C", [("logger", "-"), ("env", "A=B=C")]),
        ("--chmod-socket --socket=x", [("chmod-socket", None), ("socket", "x")]),
        ("--single-interp --pyth /x", [("single-interpreter", None), ("pyth", "/x")]),
    ],
)
def test_words(words: str, pairs: list[tuple[str, str | None]]) -> None:
    known = {"single-interpreter", "pythonpath", "python-path", "processes"}
    assert split_words(words.split(), known) == (pairs, [])


def test_words_that_belong_to_no_option() -> None:
    assert split_words(["--master", "app.ini", "-i", "--", "--x"]) == (
        [("master", None), ("single-interpreter", None)],
        ["app.ini", "--x"],
    )


def test_spellings_have_one_name() -> None:
    opt = {
        "workers": b"2",
        "p": b"9",  # short on command lines only: in a file it is a placeholder
        "py-auto-reload": b"1",
        "http-socket": [b":1", b":2"],
        "master": True,
    }
    process = Options.of_process({**opt, "enable-threads": b"false", "greenlet": b""})
    assert process.number("processes") == 2
    assert all(map(process.has, ("py-autoreload", "greenlet", "master")))
    assert process.values("http-socket") == [":1", ":2"]
    assert process.lacks("enable-threads", "gevent")
    assert process.number("threads", 1) == 1
    assert process.number("threads") is None
    assert Options({"harakiri": ["30 seconds"]}).number("harakiri") == 30
    assert Options({"harakiri": ["never"]}).number("harakiri") == 0


def test_the_table_is_that_of_uwsgi(uwsgi_help: str) -> None:
    names = set(re.findall(r"^\s+(?:-\S\|)?--(\S+)", uwsgi_help, re.MULTILINE))
    assert names > FLAGS | OPTIONAL
    assert dict(re.findall(r"^\s+-(\S)\|--(\S+)", uwsgi_help, re.MULTILINE)).keys() == SHORT.keys()


@pytest.fixture
def uwsgi_help() -> str:
    import subprocess

    from tests.server import uwsgi_binary

    return subprocess.run([uwsgi_binary(), "--help"], capture_output=True, text=True).stdout
