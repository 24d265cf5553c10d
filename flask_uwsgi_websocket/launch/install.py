"""``install-uwsgi``: build uWSGI with every engine into this Python environment.

PyPI has uWSGI as source only. Its plain build has gevent's engine but neither asyncio's nor
greenlet's, and finds the header of neither package; this builds all three in, tells what is
missing on the machine before it takes the time, and starts the result on each engine.
"""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path
from socket import create_server

from ..exceptions import EngineError
from ..inspection import binaries
from ..inspection.binaries import ADD_SSL, INSTALL, UWSGIBinary, python_tag
from ..inspection.effects import version_of
from ..inspection.worker_rules import LOWEST_UWSGI

# As setup.py has it: 2.0.31 is the first that runs asyncio's engine on Python 3.13.
_LOWEST = LOWEST_UWSGI if sys.version_info < (3, 13) else (2, 0, 31)
_UWSGI = f"uwsgi>={'.'.join(map(str, _LOWEST))}"

_DEBIAN = "apt-get install"

_COMPILING = re.compile(r"^\s*\[thread \d+\]\[[^]]+\] (\S+)")

Say = Callable[[str], None]


def install_uwsgi(force: bool = False, say: Say = print) -> UWSGIBinary:
    """Make sure that this environment has a uWSGI with gevent, asyncio and greenlet.

    Nothing is done when it has one already, unless ``force``.

    :param say: is given each line about the progress.
    :raises EngineError: the machine lacks something, or the build or its result failed; the
        message names the remedy.
    """
    present = None if force else adequate_uwsgi()
    if present is not None:
        say(f"{present} is already there; --force builds it anew.")
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
    say(f"Built {binary} in {time.monotonic() - started:.0f} s.")
    return binary


def adequate_uwsgi() -> UWSGIBinary | None:
    """Return this environment's own uWSGI, if it has every engine and this Python."""
    with suppress(EngineError):
        if all(map(find_spec, ("gevent", "greenlet"))):
            return _inspect()
    return None


def _inspect() -> UWSGIBinary:
    """Inspect this environment's own uWSGI; EngineError when it has none, or less than we build."""
    path = binaries.installed_uwsgi()
    if path is None:
        raise EngineError(f"there is no uwsgi beside {sys.executable}")
    binary = binaries.inspect_uwsgi(path)
    binaries.check_python(binary)
    missing = [name for name in binaries.PLUGINS if name not in binary.options]
    if missing:
        raise EngineError(f"{path} was built without {', '.join(missing)}")
    if version_of(binary.version) < _LOWEST:
        raise EngineError(f"{path} is uWSGI {binary.version}, and not {_UWSGI}")
    return binary


def build_environment(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables with which pip builds the engines; EngineError without greenlet."""
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
    """Look for what the build needs, before it takes the time; EngineError has a remedy."""
    for reason in _reasons_not_to_build():
        raise EngineError(reason)
    if not compiles("#include <openssl/ssl.h>", ["ssl", "crypto"]):
        say(f"Without OpenSSL's headers uWSGI will have no SSL (--https). To have it: {ADD_SSL}")


def _reasons_not_to_build() -> Iterator[str]:
    if sys.platform == "win32":
        yield binaries.NO_WINDOWS
    if find_spec("pip") is None:
        yield (
            f"this Python environment has no pip: {sys.executable} -m ensurepip, or make the "
            f"environment with python -m venv"
        )
    if _externally_managed():
        yield (
            "this Python belongs to the operating system, which keeps pip out of it: make a "
            "virtualenv (python3 -m venv venv; . venv/bin/activate), install "
            "Flask-uWSGI-WebSocket into it, and run this again"
        )
    compiler = _compiler()
    if not _runs([*compiler, "--version"]):
        yield (
            f"no C compiler ({' '.join(compiler)} does not run): {_DEBIAN} gcc libc6-dev, or set "
            f"the environment variable CC"
        )
    missing = {what: package for what, package, shown in _needs() if not compiles(*shown)}
    if missing:
        yield (
            f"uWSGI cannot be built here, this is missing: {', '.join(missing)}. On Debian: "
            f"{_DEBIAN} {' '.join(missing.values())}"
        )


def compiles(source: str, libraries: Sequence[str] = ()) -> bool:
    """Return whether the C compiler builds what includes this and links these libraries."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "check.c")
        path.write_text(f"{source}\nint main(void) {{ return 0; }}\n")
        flags = os.environ.get("CFLAGS", "").split()
        links = [*os.environ.get("LDFLAGS", "").split(), *(f"-l{name}" for name in libraries)]
        includes = [f"-I{sysconfig.get_path(name)}" for name in ("include", "platinclude")]
        program = str(Path(folder, "check"))
        return _runs([*_compiler(), *flags, *includes, str(path), "-o", program, *links])


def _needs() -> Iterator[tuple[str, str, tuple[str, Sequence[str]]]]:
    """Yield what it is, Debian's package, and the #include and the libraries that show it."""
    # Debian's package is for Debian's Python; others bring their headers with them.
    python = f"python{python_tag()}-dev" if sys.base_prefix == "/usr" else "python3-dev"
    yield "the C library's headers", "libc6-dev", ("#include <stdio.h>", ())
    yield f"Python {python_tag()}'s headers (Python.h)", python, ("#include <Python.h>", ())
    if sys.platform == "linux":
        yield "crypt.h", "libcrypt-dev", ("#include <crypt.h>", ["crypt"])


def _compiler() -> list[str]:
    """Return the compiler that uWSGI's build takes."""
    return (os.environ.get("CC") or sysconfig.get_config_var("CC") or "gcc").split()


def _externally_managed() -> bool:
    """Return whether pip would refuse (PEP 668)."""
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
    """Run pip and tell what it compiles; EngineError with the end of its output if it fails."""
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
    with process:
        for line in process.stdout or ():
            last.append(line)
            if _COMPILING.match(line):
                compiled += 1
                if compiled % 25 == 0:
                    say(f"  {compiled} files compiled")
            elif "*** uWSGI linking ***" in line:
                say(f"  {compiled} files compiled, linking")
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
    """Inspect this environment's uWSGI and have it answer on each engine; else EngineError."""
    binary = _inspect()
    for engine, options in _MODES.items():
        with tempfile.TemporaryDirectory() as folder:
            answer = _answer(binary, options, Path(folder))
            if answer != f"{sys.prefix} {sys.version_info[:2]}":
                log = Path(folder, "log").read_text(errors="replace").rstrip()
                raise EngineError(
                    f"{binary.path} does not serve on {engine}: answer {answer!r}; its log:\n{log}"
                )
        say(f"  {engine} answers a request")
    return binary


def _answer(binary: UWSGIBinary, options: Sequence[str], folder: Path) -> str:
    """Start uWSGI in a folder, fetch a page, stop it."""
    Path(folder, "check.py").write_text(_CHECK)
    python, variables = binaries.interpreter(binary.path)
    # uWSGI serves a descriptor that it is handed: no port that another could take meanwhile. Closed
    # here, it is uWSGI's alone: a request waits in it for uWSGI, and fails with it.
    with create_server(("127.0.0.1", 0)) as listener, Path(folder, "log").open("wb") as log:
        port, number = listener.getsockname()[1], listener.fileno()
        process = subprocess.Popen(
            [
                *(binary.path, "--http-socket", f"fd://{number}", "--enable-threads", "--need-app"),
                *(*python, *options, "--wsgi-file", "check.py"),
            ],
            env=binaries.environment_without_options() | variables,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            pass_fds=[number],
        )
    connection = HTTPConnection("127.0.0.1", port, timeout=_START_SECONDS)
    try:
        connection.request("GET", "/")
        return connection.getresponse().read().decode(errors="replace")
    except (OSError, HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
        process.kill()
        process.wait()
