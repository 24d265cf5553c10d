"""Runs the user's script again inside uWSGI, as far as its ``app.run()``. Internal.

An app that a script builds inside ``if __name__ == "__main__":`` or in its ``main()`` is in no
module that uWSGI could import. So uWSGI runs the script itself, as ``__main__`` and with its
arguments, and takes the app on which the script calls ``run``; the rest of the script does not
run. Werkzeug's reloader runs scripts again in the same way.
"""

from __future__ import annotations

import importlib.util
import io
import json
import os
import sys
from collections.abc import Callable, Iterable
from types import CodeType
from typing import Any

#: Carries the script from the process that exec's to the uWSGI that it becomes.
SCRIPT_VARIABLE = "FLASK_UWSGI_SCRIPT"

#: What uWSGI is told to load.
APPLICATION = f"{__name__}:application()"

#: What to do about an app that cannot be found.
REMEDY = "create the app at the top level of a module and pass 'module:variable' to run()"

WSGIApplication = Callable[..., Iterable[bytes]]


class _AppReached(BaseException):
    """Ends the script; a BaseException so that ``except Exception`` does not swallow it."""


class _Replay:
    """The state of this process: it is running the script again; it has reached the app."""

    running = False
    app: WSGIApplication | None = None


def running() -> bool:
    """Return whether this process is running the script again."""
    return _Replay.running


def reached(app: WSGIApplication) -> None:
    """Take the app on which the script calls ``run``, and leave the script by an exception."""
    _Replay.app = app
    raise _AppReached


def describe(module: str | None, path: str) -> dict[str, str]:
    """Return the variable that tells :func:`application` which script to run, with its arguments.

    The module is what ``python -m`` ran; ``None`` for a script.
    """
    script = {"module": module, "path": path, "argv": [path, *sys.argv[1:]]}
    return {SCRIPT_VARIABLE: json.dumps(script)}


def application() -> WSGIApplication:
    """Return, to uWSGI, the app on which the script calls ``run``; RuntimeError if it does not."""
    script = json.loads(os.environ[SCRIPT_VARIABLE])
    sys.argv[:] = script["argv"]
    code, attributes = _load(script["module"], script["path"])
    namespace = vars(sys.modules["__main__"])
    namespace.update(attributes)
    _Replay.running = True
    try:
        exec(code, namespace)
    except (_AppReached, SystemExit):
        pass  # it may have caught ours and gone on to its sys.exit(), as after a server's end
    finally:
        _Replay.running = False
    if _Replay.app is None:
        raise RuntimeError(
            f"{script['path']} was run again inside uWSGI to find its app, but ended without "
            f"calling run() on it: {REMEDY}"
        )
    return _Replay.app


def _load(module: str | None, path: str) -> tuple[CodeType, dict[str, Any]]:
    """Return the script's code, and what Python sets in ``__main__`` before it runs it."""
    if module is None:
        with io.open_code(path) as file:
            code = compile(file.read(), path, "exec", dont_inherit=True)
        return code, {"__file__": path, "__spec__": None, "__package__": None}
    spec = importlib.util.find_spec(module)
    get_code = getattr(spec and spec.loader, "get_code", None)
    if spec is None or get_code is None:
        raise ImportError(f"no module {module!r} to run as the script", name=module)
    attributes = {
        "__file__": spec.origin,
        "__spec__": spec,
        "__package__": spec.parent,
        "__loader__": spec.loader,
    }
    return get_code(module), attributes
