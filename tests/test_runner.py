"""`app.run()`: the command that it builds, and scripts started for real from everywhere."""

from __future__ import annotations

import contextlib
import http.client
import io
import itertools
import json
import os
import shlex
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import sysconfig
import textwrap
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.exceptions import (
    AsyncioNotAvailable,
    EngineError,
    GeventNotInstalled,
    UWSGINotFound,
)
from flask_uwsgi_websocket.inspection import binaries
from flask_uwsgi_websocket.inspection.binaries import UWSGIBinary
from flask_uwsgi_websocket.launch import defaults, keywords, locate, run
from flask_uwsgi_websocket.launch.locate import Target
from tests.rawclient import RawClient, close_frame
from tests.server import PATIENCE, free_port

ROOT = Path(__file__).parent.parent
DEADLINE = 20.0
THIS_PYTHON = ".".join(map(str, sys.version_info[:3]))


# Units: the command. What happens to it afterwards is below, with a real uWSGI.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """What `run_uwsgi("echo:app", ...)` would exec."""
    calls: list[list[str]] = []
    monkeypatch.setattr(os, "execv", lambda path, arguments: calls.append(arguments))
    monkeypatch.setattr(os, "environ", os.environ.copy())

    def command(app: Any = "echo:app", **kwargs: Any) -> list[str]:
        run.run_uwsgi(app, **kwargs)
        return calls[-1]

    return command


def has(command: list[str], *words: str) -> bool:
    """Whether the words stand in the command one after the other."""
    return any(command[i : i + len(words)] == list(words) for i in range(len(command)))


def test_defaults(command: Callable[..., list[str]]) -> None:
    built = command()
    assert Path(built[0]).name == "uwsgi"
    assert has(built, "--http", "localhost:5000")
    assert has(built, "--http-buffer-size", "32768")
    assert has(built, "--threads", "32")
    assert has(built, "--wsgi", "echo:app")
    for flag in ("--master", "--http-websockets", "--die-on-term", "--need-app"):
        assert flag in built
    assert "--python-autoreload" not in built


def test_values(command: Callable[..., list[str]]) -> None:
    built = command(
        vacuum=True,
        lazy_apps=False,
        stats=None,
        env=["A=1", "B=2"],
        async_=10,
        http_keepalive=5,
        p=2,
    )
    assert "--vacuum" in built
    assert "--lazy-apps" not in built
    assert "--stats" not in built
    assert has(built, "--env", "A=1", "--env", "B=2")
    assert has(built, "--async", "10")
    assert "--http-keepalive=5" in built  # getopt: optional arguments in one word only
    assert has(built, "-p", "2")


def test_flags_with_a_value(command: Callable[..., list[str]]) -> None:
    """As in uWSGI's files; on its command line the value would name a file."""
    built = command(master=1, vacuum="true", M="yes", lazy_apps="no", enable_threads=0, p=1)
    for flag in ("--master", "--vacuum", "-M"):
        assert flag in built
        assert built[built.index(flag) + 1].startswith("-")
    assert "--lazy-apps" not in built
    assert "--enable-threads" not in built
    assert has(built, "-p", "1")
    with pytest.raises(EngineError, match="--thunder-lock takes no value: thunder_lock=True"):
        command(thunder_lock="always")


def test_defaults_can_be_turned_off_and_replaced(command: Callable[..., list[str]]) -> None:
    built = command(master=False, die_on_term=None, http_buffer_size=65536, threads=2)
    assert "--master" not in built
    assert "--die-on-term" not in built
    assert has(built, "--http-buffer-size", "65536")
    assert built.count("--http-buffer-size") == 1
    assert has(built, "--threads", "2")


def test_engines(command: Callable[..., list[str]]) -> None:
    built = command(gevent=100)
    assert has(built, "--gevent", "100")
    assert "--threads" not in built
    for engine in ("asyncio", "async"):
        built = command(**{engine: 100})
        assert has(built, f"--{engine}", "100")
        assert "--greenlet" in built
        assert "--threads" not in built


def test_a_reloader_that_is_given(command: Callable[..., list[str]]) -> None:
    command(debug=True, py_autoreload=3)
    assert os.environ["FLASK_UWSGI_WATCH_INTERVAL"] == "3"
    command(debug=True, python_autoreload=False)
    assert "FLASK_UWSGI_WATCH_INTERVAL" not in os.environ
    built = command(debug=True, lazy=False)
    assert has(built, "--python-autoreload", "1")
    assert "FLASK_UWSGI_WATCH_INTERVAL" not in os.environ


def test_debug_means_reloading_and_one_worker(command: Callable[..., list[str]]) -> None:
    built = command(debug=True, gevent=10, processes=4, cheaper=2)
    assert "--lazy" in built  # and in the worker a reloader of our own
    assert os.environ["FLASK_UWSGI_WATCH_INTERVAL"] == "1"
    assert "--python-autoreload" not in built
    assert "--processes" not in built
    assert "--cheaper" not in built
    assert "--need-app" not in built
    assert os.environ["FLASK_UWSGI_DEBUG"] == "true"


@pytest.mark.parametrize(
    ("kwargs", "fronts"),
    [
        ({}, ["--http localhost:5000"]),
        ({"host": None, "port": None}, ["--http localhost:5000"]),
        ({"host": "::1", "port": "80"}, ["--http [::1]:80"]),
        ({"https": ":8443,c,k"}, ["--https :8443,c,k"]),
        ({"https": ":8443,c,k", "port": 8080}, ["--http localhost:8080", "--https :8443,c,k"]),
        ({"http": ":80"}, ["--http :80"]),
        ({"http": [":80", ":81"]}, ["--http :80", "--http :81"]),
        ({"http": ":80", "port": 81}, ["--http localhost:81", "--http :80"]),
        ({"http_socket": ":80"}, ["--http-socket :80"]),
        ({"socket": "x.sock"}, ["--socket x.sock"]),
        ({"http": False, "socket": "x.sock"}, ["--socket x.sock"]),
    ],
)
def test_fronts(
    command: Callable[..., list[str]], kwargs: dict[str, Any], fronts: list[str]
) -> None:
    built = command(**kwargs)
    names = ("--http", "--https", "--http-socket", "--socket")
    assert [f"{a} {b}" for a, b in itertools.pairwise(built) if a in names] == fronts
    router = any("--http " in front or "--https " in front for front in fronts)
    assert ("--http-websockets" in built) == ("--http-buffer-size" in built) == router


def test_the_callers_own_loader_and_home(command: Callable[..., list[str]]) -> None:
    built = command(wsgi_file="x.py", callable="x", home="/somewhere")
    assert has(built, "--wsgi-file", "x.py")
    assert "--wsgi" not in built
    assert has(built, "--home", "/somewhere")
    assert "--virtualenv" not in built


def test_plugins_come_first() -> None:
    binary = UWSGIBinary("/usr/bin/uwsgi", frozenset(), THIS_PYTHON, ("http", "python3"))
    options = defaults.complete({"asyncio": 5, "plugin": "a", "plugins_dir": "d", "home": "/"})
    built = run.build_command(binary, Target(("--wsgi", "a:b")), options)
    assert built[1:7] == ["--plugins-dir", "d", "--plugin", "a", "--plugins", "http,python3"]


def test_the_command_is_printed(
    command: Callable[..., list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    built = command(debug=True, procname="my app")
    line = capsys.readouterr().out
    assert line == f"Running: FLASK_UWSGI_DEBUG=true {shlex.join(built)}\n"
    assert "'my app'" in line


def test_a_machine_that_does_not_know_localhost(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> str:
        raise socket.gaierror(socket.EAI_NONAME, name)

    monkeypatch.setattr(socket, "gethostbyname", fail)
    built = command()
    assert built[built.index("--http") + 1] == "127.0.0.1:5000"


@pytest.mark.parametrize(
    ("kwargs", "error", "text"),
    [
        ({"gevent": 10, "threads": 4}, EngineError, "gevent and threads=4 cannot be combined"),
        ({"asyncio": 10, "threads": 4}, EngineError, "asyncio and threads=4 cannot be combined"),
        ({"gevent": 10, "asyncio": 10}, EngineError, "gevent and asyncio cannot be combined"),
        ({"gevent": True}, EngineError, "gevent=100 instead of gevent=True"),
        ({"gevent": 1}, EngineError, "2 or more"),
        ({"proceses": 2}, EngineError, "no option --proceses: did you mean processes?"),
        ({"port": "http"}, EngineError, "port is 'http': it must be a whole number, 65535 at"),
        ({"port": 65536}, EngineError, "port is 65536: it must be"),
        ({"host": "no.invalid"}, EngineError, "host is 'no.invalid', which leads to no address"),
        ({"uwsgi_binary": "/no/such/uwsgi"}, UWSGINotFound, "neither an executable file"),
    ],
)
def test_errors(
    command: Callable[..., list[str]], kwargs: dict[str, Any], error: type, text: str
) -> None:
    with pytest.raises(error, match=text.replace("?", r"\?")):
        command(**kwargs)


@pytest.mark.parametrize(
    ("kwargs", "package", "error"),
    [
        ({"gevent": 10}, "gevent", GeventNotInstalled),
        ({"asyncio": 10}, "greenlet", AsyncioNotAvailable),
    ],
)
def test_packages_that_are_missing(
    command: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    kwargs: dict[str, Any],
    package: str,
    error: type,
) -> None:
    monkeypatch.setattr(keywords, "find_spec", lambda name: None if name == package else name)
    with pytest.raises(error, match=f"pip install {package}.*install-uwsgi"):
        command(**kwargs)


# Units: the binary


def fake_uwsgi(
    folder: Path, options: Sequence[str] = (), python: str = THIS_PYTHON, name: str = "uwsgi"
) -> Path:
    """A program that answers our probes as a uWSGI with these options would."""
    options = ["http", "http-websockets", "http-buffer-size", "master", *options]
    options += ["enable-threads", "die-on-term", "need-app", "threads", "virtualenv", "wsgi-file"]
    options += ["py-programname"]
    listing = "\n".join(f"    --{option}    help" for option in options)
    path = folder / name
    path.write_text(
        f'#!/bin/sh\ncase "$*" in *--python-version) echo {python};; *) echo "{listing}";; esac\n'
    )
    path.chmod(0o755)
    return path


@pytest.mark.parametrize(
    ("kwargs", "text"),
    [
        ({"gevent": 10}, "built without gevent: .*install-uwsgi --force"),
        ({"asyncio": 10}, "built without asyncio: .*install-uwsgi --force"),
        ({"https": ":1,c,k"}, "built without SSL .*libssl-dev.*install-uwsgi --force"),
    ],
)
def test_a_binary_that_lacks_something(
    command: Callable[..., list[str]], tmp_path: Path, kwargs: dict[str, Any], text: str
) -> None:
    with pytest.raises(EngineError, match=text):
        command(uwsgi_binary=fake_uwsgi(tmp_path, ["greenlet"]), **kwargs)


def test_a_binary_of_another_python(command: Callable[..., list[str]], tmp_path: Path) -> None:
    binary = fake_uwsgi(tmp_path, python="3.5.2")
    with pytest.raises(EngineError, match=r"embeds Python 3\.5\.2 .*install-uwsgi"):
        command(uwsgi_binary=binary)


def test_a_binary_that_does_not_run(command: Callable[..., list[str]], tmp_path: Path) -> None:
    binary = tmp_path / "uwsgi"
    binary.write_text("#!/bin/sh\necho cannot open shared object file >&2; exit 127\n")
    binary.chmod(0o755)
    with pytest.raises(EngineError, match=r"does not run .cannot open shared object file"):
        command(uwsgi_binary=binary)


def test_a_binary_with_plugins(command: Callable[..., list[str]], tmp_path: Path) -> None:
    """As Debian's: the options appear with the plugins that bring them."""
    tag = "python" + "".join(THIS_PYTHON.split(".")[:2])
    complete = fake_uwsgi(tmp_path, ["gevent"], name="complete")
    bare = tmp_path / "uwsgi"
    bare.write_text(
        textwrap.dedent(
            f"""\
            #!/bin/sh
            case "$2" in
              {tag},http,gevent_{tag}) shift; exec {complete} "$@";;
              {tag},http) shift; {complete} "$@" | grep -v gevent;;
              {tag}) shift; {complete} "$@" | grep -v -e gevent -e http;;
              "") echo "    --master  help";;
              *) echo UNABLE to load uWSGI plugin >&2; exit 1;;
            esac
            """
        )
    )
    bare.chmod(0o755)
    built = command(uwsgi_binary=bare, gevent=10)
    assert built[1:3] == ["--plugins", f"{tag},http,gevent_{tag}"]


def test_find_uwsgi_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    beside, path, named = (tmp_path / name for name in ("beside", "path", "named"))
    for folder in (beside, path, named):
        folder.mkdir()
        fake_uwsgi(folder)
    monkeypatch.setattr(sys, "executable", str(beside / "python"))
    monkeypatch.setattr(binaries.sysconfig, "get_path", lambda *_: str(tmp_path / "none"))
    monkeypatch.setenv("PATH", str(path))
    monkeypatch.setenv("FLASK_UWSGI_BINARY", str(named / "uwsgi"))
    argument = shutil.copy(named / "uwsgi", tmp_path / "argument")
    assert run.find_uwsgi(argument) == str(argument)
    assert run.find_uwsgi() == str(named / "uwsgi")
    monkeypatch.delenv("FLASK_UWSGI_BINARY")
    assert run.find_uwsgi() == str(beside / "uwsgi")
    (beside / "uwsgi").unlink()
    assert run.find_uwsgi() == str(path / "uwsgi")
    (path / "uwsgi").unlink()
    with pytest.raises(UWSGINotFound, match=r"no uWSGI beside.*install-uwsgi"):
        run.find_uwsgi()
    monkeypatch.setenv("FLASK_UWSGI_BINARY", "/gone/uwsgi")
    with pytest.raises(UWSGINotFound, match="FLASK_UWSGI_BINARY in the environment"):
        run.find_uwsgi()


# Units: where it does nothing


def test_inside_uwsgi_it_only_logs(
    command: Callable[..., list[str]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setitem(sys.modules, "uwsgi", object())
    with pytest.raises(IndexError):  # Nothing was run.
        command()
    assert "already running this module" in caplog.text


def test_under_a_flask_command_it_only_logs(
    command: Callable[..., list[str]], caplog: pytest.LogCaptureFixture
) -> None:
    os.environ["FLASK_RUN_FROM_CLI"] = "true"
    with pytest.raises(IndexError):
        command()
    assert "under the flask command" in caplog.text


# Units: which of its names a module binds only when it runs


@pytest.mark.parametrize(
    ("source", "at_import"),
    [
        ("app = 1", True),
        ("app: int = 1", True),
        ("from x import app", True),
        ("from x import y as app", True),
        ("from x import *", True),
        ("try:\n    app = 1\nexcept E:\n    pass", True),
        ("if x:\n    app = 1", True),
        ("if __name__ != '__main__':\n    app = 1", True),
        ("if __name__ == '__main__':\n    pass\nelse:\n    app = 1", True),
        ("if __name__ == '__main__':\n    app = 1", False),
        ("if '__main__' == __name__ and x:\n    app = 1", False),
        ("app = 1\nif __name__ == '__main__':\n    app = 2", False),
        ("app = None\ndef main():\n    global app\n    app = 1", False),
        ("if __name__ == '__main__':\n    def app(): pass", False),
        ("if __name__ == '__main__':\n    from x import y as app", False),
        ("app = 1\nif __name__ == '__main__':\n    app.run(app)", True),
    ],
)
def test_bindings(source: str, at_import: bool) -> None:
    import ast

    assert ("app" not in locate._bound_by_running(ast.parse(source))) is at_import


# For real


class Script:
    """A process of ours that becomes uWSGI, and the log that it writes."""

    def __init__(
        self,
        arguments: Sequence[str],
        cwd: Path,
        port: int,
        log: Path,
        python: str = sys.executable,
        package: str = str(ROOT),
    ) -> None:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("UWSGI_")}
        environment |= {"PYTHONPATH": package, "PORT": str(port)}
        # Tests edit scripts within the second in which they were compiled, by as many characters:
        # Python would take the bytecode for that of the new source.
        environment["PYTHONDONTWRITEBYTECODE"] = "1"
        environment.pop("FLASK_UWSGI_DEBUG", None)
        self.port = port
        self._log = log
        with log.open("wb") as output:
            self.process = subprocess.Popen(
                [python, *arguments],
                cwd=cwd,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def get(self, path: str = "/", tls: bool = False) -> str:
        """The page, as soon as it is served."""
        text = ""

        def fetch() -> bool:
            nonlocal text
            assert self.process.poll() is None, f"uWSGI ended:\n{self.log}"
            with contextlib.suppress(OSError, http.client.HTTPException):
                text = self.fetch(path, tls)
                return True
            return False

        wait_for(fetch, lambda: f"nothing is served:\n{self.log}")
        return text

    def fetch(self, path: str, tls: bool, timeout: float = 5) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        if tls:
            context = ssl._create_unverified_context()
            connection = http.client.HTTPSConnection(
                "127.0.0.1", self.port, timeout=timeout, context=context
            )
        with contextlib.closing(connection):
            connection.request("GET", path)
            response = connection.getresponse()
            body = response.read().decode()
            assert response.status == 200, f"{response.status} {body}\n{self.log}"
            return body

    def where(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.get())
        return answer

    def wait(self) -> int:
        return self.process.wait(DEADLINE)

    def stop(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(DEADLINE)


def wait_for(condition: Callable[[], bool], message: Callable[[], str]) -> None:
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, message()
        time.sleep(0.05)


@pytest.fixture(name="free_port")
def find_free_port() -> int:
    return free_port()


Start = Callable[..., Script]


@pytest.fixture
def start(tmp_path: Path, free_port: int) -> Iterator[Start]:
    """Start Python in a folder of tmp_path; what is left of it is killed at the end."""
    scripts: list[Script] = []

    def start(*arguments: str, cwd: str = ".", **more: str) -> Script:
        log = tmp_path / f"log{len(scripts)}"
        scripts.append(Script(arguments, tmp_path / cwd, free_port, log, **more))
        return scripts[-1]

    yield start
    for script in scripts:
        script.stop()


APP = '''\
"""The app of a test: it tells where it is."""
import json, os, sys
from flask import Flask
from flask_uwsgi_websocket.runner import run_uwsgi

def make(name):
    app = Flask(name)
    app.run = lambda **kwargs: run_uwsgi(app, host="127.0.0.1", port=os.environ["PORT"], **kwargs)

    @app.route("/")
    def where():
        return json.dumps({
            "name": name, "argv": sys.argv, "cwd": os.getcwd(), "path": sys.path,
            "prefix": sys.prefix, "python": sys.version.split()[0], "word": app.config.get("WORD"),
            "debug": os.environ.get("FLASK_UWSGI_DEBUG"), "pid": os.getpid(),
            "main": vars(sys.modules["__main__"]).get("__file__"),
        })

    return app
'''


def write(folder: Path, **files: str) -> None:
    """Write files; `__` in a name is a folder, and the extension is .py."""
    for name, source in files.items():
        path = folder / (name.replace("__", "/") + ".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(source))


def write_app(folder: Path, **files: str) -> None:
    (folder / "place").mkdir(exist_ok=True)
    (folder / "place" / "kit.py").write_text(APP)
    write(folder / "place", **files)


ECHO = """
    from kit import make
    thing = make(__name__)
    if __name__ == "__main__":
        thing.run()
"""


@pytest.mark.parametrize(
    ("cwd", "script"), [(".", "place/echo.py"), ("place", "echo.py"), ("other", None)]
)
def test_script_from_any_folder(start: Start, tmp_path: Path, cwd: str, script: str | None) -> None:
    write_app(tmp_path, echo=ECHO)
    (tmp_path / "other").mkdir()
    where = start(script or str(tmp_path / "place/echo.py"), cwd=cwd).where()
    assert where["name"] == "echo"
    assert os.path.realpath(where["cwd"]) == os.path.realpath(tmp_path / cwd)
    assert where["path"][0].rstrip("/") == str(tmp_path / "place")
    assert where["prefix"] == sys.prefix
    assert where["python"] == THIS_PYTHON


@pytest.mark.parametrize("name", ["my-app", "code", "2nd", "kit2"])
def test_script_whose_name_means_another_module(start: Start, tmp_path: Path, name: str) -> None:
    write_app(tmp_path)
    (tmp_path / "place" / "kit2").mkdir()  # A package goes before a module of its name.
    (tmp_path / "place" / "kit2" / "__init__.py").write_text("")
    (tmp_path / "place" / f"{name}.py").write_text(textwrap.dedent(ECHO))
    script = start(f"place/{name}.py")
    assert script.where()["name"].startswith("uwsgi_file_")


#: A folder whose name uWSGI would split, expand (by the environment, a file, another option), take
#: for a pattern or not decode.
ODD = "a b[1]'$x/at@(x)/$(HOME)/%d %(master)/café/*?\\"


@pytest.fixture
def odd(tmp_path: Path) -> Path:
    folder = tmp_path / ODD
    folder.mkdir(parents=True)
    return folder


def test_folder_with_odd_characters(start: Start, tmp_path: Path, odd: Path) -> None:
    write_app(tmp_path, echo=ECHO)
    (tmp_path / "place/my-app.py").write_text(textwrap.dedent(ECHO))
    (tmp_path / "place").rename(odd)
    assert start("echo.py", cwd=ODD).where()["name"] == "echo"
    where = start(str(odd / "echo.py")).where()
    assert where["name"] == "echo"
    assert where["path"][0].rstrip("/") == str(odd)
    # Its name cannot be imported.
    assert start("my-app.py", cwd=ODD).where()["path"][0].rstrip("/") == str(odd)


def test_virtualenv_and_package_in_a_folder_with_odd_characters(
    start: Start, tmp_path: Path, odd: Path
) -> None:
    """Also in debug mode, in which uWSGI imports a file of the package."""
    venv.create(odd)
    packages = next(odd.glob("lib/python*/site-packages"))
    (packages / "those.pth").write_text(sysconfig.get_path("purelib"))
    shutil.copy(run.find_uwsgi(), odd / "bin/uwsgi")
    (odd / "flask_uwsgi_websocket").symlink_to(ROOT / "flask_uwsgi_websocket")
    write_app(tmp_path, echo=ECHO.replace("run()", "run(debug=True)"))
    script = start("place/echo.py", python=str(odd / "bin/python"), package=str(odd))
    where = script.where()
    assert (where["name"], where["prefix"]) == ("echo", str(odd))
    assert where["word"] is None


def test_module_that_the_app_imports_back(start: Start, tmp_path: Path) -> None:
    """`from echo import thing` in views.py finds the app that is served, not a second one."""
    write_app(
        tmp_path,
        echo="""
            from kit import make
            thing = make(__name__)
            import views
            if __name__ == "__main__":
                thing.run()
        """,
        views="""
            from echo import thing
            thing.add_url_rule("/view", view_func=lambda: "view")
        """,
    )
    assert start("place/echo.py").get("/view") == "view"


def test_dash_m(start: Start, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        pkg__init="",
        pkg__sub__chat="""
            from kit import make
            from ..words import WORD
            talk = make(__name__)
            talk.config["WORD"] = WORD
            if __name__ == "__main__":
                talk.run()
        """,
        pkg__words="WORD = 'relative'",
    )
    where = start("-m", "pkg.sub.chat", cwd="place").where()
    assert (where["name"], where["word"]) == ("pkg.sub.chat", "relative")


def test_dash_m_package(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, pkg__web="from kit import make\napp = make(__name__)\n")
    (tmp_path / "place/pkg/__init__.py").write_text("")
    (tmp_path / "place/pkg/__main__.py").write_text(
        "from .web import app\nif __name__ == '__main__':\n    app.run()\n"
    )
    assert start("-m", "pkg", cwd="place").where()["name"] == "pkg.web"


def test_app_imported_from_another_module(start: Start, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        myapp="from kit import make\napp = make(__name__)\n",
        serve="""
            from myapp import app
            app.config["WORD"] = "set by the script"
            app.run()
        """,
    )
    script = start("place/serve.py")
    where = script.where()
    assert (where["name"], where["word"]) == ("myapp", "set by the script")
    assert "--wsgi serve:app" in script.log
    # The script has no __name__ guard: its run() was reached again, inside uWSGI.
    assert "uWSGI is already running this module" in script.log


IN_GUARD = """
    from kit import make
    if __name__ == "__main__":
        app = make("in guard")
        app.config["WORD"] = "guard"
        app.run()
        raise SystemExit("not reached")
"""
IN_FUNCTION = """
    import sys
    from kit import make
    def main():
        app = make("in function")
        app.config["WORD"] = "function"
        try:
            app.run()
        except BaseException:
            pass  # like a finally that returns
        return 3
    sys.exit(main())
"""
IN_ANOTHER_MODULE = """
    import holder
    holder.app.config["WORD"] = "another"
    if __name__ == "__main__":
        holder.app.run()
"""
GLOBAL = """
    from kit import make
    app = None
    def main():
        global app
        app = make("global")
        app.config["WORD"] = "global"
        app.run()
    if __name__ == "__main__":
        main()
"""


@pytest.mark.parametrize(
    ("source", "word"),
    [
        (IN_GUARD, "guard"),
        (IN_FUNCTION, "function"),
        (IN_ANOTHER_MODULE, "another"),
        (GLOBAL, "global"),
    ],
)
@pytest.mark.parametrize("module", [False, True])
def test_app_that_no_import_creates(
    start: Start, tmp_path: Path, source: str, word: str, module: bool
) -> None:
    write_app(tmp_path, x=source, holder="from kit import make\napp = make(__name__)\n")
    arguments = ["-m", "x"] if module else ["x.py"]
    where = start(*arguments, "--room", "two words", cwd="place").where()
    assert where["word"] == word
    assert where["argv"][1:] == ["--room", "two words"]
    assert where["main"] == str(tmp_path / "place/x.py")


def test_script_that_ends_before_it_runs_the_app(start: Start, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        x="""
            import sys
            from kit import make
            if "uwsgi" in sys.modules:
                sys.exit(1)
            make("x").run()
        """,
    )
    script = start("place/x.py")
    assert script.wait() != 0
    assert "ended without calling run() on it: create the app at the top level" in script.log


def test_arguments_reach_the_module(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, echo=ECHO)
    script = start("place/echo.py", "a", "b")
    assert script.where()["argv"][1:] == ["a", "b"]
    assert "--wsgi echo:thing" in script.log
    script.stop()
    where = start("place/echo.py", "a b", "").where()
    assert where["argv"][1:] == ["a b", ""]


def test_arguments_are_not_expanded(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, echo=ECHO)
    arguments = ["@(exec://touch${IFS}touched)", "@(/etc/hostname)", "$(HOME)", "%(master)", "é"]
    assert start("place/echo.py", *arguments).where()["argv"][1:] == arguments
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize(
    ("app", "host"), [("a@(exec://x):app", "localhost"), ("echo:app", "$(HOST)")]
)
def test_what_would_be_expanded_is_refused(
    command: Callable[..., list[str]], app: str, host: str
) -> None:
    with pytest.raises(EngineError, match="would expand"):
        command(app, host=host)


def test_the_command_is_printed_in_any_encoding(
    command: Callable[..., list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = io.TextIOWrapper(io.BytesIO(), "ascii", newline="\n")
    monkeypatch.setattr(sys, "stdout", output)
    command(procname="caf\xe9 \udcff")
    output.seek(0)
    assert "'caf\\xe9 \\udcff'" in output.read()


def test_without_a_script(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, myapp="from kit import make\napp = make(__name__)\n")
    script = start("-c", "from myapp import app; app.run()", cwd="place")
    assert script.where()["name"] == "myapp"
    script.stop()
    script = start("-c", "from kit import make; make('x').run()", cwd="place")
    assert script.wait() == 1
    assert "no module holds <Flask 'x'> in a variable" in script.log


def test_app_by_name(start: Start, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        myapp="from kit import make\napp = make(__name__)\n",
        x="""
            import os
            from flask_uwsgi_websocket.runner import run_uwsgi
            run_uwsgi("myapp:app", host="127.0.0.1", port=int(os.environ["PORT"]))
        """,
    )
    assert start("place/x.py").where()["name"] == "myapp"


def test_app_that_does_not_load(start: Start, tmp_path: Path) -> None:
    write_app(
        tmp_path,
        x="""
            from flask_uwsgi_websocket.runner import run_uwsgi
            run_uwsgi("missing:app", port=1)
        """,
    )
    script = start("place/x.py")
    assert script.wait() != 0
    assert "No module named 'missing'" in script.log


@pytest.mark.parametrize("options", ["gevent=10", "asyncio=10", "threads=4", "processes=2"])
def test_engines_serve(start: Start, tmp_path: Path, options: str) -> None:
    # From Python 3.12 on uWSGI's asyncio engine wants a loop, which the extension would set.
    loop = """
        import asyncio, sys
        if "uwsgi" in sys.modules:
            import uwsgi
            uwsgi.post_fork_hook = lambda: asyncio.set_event_loop(asyncio.new_event_loop())
    """
    source = textwrap.dedent(loop) + textwrap.dedent(ECHO).replace("run()", f"run({options})")
    write_app(tmp_path, echo=source)
    assert start("place/echo.py").where()["name"] == "echo"


def test_gevent_patched_before_run(start: Start, tmp_path: Path) -> None:
    """As GeventWebSocket.init_app does: probing and exec must still work."""
    source = "from gevent.monkey import patch_all\npatch_all()\n" + textwrap.dedent(ECHO)
    write_app(tmp_path, echo=source.replace("run()", "run(gevent=10)"))
    assert start("place/echo.py").where()["name"] == "echo"


def test_requests_beside_one_that_lasts(start: Start, tmp_path: Path) -> None:
    """With no engine and no number of threads given, a long request does not block the others."""
    view = "lambda: open('begun', 'x') and time.sleep(30)"
    slow = "import time\n" + textwrap.dedent(ECHO).replace(
        "if __name__", f"thing.add_url_rule('/slow', view_func={view})\nif __name__"
    )
    write_app(tmp_path, echo=slow)
    script = start("place/echo.py")
    script.get()
    with socket.create_connection(("127.0.0.1", script.port)) as slow_one:
        slow_one.sendall(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n")
        wait_for((tmp_path / "begun").exists, lambda: script.log)
        assert script.where()["name"] == "echo"


def test_sigterm_stops(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, echo=ECHO)
    script = start("place/echo.py")
    script.get()
    script.process.terminate()
    assert script.wait() == 0


def test_https(
    start: Start, tmp_path: Path, free_port: int, certificate: tuple[Path, Path]
) -> None:
    pair = ",".join(map(str, certificate))
    write_app(
        tmp_path,
        tls=f"""
            from kit import make
            from flask_uwsgi_websocket.runner import run_uwsgi
            app = make(__name__)
            if __name__ == "__main__":
                run_uwsgi(app, https="127.0.0.1:{free_port},{pair}")
        """,
    )
    script = start("place/tls.py")
    assert json.loads(script.get(tls=True))["name"] == "tls"
    assert "--http localhost" not in script.log


FACTORY = """
    from kit import make
    WORD = "one"
    if __name__ == "__main__":
        app = make("factory")
        app.config["WORD"] = WORD
        app.run(debug=True, processes=3)
"""
PLAIN = """
    from kit import make
    WORD = "one"
    app = make(__name__)
    app.config["WORD"] = WORD
    if __name__ == "__main__":
        app.run(debug=True, processes=3)
"""


@pytest.mark.parametrize(
    ("source", "options"), [(PLAIN, ""), (PLAIN, ", gevent=10"), (FACTORY, ", asyncio=10")]
)
def test_debug_reloads(start: Start, tmp_path: Path, source: str, options: str) -> None:
    """Also through a file that does not import, from which uWSGI alone does not recover."""
    source = textwrap.dedent(source).replace("processes=3", "processes=3" + options)
    write_app(tmp_path, echo=source)
    script = start("place/echo.py")
    where = script.where()
    assert (where["word"], where["debug"]) == ("one", "true")

    def mended() -> bool:
        with contextlib.suppress(AssertionError):  # 500 while no app is loaded
            return bool(script.where()["word"] == "three")
        return False

    def edit(text: str) -> None:
        time.sleep(1.5)  # The reloader must have seen the first file, by whole seconds.
        (tmp_path / "place/echo.py").write_text(text)

    edit(source.replace("one", "two"))
    wait_for(lambda: script.where()["word"] == "two", lambda: f"no reload:\n{script.log}")
    assert len({script.where()["pid"] for _ in range(10)}) == 1
    edit("this is no Python")
    wait_for(lambda: "invalid syntax" in script.log, lambda: f"no reload:\n{script.log}")
    edit(source.replace("one", "three"))
    wait_for(mended, lambda: f"no reload:\n{script.log}")


WEBSOCKET = """
    import os
    from kit import make
    from flask_uwsgi_websocket import GeventWebSocket
    app = make(__name__)
    websocket = GeventWebSocket(app)
    app.config["WORD"] = "one"

    @websocket.route("/echo")
    def echo(ws):
        for message in ws:
            ws.send(message)

    @app.route("/fail")
    def fail():
        raise LookupError("a view fails")

    if __name__ == "__main__":
        app.run(debug=True, gevent=10, host="127.0.0.1", port=int(os.environ["PORT"]))
"""


def test_a_reload_in_debug_mode_tells_clients_and_refuses_nobody(
    start: Start, tmp_path: Path
) -> None:
    write_app(tmp_path, echo=WEBSOCKET)
    script = start("place/echo.py")
    assert script.where()["word"] == "one"
    with contextlib.closing(RawClient(("127.0.0.1", script.port), PATIENCE)) as client:
        client.handshake("/echo")
        client.echo("hello")
        source = textwrap.dedent(WEBSOCKET).replace("one", "two")
        (tmp_path / "place/echo.py").write_text(source)
        assert client.read_close().code == 1012
        client.send(close_frame(1012))
    # The router goes on, for which each of these waits: a refused one would raise.
    wait_for(
        lambda: bool(json.loads(script.fetch("/", False, PATIENCE))["word"] == "two"),
        lambda: f"the old code is still there:\n{script.log}",
    )
    assert script.log.count("echo.py has changed") == 1


def test_the_log_of_debug_mode_has_the_traceback_of_a_view(start: Start, tmp_path: Path) -> None:
    write_app(tmp_path, echo=WEBSOCKET)
    script = start("place/echo.py")
    script.where()
    with pytest.raises(AssertionError, match="500 <!doctype html>"):
        script.fetch("/fail", False, PATIENCE)
    wait_for(lambda: "LookupError: a view fails" in script.log, lambda: script.log)
