"""`flask websocket doctor`: options from wherever uWSGI gets them."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from flask import Flask
from flask.cli import ScriptInfo

from flask_uwsgi_websocket import GeventWebSocket, WebSocket
from flask_uwsgi_websocket.commands import cli
from flask_uwsgi_websocket.inspection import processes
from flask_uwsgi_websocket.inspection.processes import Process
from flask_uwsgi_websocket.inspection.sources import Instance, read
from tests.server import eventually, free_port, uwsgi_binary

#: A file with which nothing is wrong.
RIGHT = """
    [uwsgi]
    master = true
    http-socket = 127.0.0.1:8080
    gevent = 100
    module = app:app
    buffer-size = 32768
    die-on-term = true
"""


def make_app(extension: Callable[[Flask], Any] = GeventWebSocket) -> Flask:
    app = Flask("under test")
    # Or the patch would be that of all tests in this process.
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    extension(app)
    return app


def doctor(*words: str, app: Flask | None = None, env: dict[str, str] | None = None) -> Result:
    info = ScriptInfo(create_app=lambda: app or make_app())
    return CliRunner().invoke(cli.websocket, ["doctor", *words], obj=info, env=env)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(name: str, text: str) -> str:
    Path(name).write_text(textwrap.dedent(text))
    return name


def the(instances: Sequence[Instance]) -> Instance:
    (instance,) = instances
    return instance


# The command


@pytest.mark.parametrize(
    "words",
    [
        ["app.ini"],
        ["--ini", "app.ini"],
        ["--ini=app.ini"],
        ["--", "uwsgi", "app.ini"],
        ["--", "uwsgi", "--ini", "app.ini", "--socket-timeout", "10"],
    ],
)
def test_a_right_file(words: list[str]) -> None:
    write("app.ini", RIGHT)
    result = doctor(*words)
    assert result.exit_code == 0, result.output
    (binary, verdict) = result.output.splitlines()
    assert f"Python {sys.version.split()[0]}" in binary
    assert verdict == "Nothing found."


def test_a_wrong_file() -> None:
    write("app.ini", RIGHT.replace("http-socket", "http") + "    worker-reload-mercy = 1\n")
    result = doctor("app.ini")
    assert result.exit_code == 1
    told = [line for line in result.output.splitlines()[1:] if not line.startswith(" ")]
    assert [line.split(":")[0] for line in told] == ["error", "warning", "hint"]
    assert "without --http-websockets" in told[0]
    assert "Add --http-websockets." in result.output
    assert "--worker-reload-mercy 1" in told[1]


def test_hints_are_no_failure() -> None:
    write("app.ini", RIGHT + "    max-requests = 4\n")
    result = doctor("app.ini")
    assert result.exit_code == 0
    assert "hint: --max-requests 4: " in result.output
    assert result.output.endswith("Nothing is wrong.\n")


# Rooms


def rooms_app(backplane: str | None) -> Flask:
    app = Flask("rooms of the doctor")
    app.config["UWSGI_WEBSOCKET_BACKPLANE"] = backplane
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    GeventWebSocket(app)
    return app


def test_workers_that_are_by_themselves() -> None:
    write("app.ini", RIGHT + "    processes = 4\n")
    assert doctor("app.ini").output.endswith("Nothing found.\n")
    result = doctor("app.ini", app=rooms_app("memory://"))
    assert result.exit_code == 1
    assert "warning: --processes 4 with UWSGI_WEBSOCKET_BACKPLANE memory://: " in result.output
    assert doctor("app.ini", app=rooms_app(None)).output.endswith("Nothing found.\n")


def test_a_directory_that_others_may_enter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("app.ini", RIGHT)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    base = tmp_path / f"flask-uwsgi-websocket-{os.geteuid()}"
    base.mkdir(mode=0o755)
    base.chmod(0o755)
    result = doctor("app.ini", app=rooms_app(None))
    assert result.exit_code == 1
    assert f"error: rooms: {base} is open to others: its mode is 0755" in result.output
    base.chmod(0o700)
    assert doctor("app.ini", app=rooms_app(None)).output.endswith("Nothing found.\n")
    assert not [*tmp_path.glob("*/*")]


@pytest.mark.slow
def test_a_redis_that_is_there_and_one_that_is_not(start_redis: Any) -> None:
    write("app.ini", RIGHT)
    server = start_redis()
    server.call("CONFIG", "SET", "maxmemory-policy", "allkeys-lru")
    result = doctor("app.ini", app=rooms_app(server.url))
    assert result.exit_code == 0, result.output
    assert re.search(r"note: rooms: redis.*: Redis \d", result.output)
    assert "maxmemory-policy is allkeys-lru" in result.output
    server.kill()
    result = doctor("app.ini", app=rooms_app(server.url))
    assert result.exit_code == 1
    assert result.output.count("error: rooms: ") == 1
    assert "nothing listens there" in result.output


def test_the_app_alone_is_looked_at() -> None:
    result = doctor(app=rooms_app(f"redis://127.0.0.1:{free_port()}"))
    assert result.exit_code == 1
    assert "nothing listens there" in result.output
    assert doctor(app=rooms_app("memory://")).output.endswith("\nNothing found.\n")


def test_the_apps_class_is_compared_with_the_engine() -> None:
    write("app.ini", RIGHT)
    result = doctor("app.ini", app=make_app(WebSocket))
    assert result.exit_code == 1
    assert "error: the app uses WebSocket, and uWSGI is started with other" in result.output
    assert "Start uWSGI with --threads N, or --processes N, or use GeventWebSocket" in result.output


def test_the_apps_timeout_counts() -> None:
    write("app.ini", RIGHT + "    worker-reload-mercy = 10\n")
    app = make_app(lambda app: GeventWebSocket(app, timeout=20))
    assert "had the 20 seconds of the extension's timeout" in doctor("app.ini", app=app).output


def test_an_app_that_does_not_load_is_no_finding() -> None:
    write("app.ini", RIGHT)

    def broken() -> Flask:
        raise RuntimeError("no database")

    result = CliRunner().invoke(
        cli.websocket, ["doctor", "app.ini"], obj=ScriptInfo(create_app=broken)
    )
    assert result.exit_code == 0
    assert "the app was not looked at (RuntimeError: no database)" in result.output


def test_a_binary_that_is_not_there() -> None:
    result = doctor("--uwsgi-binary", "./none")
    assert result.exit_code == 1
    assert "neither an executable" in result.output


def test_an_old_binary_without_the_engine(folder: Path) -> None:
    write("app.ini", RIGHT)
    old = folder / "old"
    old.write_text(
        "#!/bin/sh\n"
        f"case $* in --version) echo 2.0.20;; *--help) {uwsgi_binary()} --help | grep -v gevent;;"
        f" *) exec {uwsgi_binary()} $*;; esac\n"
    )
    old.chmod(0o755)
    result = doctor("--uwsgi-binary", str(old), "app.ini")
    assert result.exit_code == 1
    assert "warning: uWSGI 2.0.20: " in result.output
    assert "error: --gevent: this uWSGI was built without it" in result.output


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["stray"], "'stray' belongs to no uWSGI option"),
        (["none.ini"], "none.ini: there is no such file"),
        (["--pid", "999999999"], "process 999999999: No such file"),
    ],
)
def test_what_cannot_be_looked_at(words: list[str], error: str) -> None:
    result = doctor(*words)
    assert result.exit_code == 1
    assert error in result.output


# A process


@pytest.fixture
def process(folder: Path) -> Iterator[Any]:
    """Starts a uWSGI, and tells when it has read its options."""
    running = []

    def start(text: str, *words: str, env: dict[str, str] | None = None) -> subprocess.Popen[bytes]:
        (folder / "app.ini").write_text(textwrap.dedent(text))
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                [uwsgi_binary(), "app.ini", *words],
                stdout=log,
                stderr=log,
                env={**os.environ, **(env or {})},
            )
        running.append(process)
        eventually(lambda: "spawned uWSGI" in (folder / "log").read_text(), "its worker")
        return process

    yield start
    for each in running:
        each.kill()
        each.wait()


SERVED = """
    [uwsgi]
    http-socket = 127.0.0.1:{port}
    master = true
    no-orphans = true
    threads = 16
    buffer-size = 32768
    die-on-term = true
"""


def test_a_process(process: Any) -> None:
    running = process(
        SERVED.format(port=free_port()),
        *("--static-index", "", "--max-fd", "64"),
        env={"UWSGI_HARAKIRI": "30"},
    )
    result = doctor("--pid", str(running.pid), app=make_app(WebSocket))
    assert result.exit_code == 1
    told = [line for line in result.output.splitlines() if line.startswith(("error", "warning"))]
    assert [line.split(":")[1] for line in told] == [
        " --harakiri 30",
        " 64 descriptors for 16 connections",
    ]


def test_an_emperor_that_runs(process: Any, folder: Path) -> None:
    (folder / "vassals").mkdir()
    write("vassals/chat.ini", SERVED.format(port=free_port()) + "    harakiri = 30\n")
    # It changes its directory to theirs.
    running = process("[uwsgi]\n", "--emperor", "vassals", env={"PWD": str(folder)})
    assert "--harakiri 30" in doctor("--pid", str(running.pid)).output


@pytest.mark.parametrize(
    ("option", "name"), [("auto-procname = true", "uWSGI master"), ("procname = chat", "chat")]
)
def test_a_process_that_hides_its_options(process: Any, option: str, name: str) -> None:
    running = process(SERVED.format(port=free_port()) + f"    {option}\n")
    # The master renames itself when it has spawned its workers.
    line = Path(f"/proc/{running.pid}/cmdline")
    eventually(lambda: line.read_bytes().startswith(name.encode()), "its new name")
    result = doctor("--pid", str(running.pid))
    assert result.exit_code == 1
    assert f"calls itself '{name}' (--auto-procname" in result.output
    assert "flask websocket doctor app.ini" in result.output
    assert "Nothing" not in result.output


def test_a_service_whose_process_hides_its_options(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    units = folder / "units"
    (units / "app@.service.d").mkdir(parents=True)
    (units / "app@.service").write_text(
        f"[Service]\nWorkingDirectory={folder}\nExecStart=/usr/bin/uwsgi other.ini\n"
        'Environment="MERCY=3" UWSGI_THREADS=16\n'
    )
    (units / "app@.service.d" / "local.conf").write_text(
        "[Service]\nExecStart=\nExecStart=-/usr/bin/uwsgi \\\n  --ini %i.ini --set-ph a=b\n"
    )
    write("live.ini", RIGHT.replace("gevent = 100", "worker-reload-mercy = $(MERCY)"))
    hidden = Process(uwsgi_binary(), [], {}, folder, 4096, "uWSGI master")
    monkeypatch.setattr(processes, "UNIT_FOLDERS", [folder / "none", units])
    for cgroup in ("0::/init.scope", "0::/system.slice/none.service", "0::/"):
        assert processes._from_unit(hidden, cgroup) == hidden
    found = processes._from_unit(hidden, "1:name=x:/system.slice/app@live.service\n0::/\n")
    assert found.words == ["--ini", "live.ini", "--set-ph", "a=b"]
    monkeypatch.setattr(processes, "look_at", lambda pid: found)
    result = doctor("--pid", "1", app=make_app(WebSocket))
    assert result.exit_code == 1
    assert "which hides its options; these are from" in result.output
    assert "warning: --worker-reload-mercy 3: " in result.output
    assert "error" not in result.output


def test_the_binary_alone() -> None:
    result = doctor()
    assert result.exit_code == 0
    assert "(uWSGI 2." in result.output
    assert result.output.endswith("Nothing found.\n")


# Files


KINDS = {
    "app.ini": """
        ; a comment
        [other]
        harakiri = 9
        [uwsgi]
        # another
        processes = 2
        http-websockets
        mount = /a=a:app
        mount = /b=b:app
        harakiri =   30
        """,
    "app.yaml": """
        other:
          harakiri: 9
        uwsgi:
          processes: 2  # a comment
          http-websockets: true
          mount: ['/a=a:app', /b=b:app]
          harakiri: "30"
        """,
    "app.yml": """
        uwsgi:
            workers: 2
            http-websockets: 1
            mount:
              - /a=a:app
              - /b=b:app
            harakiri: 30
        """,
    "app.xml": """
        <all><uwsgi id="other"><harakiri>9</harakiri></uwsgi><uwsgi>
          <workers>2</workers><http-websockets/>
          <mount>/a=a:app</mount><mount>/b=b:app</mount>
          <harakiri>30</harakiri>
        </uwsgi></all>
        """,
    "app.json": json.dumps(
        {
            "other": {"harakiri": 9},
            "uwsgi": {
                "workers": 2,
                "http-websockets": True,
                "mount": ["/a=a:app", "/b=b:app"],
                "harakiri": "30",
            },
        }
    ),
}


@pytest.mark.parametrize("name", KINDS)
def test_kinds_of_files(name: str) -> None:
    write(name, KINDS[name])
    options = the(read([name], {})).options
    assert options.number("processes") == 2
    assert options.has("http-websockets")
    assert options.values("mount") == ["/a=a:app", "/b=b:app"]
    assert options.values("harakiri") == ["30"]
    kind = name.partition(".")[2]
    assert the(read([f"--{kind}", f"{name}:other"], {})).options.lacks("mount")


def test_uwsgi_reads_files_as_we_do() -> None:
    """What uWSGI itself makes of a file with everything in it."""
    write("base.ini", "[uwsgi]\nlisten = 7\nharakiri = %(threads 2)\n[more]\nmax-requests = 5\n")
    write("secret", "77\n")
    text = """
        [uwsgi]
        threads = 4
        set-placeholder = half=2
        processes = %(threads / half)
        buffer-size = %(threads * 1024 + 5)
        include = %dbase.ini
        ini = :more
        procname = %n-%e-%s-%c
        worker-reload-mercy = @(secret)
        http-timeout = $(SECONDS_OF_IT)
        master-fifo = $(NOT_SET)
        chdir = %d
        """
    write("app.ini", text)
    names = ["threads", "processes", "buffer-size", "listen", "harakiri", "max-requests"]
    names += ["procname", "worker-reload-mercy", "http-timeout", "chdir"]
    environment = {**os.environ, "SECONDS_OF_IT": "33", "UWSGI_SOCKET_TIMEOUT": "9"}
    ours = the(read(["app.ini", "--stats", "x"], environment))
    get = [word for name in [*names, "stats", "socket-timeout"] for word in ("--get", name)]
    command = [uwsgi_binary(), "app.ini", "--stats", "x", *get]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
    assert [ours.options.text(name) for name in [*names, "stats", "socket-timeout"]] == (
        done.stdout.splitlines()
    )
    assert ours.options.written("master-fifo") == "$(NOT_SET)"


def test_blocks_are_not_judged() -> None:
    write("app.ini", RIGHT.replace("master = true", "if-env = LIVE\n    master = true\n    endif"))
    instance = the(read(["app.ini"], {}))
    assert not instance.options.has("master")
    assert not instance.options.lacks("master")
    assert instance.options.has("gevent")
    assert instance.notes == ("the block under if-env = LIVE: depends on the machine, not judged",)
    result = doctor("app.ini")
    assert result.exit_code == 0, result.output
    assert "note: the block under if-env = LIVE" in result.output


def test_loops_are_not_judged() -> None:
    write("app.ini", f"{RIGHT}for = a b\nmetric = name=%(_)\nendfor =\ndie-on-term = true\n")
    instance = the(read(["app.ini"], {}))
    assert not instance.options.has("metric")
    assert not instance.options.lacks("metric")
    assert instance.options.has("die-on-term")
    assert instance.notes == ("the block under for = a b: a loop, not judged",)


def test_a_file_that_is_missing_leaves_doubt() -> None:
    write("app.ini", "[uwsgi]\nini = none.ini\nharakiri = 5\nthreads = 20\n")
    instance = the(read(["app.ini"], {}))
    assert "none.ini: No such file or directory" in instance.notes[0]
    assert not instance.options.lacks("master")
    assert instance.options.has("harakiri")
    assert "master" not in doctor("app.ini").output


@pytest.mark.parametrize("name", ["app.json", "app.xml"])
def test_a_broken_file(name: str) -> None:
    write(name, "<{")
    assert "what it holds was not looked at" in the(read([name], {})).notes[0]


def test_files_that_include_each_other() -> None:
    write("app.ini", "[uwsgi]\nmaster = true\nini = other.ini\n")
    write("other.ini", "[uwsgi]\nthreads = 5\nini = app.ini\n")
    options = the(read(["app.ini"], {})).options
    assert options.has("master")
    assert options.number("threads") == 5


def test_a_value_that_is_not_known_here() -> None:
    write("app.ini", "[uwsgi]\nhttp = :$(NO_PORT)\nmaster = $(NO_MASTER)\nthreads = $(N)\n")
    instance = the(read(["app.ini"], {}))
    assert instance.options.has("http")
    assert not instance.options.has("master")
    assert not instance.options.lacks("master")
    told = doctor("app.ini").output
    assert "without --http-websockets" in told
    assert "note: master = $(NO_MASTER): not known from here, and not judged." in told
    assert "note: threads = $(N): " in told
    assert told.count("note: ") == 2


def test_an_emperor_without_vassals(folder: Path) -> None:
    (folder / "vassals").mkdir()
    assert "there are no vassals" in doctor("--emperor", "vassals").output


def test_an_emperors_vassals(folder: Path) -> None:
    vassals = folder / "vassals"
    vassals.mkdir()
    write("vassals/good.ini", RIGHT.replace("die-on-term = true", ""))
    write("vassals/bad.ini", RIGHT.replace("gevent", "threads") + "    harakiri = %(limit)\n")
    write("vassals/README", "no vassal")
    write("base.ini", "[uwsgi]\nworker-reload-mercy = 1\n")
    for words in (["--emperor", "vassals"], ["vassals"], ["--emperor", "vassals/*.ini"]):
        result = doctor(*words, "--vassal-set", "limit=30", "--vassals-inherit", "base.ini")
        assert result.exit_code == 1
        lines = result.output.splitlines()[1:]
        heads = [line.split(": ")[0] for line in lines if not line.startswith(" ")]
        assert heads == [
            f"{vassals}/bad.ini:",
            "error",
            "warning",
            f"{vassals}/good.ini:",
            "warning",
        ]
        assert "--harakiri 30" in lines[1]


def test_the_environment_has_options() -> None:
    write("app.ini", RIGHT)
    assert (
        "--worker-reload-mercy 1"
        in doctor("app.ini", env={"UWSGI_WORKER_RELOAD_MERCY": "1"}).output
    )
