"""What is refused before uWSGI starts, which would say less of it, or nothing."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from difflib import get_close_matches
from importlib.util import find_spec

from ..exceptions import AsyncioNotAvailable, EngineError, GeventNotInstalled
from ..helpers.engines import LOOPS
from ..inspection.binary import (
    ADD_SSL,
    BUILD_ONE,
    INSTALL,
    PLUGINS,
    SSL,
    UWSGIBinary,
    check_python,
    is_expanded,
)
from ..inspection.findings import Surroundings
from ..inspection.worker_rules import two_engines
from .keywords import Options, for_rules, number


def check(options: Options) -> None:
    """Refuse options that contradict each other, or need a package that is not installed.

    :raises EngineError: with the remedy.
    """
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
    """Refuse options that the binary does not have.

    :raises EngineError: with the remedy.
    """
    check_python(binary)
    for option in wanted:
        if binary.knows(option):
            continue
        if option in PLUGINS:
            raise EngineError(f"{binary.path} was built without {option}: {BUILD_ONE}")
        if option in SSL:
            raise EngineError(f"{binary.path} was built without SSL and has no {option}: {ADD_SSL}")
        similar = get_close_matches(option, binary.options, n=1, cutoff=0.7)
        raise EngineError(
            f"{binary.path} has no option --{option}"
            + (f": did you mean {similar[0].replace('-', '_')}?" if similar else "")
            + f" (all its options: {shlex.quote(binary.path)} --help)"
        )


def check_taken_literally(text: str, what: str) -> None:
    """Refuse what uWSGI would expand.

    :raises EngineError: with the remedy.
    """
    if is_expanded(text):
        raise EngineError(
            f"{what} is {text!r}, in which uWSGI would expand $(...), @(...) or %(...): give it a "
            f"name without them"
        )
