"""uWSGI's options as ``app.run`` takes them, which is as keyword arguments.

``True`` is a bare flag, ``False`` and ``None`` leave one out (also one of the defaults in
:mod:`.defaults`), a list or tuple repeats it, underscores become dashes, and a trailing underscore
goes (``async_=100`` for a name that Python reserves). A flag, which takes no value, may also be
given as in uWSGI's files: ``master=1``, ``vacuum='false'``.

What uWSGI would refuse in few words, or in none, is refused here.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from importlib.util import find_spec
from typing import Any

from ..exceptions import AsyncioNotAvailable, EngineError, GeventNotInstalled
from ..helpers.engines import LOOPS
from ..inspection import binaries
from ..inspection import options as inspection
from ..inspection.binaries import ADD_SSL, INSTALL, UWSGIBinary
from ..inspection.findings import Surroundings
from ..inspection.options import FLAGS, OFF, ON, OPTIONAL, SHORT, spellings
from ..inspection.worker_rules import two_engines

#: uWSGI's names, without the dashes in front, to values.
Options = dict[str, Any]

#: Options that load plugins, which bring options of their own.
PLUGIN_LOADERS = spellings("plugins", "plugins-dir")


def spelling(keyword: str) -> str:
    """Return uWSGI's name for a keyword."""
    return keyword.rstrip("_").replace("_", "-")


def settled(name: str, value: Any) -> Any:
    """Return an option's value, for a flag True or False; EngineError if it means neither.

    uWSGI itself would take what else a flag was given for the name of a configuration file.
    """
    if SHORT.get(name, name) not in FLAGS or value is None:
        return value
    switch = str(value).lower()
    if switch not in (*ON, *OFF):
        raise EngineError(
            f"--{name} takes no value: {name.replace('-', '_')}=True instead of {value!r}, or "
            f"False to leave it out"
        )
    return switch in ON


def values(value: Any) -> Sequence[Any]:
    """Return what a value stands for: one, or as many as the option is repeated."""
    return value if isinstance(value, (list, tuple)) else (value,)


def number(value: Any) -> int:
    """Return an option's number; 0 for what is none, about which uWSGI will complain."""
    return inspection.integer(str(value))


def arguments(name: str, value: Any) -> list[str]:
    """Return one option as words for uWSGI, as often as it has values."""
    flag = f"-{name}" if len(name) == 1 else f"--{name}"
    words: list[str] = []
    for each in values(value):
        if each is True:
            words.append(flag)
        elif each is not None and each is not False:
            words += [f"{flag}={each}"] if name in OPTIONAL else [flag, str(each)]
    return words


def plugin_arguments(options: Options) -> list[str]:
    """Return what stands before the options that plugins bring; their folders go first."""
    names = sorted(options.keys() & PLUGIN_LOADERS, key=lambda name: not name.endswith("-dir"))
    return [word for name in names for word in arguments(name, options[name])]


def for_rules(options: Options) -> inspection.Options:
    """Return the options in the form of :mod:`..inspection`."""
    return inspection.Options.of(
        (SHORT.get(name, name), None if each is True else str(each))
        for name, value in options.items()
        for each in values(value)
    )


def check(options: Options) -> None:
    """Refuse options that contradict each other, or whose package is missing, by EngineError."""
    for engine in options.keys() & LOOPS:
        cores = options[engine]
        if cores is True or number(cores) < 2:
            raise EngineError(
                f"{engine} takes the number of connections that a worker serves at once, "
                f"2 or more: {engine}=100 instead of {engine}={cores!r}"
            )
    for finding in two_engines(for_rules(options), Surroundings()):
        raise EngineError(str(finding))
    for package, error in (("gevent", GeventNotInstalled), ("greenlet", AsyncioNotAvailable)):
        if package in options and find_spec(package) is None:
            raise error(f"{package} is not installed: pip install {package}, then {INSTALL}")


def check_binary(binary: UWSGIBinary, wanted: Iterable[str]) -> None:
    """Refuse options that the binary does not have, by an EngineError with the remedy."""
    binaries.check_python(binary)
    for option in wanted:
        if binary.knows(option):
            continue
        if option in binaries.PLUGINS:
            raise EngineError(f"{binary.path} was built without {option}: {binaries.BUILD_ONE}")
        if option in binaries.SSL:
            raise EngineError(f"{binary.path} was built without SSL and has no {option}: {ADD_SSL}")
        similar = get_close_matches(option, binary.options, n=1, cutoff=0.7)
        raise EngineError(
            f"{binary.path} has no option --{option}"
            + (f": did you mean {similar[0].replace('-', '_')}?" if similar else "")
            + f" (all its options: {shlex.quote(binary.path)} --help)"
        )


def check_taken_literally(text: str, what: str) -> None:
    """Refuse what uWSGI would expand, by an EngineError with the remedy."""
    if binaries.is_expanded(text):
        raise EngineError(
            f"{what} is {text!r}, in which uWSGI would expand $(...), @(...) or %(...): give it a "
            f"name without them"
        )
