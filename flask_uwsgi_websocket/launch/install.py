"""``install-uwsgi``: build uWSGI with every engine into this Python environment.

PyPI has uWSGI as source only. Its plain build has gevent's engine but neither asyncio's nor
greenlet's, and finds the header of neither package; this builds all three in, tells what is
missing on the machine before it takes the time, and starts the result on each engine.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import re
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

from ..exceptions import EngineError
from ..inspection.binary import (
    INSTALL,
    UWSGIBinary,
    check_python,
    inspect_uwsgi,
    installed_uwsgi,
    interpreter,
)

ENGINES = ("gevent", "asyncio", "greenlet")

# What setup.py requires: 2.0.31 is the first that runs asyncio's engine on Python 3.13.
_UWSGI = "uwsgi>=2.0.31"

_DEBIAN = "apt-get install"

# On an idle machine of 2 cores a build takes 17 s; one core of a busy or emulated one, minutes.
_BUILD_SECONDS = 1800.0

_COMPILING = re.compile(r"^\s*\[thread \d+\]\[[^]]+\] (\S+)")
_LINKING = re.compile(r"\*\*\* uWSGI linking \*\*\*")

Say = Callable[[str], None]


def install_uwsgi(force: bool = False, say: Say = print) -> UWSGIBinary:
    """Make sure that this environment has a uWSGI with gevent, asyncio and greenlet.

    Nothing is done when it has one already, unless ``force``.

    :param force: build also when an adequate uWSGI is there.
    :param say: is given each line about the progress.
    :returns: the binary, verified.
    :raises EngineError: the machine lacks something, or the build or its result failed; the
        message names the remedy.
    """
    if not force:
        present = adequate_uwsgi()
        if present is not None:
            say(f"{describe(present)} is already there; --force builds it anew.")
            return present
    check_machine(say)
    started = time.monotonic()
    say(f"Installing gevent and greenlet into {sys.prefix}")
    _pip(["install", "greenlet>=3", "gevent>=23.9"], {}, say)
    say("Building uWSGI with gevent, asyncio and greenlet, which takes up to a few minutes")
    # --no-cache-dir: pip would take a plain uWSGI that it once built, even with --no-binary.
    options = ["--no-cache-dir", "--no-binary", "uwsgi", "--force-reinstall", "--no-deps"]
    _pip(["install", "-v", *options, _UWSGI], build_environment(), say)
    say("Checking the result")
    binary = verify(say)
    say(f"Built {describe(binary)} in {time.monotonic() - started:.0f} s.")
    return binary


def adequate_uwsgi() -> UWSGIBinary | None:
    """This environment's own uWSGI, if it has every engine and this Python."""
    path = installed_uwsgi()
    if path is None or any(find_spec(name) is None for name in ("gevent", "greenlet")):
        return None
    try:
        binary = inspect_uwsgi(path)
        check_python(binary)
    except EngineError:
        return None
    return binary if binary.options.issuperset(ENGINES) else None


def describe(binary: UWSGIBinary) -> str:
    """A binary in a few words: where it is and what it can do."""
    parts = [f"uWSGI {binary.version}"] if binary.version else []
    parts += [f"Python {binary.python}", *(name for name in ENGINES if name in binary.options)]
    parts.append("SSL" if "https" in binary.options else "no SSL, so no --https")
    return f"{binary.path} ({', '.join(parts)})"


def build_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """The environment in which pip builds uWSGI with the engines.

    :raises EngineError: greenlet is not installed.
    """
    importlib.invalidate_caches()
    greenlet = find_spec("greenlet")
    if greenlet is None or greenlet.origin is None:
        raise EngineError(f"greenlet is not installed: pip install greenlet, then {INSTALL}")
    # greenlet.h lies in the package; uWSGI does not look there. Not in CFLAGS, which uWSGI's build
    # splits at blanks: compilers look in the folders of CPATH, too.
    include = str(Path(greenlet.origin).parent.parent)
    return {
        # uWSGI's default profile has gevent; these come on top.
        "UWSGI_EMBED_PLUGINS": "asyncio,greenlet",
        "CPATH": os.pathsep.join(filter(None, (include, environment.get("CPATH")))),
    }


# Before the build


def check_machine(say: Say = print) -> None:
    """Look for what the build needs, before it takes the time.

    :raises EngineError: with all that is missing and Debian's command for it.
    """
    if sys.platform == "win32":
        raise EngineError("uWSGI does not run on Windows: use the Windows Subsystem for Linux")
    if find_spec("pip") is None:
        raise EngineError(
            f"this Python environment has no pip: {sys.executable} -m ensurepip, or make the "
            f"environment with python -m venv"
        )
    if _externally_managed():
        raise EngineError(
            "this Python belongs to the operating system, which keeps pip out of it: make a "
            "virtualenv (python3 -m venv venv; . venv/bin/activate), install "
            "Flask-uWSGI-WebSocket into it, and run this again"
        )
    compiler = _compiler()
    if not _runs([*compiler, "--version"]):
        raise EngineError(
            f"no C compiler ({' '.join(compiler)} does not run): {_DEBIAN} gcc libc6-dev, or set "
            f"the environment variable CC"
        )
    missing = [
        (what, package)
        for what, package, source, libraries in _needs()
        if not compiles(source, libraries)
    ]
    if missing:
        raise EngineError(
            f"uWSGI cannot be built here, this is missing: "
            f"{', '.join(what for what, _ in missing)}. On Debian: "
            f"{_DEBIAN} {' '.join(package for _, package in missing)}"
        )
    if not compiles("#include <openssl/ssl.h>", ["ssl", "crypto"]):
        say(
            f"Without OpenSSL's headers uWSGI will have no SSL (--https). To have it, on Debian: "
            f"{_DEBIAN} libssl-dev, then {INSTALL} --force"
        )


def compiles(source: str, libraries: Sequence[str] = ()) -> bool:
    """Whether the C compiler makes a program that includes this and links these libraries."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "check.c")
        path.write_text(f"{source}\nint main(void) {{ return 0; }}\n")
        flags = os.environ.get("CFLAGS", "").split()
        links = [*os.environ.get("LDFLAGS", "").split(), *(f"-l{name}" for name in libraries)]
        includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
        program = str(Path(folder, "check"))
        return _runs([*_compiler(), *flags, *includes, str(path), "-o", program, *links])


def _needs() -> list[tuple[str, str, str, Sequence[str]]]:
    """What it is, Debian's package, an #include that shows it, libraries that show it."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    # Debian's package is for Debian's Python; others bring their headers with them.
    python = f"python{version}-dev" if sys.base_prefix == "/usr" else "python3-dev"
    needs: list[tuple[str, str, str, Sequence[str]]] = [
        ("the C library's headers", "libc6-dev", "#include <stdio.h>", ()),
        (f"Python {version}'s headers (Python.h)", python, "#include <Python.h>", ()),
    ]
    if sys.platform == "linux":
        needs.append(("crypt.h", "libcrypt-dev", "#include <crypt.h>", ["crypt"]))
    return needs


def _compiler() -> list[str]:
    """The compiler that uWSGI's build takes."""
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()


def _externally_managed() -> bool:
    """Whether pip would refuse (PEP 668)."""
    if sys.prefix != sys.base_prefix or os.environ.get("PIP_BREAK_SYSTEM_PACKAGES"):
        return False
    return Path(sysconfig.get_path("stdlib"), "EXTERNALLY-MANAGED").exists()


def _runs(command: Sequence[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=60).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False


# The build


def _pip(arguments: Sequence[str], environment: Mapping[str, str], say: Say) -> None:
    """Run pip, tell what it compiles.

    :raises EngineError: pip failed; with the end of what it wrote.
    """
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", *arguments]
    process = subprocess.Popen(
        command,
        env={**os.environ, **environment, "PYTHONUNBUFFERED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    last: deque[str] = deque(maxlen=60)
    compiled = 0
    deadline = time.monotonic() + _BUILD_SECONDS
    with process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last.append(line)
                if _COMPILING.match(line):
                    compiled += 1
                    if compiled % 25 == 0:
                        say(f"  {compiled} files compiled")
                elif _LINKING.search(line):
                    say(f"  {compiled} files compiled, linking")
                if time.monotonic() > deadline:
                    raise EngineError(f"pip did not end within {_BUILD_SECONDS / 60:.0f} minutes")
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise EngineError(
            f"{' '.join(command[1:])} failed with status {process.returncode}; "
            f"its last words:\n{''.join(last).rstrip()}"
        )


# After the build

_CHECK = """\
import sys
import uwsgi
if uwsgi.opt.get("asyncio"):
    import asyncio
    # From Python 3.12 on the engine finds no loop of its own.
    uwsgi.post_fork_hook = lambda: asyncio.set_event_loop(asyncio.new_event_loop())
def application(environ, start_response):
    start_response("200 OK", [])
    return [("%s %s" % (sys.prefix, sys.version_info[:2])).encode()]
"""

# Each engine's command line options.
_MODES: dict[str, Sequence[str]] = {
    "threads": ("--threads", "4"),
    "gevent": ("--gevent", "4"),
    "asyncio": ("--asyncio", "4", "--greenlet"),
}

_START_SECONDS = 30.0


def verify(say: Say = print) -> UWSGIBinary:
    """Inspect this environment's uWSGI and have it answer a request on each engine.

    :raises EngineError: something is missing, or an engine does not answer.
    """
    path = installed_uwsgi()
    if path is None:
        raise EngineError(f"there is no uwsgi beside {sys.executable} after the build")
    binary = inspect_uwsgi(path)
    check_python(binary)
    missing = [name for name in ENGINES if name not in binary.options]
    if missing:
        raise EngineError(f"{path} was built without {', '.join(missing)}")
    for engine, options in _MODES.items():
        _request(binary, engine, options)
        say(f"  {engine} answers a request")
    return binary


def _request(binary: UWSGIBinary, engine: str, options: Sequence[str]) -> None:
    """Start uWSGI on an engine, fetch a page, stop it."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as listener:
        Path(folder, "check.py").write_text(_CHECK)
        listener.bind(("127.0.0.1", 0))
        listener.listen(8)
        # uWSGI serves a descriptor that it is handed: no port that another could take meanwhile.
        listening = f"fd://{listener.fileno()}"
        python, variables = interpreter(binary.path)
        log = Path(folder, "log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                [
                    *(binary.path, "--http-socket", listening, "--enable-threads", "--need-app"),
                    *(*python, *options, "--wsgi-file", "check.py"),
                ],
                env={k: v for k, v in os.environ.items() if not k.startswith("UWSGI_")} | variables,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                pass_fds=[listener.fileno()],
            )
        try:
            answer = _fetch(listener.getsockname()[1], process)
        finally:
            process.kill()
            process.wait()
        if answer != f"{sys.prefix} {sys.version_info[:2]}":
            said = log.read_text(errors="replace").rstrip()
            raise EngineError(
                f"{binary.path} does not serve on {engine}: answer {answer!r}; its log:\n{said}"
            )


def _fetch(port: int, process: subprocess.Popen[bytes]) -> str | None:
    """The page, or ``None`` when the process ends or the time is up."""
    direct = build_opener(ProxyHandler({}))
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        # Connections to the listening socket wait in its backlog until uWSGI accepts them.
        with (
            contextlib.suppress(URLError, OSError),
            direct.open(f"http://127.0.0.1:{port}/", timeout=1) as response,
        ):
            return str(response.read(), "utf-8", "replace")
    return None
