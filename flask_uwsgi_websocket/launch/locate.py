"""Finds out which app uWSGI must load, and from where, for an app object. Internal.

=============================================  ====================================================
the app is                                     uWSGI gets
=============================================  ====================================================
a string ``module:variable``                   ``--wsgi module:variable``
a variable of ``python -m package.module``     ``--wsgi package.module:variable``
a variable of the script ``echo.py``           ``--wsgi echo:variable``: the name under which other
                                               modules import it, so that there is one copy and
                                               pickles name a module that exists
a variable of the script ``my-app.py``,        ``--wsgi-file``: the name cannot be imported, or
``test.py``                                    means another module
made inside ``if __name__ == "__main__":``,    the script again, see :mod:`.replay`
in a function, or held by no variable; or the
script has arguments or a path that uWSGI
would change
a variable of a module, and ``__main__`` is    ``--wsgi module:variable``
no script (``python -c``, a console)
=============================================  ====================================================

In every case ``sys.path`` begins with what it began with under ``python script.py`` or
``python -m``, and the working directory stays.
"""

from __future__ import annotations

import ast
import os
import site
import sys
import sysconfig
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.machinery import PathFinder
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from ..exceptions import EngineError
from ..inspection.binaries import is_plain
from . import replay

#: Modules that uWSGI brings.
_OF_UWSGI = ("uwsgi", "uwsgidecorators")


@dataclass(frozen=True)
class Target:
    """An app, as uWSGI is told of it.

    :param arguments: the command line options that name it.
    :param python_path: folders to put in front of ``sys.path``.
    :param environment: variables that must be set.
    """

    arguments: tuple[str, ...]
    python_path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def locate(app: Any) -> Target:
    """Find out how uWSGI loads a WSGI application, or what a string ``module:variable`` names.

    :raises EngineError: no module holds it and there is no script to run again.
    """
    if isinstance(app, str):
        return _named(app)
    main = sys.modules["__main__"]
    script = _Script.of(main)
    if script is not None:
        variable = _variable(main, app)
        if variable is not None:
            return script.variable(variable)
        return script.again()
    target = module_variable(app)
    if target is None:
        raise EngineError(
            f"no module holds {app!r} in a variable, and this process runs no script: "
            f"{replay.REMEDY}"
        )
    return target


def module_variable(app: Any) -> Target | None:
    """Find the module that holds an app; ``None`` when no imported one does."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and isinstance(module, ModuleType):
            variable = _variable(module, app)
            if variable is not None:
                return _in_module(module, variable)
    return None


@dataclass(frozen=True)
class _Script:
    """The script of ``__main__``: its absolute path, and its module if ``python -m`` ran it."""

    path: Path
    module: str | None

    @classmethod
    def of(cls, main: ModuleType) -> _Script | None:
        """Return ``None`` for a console, ``python -c``, a zip file and all else without source."""
        file = getattr(main, "__file__", None)
        if file is None or _source(file) is None:
            return None
        spec = main.__spec__
        # "python folder" and "python app.zip" run a __main__ that has no importable name.
        module = None if spec is None or spec.name == "__main__" else spec.name
        return cls(Path(os.path.abspath(file)), module)

    @property
    def root(self) -> str:
        """The folder from which its own imports are found: sys.path[0] when it started."""
        return str(self.path.parents[self.module.count(".") if self.module else 0])

    @property
    def python_path(self) -> tuple[str, ...]:
        """The root, unless a fresh interpreter looks there anyway."""
        return _unless_site(self.root)

    def variable(self, variable: str) -> Target:
        """Have uWSGI import the script, which has the app in a variable."""
        arguments = _script_arguments()
        name = self.module or self._import_name()
        if arguments is None or not (name or is_plain(str(self.path))):
            return self.again()
        loader: tuple[str, ...] = ("--wsgi", f"{name}:{variable}")
        if name is None:
            loader = ("--wsgi-file", str(self.path), "--callable", variable)
        return Target((*loader, *arguments), self.python_path)

    def again(self) -> Target:
        """Have uWSGI run the script as ``__main__``, which makes the app only then."""
        return Target(
            ("--wsgi", replay.APPLICATION),
            self.python_path,
            replay.describe(self.module, str(self.path)),
        )

    def _import_name(self) -> str | None:
        """Return the name under which the script imports as itself, if any."""
        name = self.path.stem
        # Python's own may be imported before the script's folder is on sys.path.
        if not name.isidentifier() or name in sys.stdlib_module_names or name in _OF_UWSGI:
            return None
        spec = PathFinder.find_spec(name, [self.root])  # A package of that name goes first.
        found = spec is not None and spec.origin is not None and self.path.samefile(spec.origin)
        return name if found else None


def project_files() -> list[str]:
    """Return the sources of the imported modules that are neither installed nor Python's own."""
    paths = sysconfig.get_paths()
    python = {os.path.realpath(paths[name]) for name in ("stdlib", "platstdlib")}
    folders = tuple(os.path.join(folder, "") for folder in python | _site_folders())
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    sources = {os.path.abspath(f) for f in files if isinstance(f, str) and f.endswith(".py")}
    return sorted(f for f in sources if not os.path.realpath(f).startswith(folders))


def _named(name: str) -> Target:
    """Look for ``module:variable`` from where this process finds its own modules."""
    script = _Script.of(sys.modules["__main__"])
    roots = [os.getcwd()] if script is None else [*script.python_path, os.getcwd()]
    return Target(("--wsgi", name), tuple(dict.fromkeys(roots)))


def _in_module(module: ModuleType, variable: str) -> Target:
    name = module.__spec__.name if module.__spec__ else module.__name__
    python_path: tuple[str, ...] = ()
    file = getattr(module, "__file__", None)
    if file is not None:
        path = Path(os.path.abspath(file))
        depth = name.count(".") + (path.stem == "__init__")
        root = str(path.parents[depth])
        if root in map(os.path.abspath, sys.path):
            python_path = _unless_site(root)
    return Target(("--wsgi", f"{name}:{variable}"), python_path)


def _script_arguments() -> tuple[str, ...] | None:
    """Give the script's arguments as an option; ``None`` when uWSGI would change them.

    It splits at blanks, besides what it does to the value of any option.
    """
    arguments = sys.argv[1:]
    if any(len(argument.split()) != 1 or not is_plain(argument) for argument in arguments):
        return None
    return ("--pyargv", " ".join(arguments)) if arguments else ()


def _unless_site(folder: str) -> tuple[str, ...]:
    """Leave out what a fresh interpreter has on sys.path, behind the standard library."""
    return () if os.path.realpath(folder) in _site_folders() else (folder,)


def _site_folders() -> set[str]:
    paths = sysconfig.get_paths()
    folders = (paths["purelib"], paths["platlib"], site.getusersitepackages())
    return {os.path.realpath(folder) for folder in (*folders, *site.getsitepackages())}


def _variable(module: ModuleType, app: Any) -> str | None:
    """Return the variable in which importing the module puts the app, if there is one."""
    names = [name for name, value in list(vars(module).items()) if value is app]
    file = getattr(module, "__file__", None)
    source = _source(file) if names and file is not None else None
    elsewhere = set() if source is None else _bound_by_running(source)
    return next((name for name in names if name not in elsewhere), None)


def _source(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


def _bound_by_running(source: ast.Module) -> set[str | None]:
    """Return the names that may have another value, or none, when the module is only imported.

    They are bound under ``if __name__ == "__main__":``, or ``global`` in a function. One too many
    costs nothing but that the script runs again.
    """
    names: set[str | None] = set()
    for node in ast.walk(source):
        if isinstance(node, ast.Global):
            names.update(node.names)
        elif isinstance(node, ast.If) and _is_main_guard(node.test):
            for inner in chain(*map(ast.walk, node.body)):
                if not isinstance(getattr(inner, "ctx", None), ast.Load):
                    names.update(getattr(inner, field, None) for field in ("id", "name", "asname"))
    return names


def _is_main_guard(test: ast.expr) -> bool:
    text = ast.dump(test)
    return "'__main__'" in text and "NotEq()" not in text
