"""``flask websocket doctor``: put together what a uWSGI would run with, and say what hurts."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..exceptions import EngineError
from ..inspection import binaries, processes, sources
from ..inspection.binaries import UWSGIBinary
from ..inspection.effects import version_of
from ..inspection.findings import Finding, Severity, Surroundings
from ..inspection.options import Options
from ..inspection.processes import Process
from ..inspection.rules import judge
from ..inspection.sources import Instance
from .backplane import examine_backplane

Say = Callable[[str], None]


def of_command(words: Sequence[str], binary: str | None) -> Process:
    """Take words from the terminal: options, files, or a whole command of uWSGI's."""
    words = list(words)
    if words and Path(words[0]).name.startswith(("uwsgi", "pyuwsgi")) and not Path(words[0]).suffix:
        binary = binary or words[0]
        del words[0]
    return Process(binary, words, dict(os.environ), Path.cwd())


def of_process(pid: int, binary: str | None) -> Process:
    """Take a uWSGI that runs; ConfigError when it cannot be looked at."""
    process = processes.look_at(pid)
    return replace(process, pid=pid, binary=binary or process.binary)


def examine(process: Process, app: Any, say: Say) -> bool:
    """Say what was found; return whether nothing is wrong. ConfigError for unreadable options.

    :param app: the Flask app, or None.
    """
    binary = _examine_binary(process, say)
    if process.unit:
        say(f"note: {process.hidden}; these are from {process.unit}.")
    around = _surroundings(process, binary, app)
    severities: set[Severity] = set() if binary else {Severity.ERROR}
    for instance in _read(process, binary.options if binary else frozenset()):
        if instance.name:
            say(f"{instance.name}:")
            # The app at hand need not be this vassal's.
            around = replace(around, engine=None, vassal=True)
        for finding in judge(instance.options, around):
            severities.add(finding.severity)
            say(_told(finding))
        for note in (*instance.notes, *_doubts(instance.options)):
            say(f"note: {note}.")
    if app is not None and app.extensions.get("uwsgi_websocket"):
        severities |= set() if examine_backplane(app, process.pid, say) else {Severity.ERROR}
    if process.hidden and not process.unit:
        remedy = "name what it was started with, as in 'flask websocket doctor app.ini'"
        say(f"error: {process.hidden}: {remedy}.")
        return False
    if severities & {Severity.ERROR, Severity.WARNING}:
        return False
    say("Nothing is wrong." if severities else "Nothing found.")
    return True


def _examine_binary(process: Process, say: Say) -> UWSGIBinary | None:
    try:
        binary = binaries.inspect_uwsgi(binaries.find_uwsgi(process.binary), binaries.PLUGINS)
        say(str(binary))
        if process.pid is None:
            binaries.check_python(binary)
    except EngineError as error:
        say(f"error: {error}.")
        return None
    missing = [name for name in binaries.PLUGINS if name not in binary.options]
    if missing:
        say(f"  without {', '.join(missing)}: {binaries.BUILD_ONE}")
    return binary


def _surroundings(process: Process, binary: UWSGIBinary | None, app: Any) -> Surroundings:
    around = Surroundings(
        descriptors=process.descriptors,
        version=version_of(binary.version) or None if binary else None,
        features=binary.options if binary else None,
        vassal="UWSGI_EMPEROR_FD" in process.environment,
    )
    extensions = app.extensions.get("uwsgi_websocket", ()) if app is not None else ()
    if extensions:
        engines = {extension.middleware.engine_name for extension in extensions}
        around = replace(
            around,
            engine=engines.pop() if len(engines) == 1 else None,
            timeout=max(extension.timeout for extension in extensions),
            ping_interval=app.config["UWSGI_WEBSOCKET_PING_INTERVAL"],
            backplane=app.config["UWSGI_WEBSOCKET_BACKPLANE"] or "local://",
        )
    return around


def _read(process: Process, known: frozenset[str]) -> list[Instance]:
    named = any(name.startswith("UWSGI_") for name in process.environment)
    if not process.words and not named:
        return [Instance("", Options({}, complete=False))]
    return sources.read(process.words, process.environment, process.folder, known)


def _doubts(options: Options) -> Iterator[str]:
    for name in sorted(options.doubts):
        yield f"{name} = {options.written(name)}: not known from here, and not judged"


def _told(finding: Finding) -> str:
    remedy = finding.remedy[0].upper() + finding.remedy[1:]
    return f"{finding.severity.value}: {finding.found}: {finding.why}.\n  {remedy}."
