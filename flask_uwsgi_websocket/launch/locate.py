"""Which app uWSGI must load, and from where: from an app object to command line options. Internal.

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
from pathlib import Path
from types import ModuleType
from typing import Any

from ..exceptions import EngineError
from ..inspection.binary import is_plain
from . import replay


@dataclass(frozen=True)
class Target:
    """What to tell uWSGI about the app.

    :param arguments: the command line options that name it.
    :param python_path: folders to put in front of ``sys.path``.
    :param environment: variables that must be set.
    """

    arguments: tuple[str, ...]
    python_path: tuple[str, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


def locate(app: Any) -> Target:
    """Find out how uWSGI loads an app.

    :param app: a WSGI application such as a Flask app, or a string ``module:variable``.
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
            f"no module holds {app!r} in a variable, and this process runs no script: create the "
            f"app at the top level of a module and pass 'module:variable' to run()"
        )
    return target


def module_variable(app: Any) -> Target | None:
    """How uWSGI imports an app that an imported module holds; ``None`` when none does."""
    for name, module in list(sys.modules.items()):
        if name != "__main__" and isinstance(module, ModuleType):
            variable = _variable(module, app)
            if variable is not None:
                return _in_module(module, variable)
    return None


@dataclass(frozen=True)
class _Script:
    """What ``__main__`` was started from.

    :param path: its file, absolute.
    :param module: its name under ``python -m``, else ``None``.
    """

    path: Path
    module: str | None

    @classmethod
    def of(cls, main: ModuleType) -> _Script | None:
        """``None`` for a console, ``python -c``, a zip file and whatever else has no source."""
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

    def variable(self, variable: str) -> Target:
        """Its module has the app in a variable."""
        arguments = _script_arguments()
        if arguments is None:
            return self.again()
        name = self.module or self._import_name()
        loader: tuple[str, ...] = ("--wsgi", f"{name}:{variable}")
        if name is None:
            if not is_plain(str(self.path)):
                return self.again()
            loader = ("--wsgi-file", str(self.path), "--callable", variable)
        return Target((*loader, *arguments), self.python_path)

    def again(self) -> Target:
        """Its module gets the app only when it runs as ``__main__``."""
        return Target(
            ("--wsgi", replay.APPLICATION),
            self.python_path,
            replay.describe(self.module, str(self.path)),
        )

    def _import_name(self) -> str | None:
        """The name under which the script imports as itself, if any."""
        name = self.path.stem
        taken = name in sys.stdlib_module_names or name in sys.builtin_module_names
        # uWSGI brings modules of its own, and starts with some of Python's imported.
        if not name.isidentifier() or taken or name in ("uwsgi", "uwsgidecorators"):
            return None
        imported = getattr(sys.modules.get(name), "__file__", None)
        if name in sys.modules and (imported is None or not self.path.samefile(imported)):
            return None
        spec = PathFinder.find_spec(name, [self.root])  # A package of that name goes first.
        if spec is None or spec.origin is None or not self.path.samefile(spec.origin):
            return None
        return name

    @property
    def python_path(self) -> tuple[str, ...]:
        return () if _is_site_folder(self.root) else (self.root,)


def project_files() -> list[str]:
    """The source files of the imported modules that are neither installed nor Python's own."""
    paths = sysconfig.get_paths()
    others = [paths[name] for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    others += [*site.getsitepackages(), site.getusersitepackages()]
    folders = tuple(os.path.join(os.path.realpath(other), "") for other in others)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    sources = {os.path.abspath(f) for f in files if isinstance(f, str) and f.endswith(".py")}
    return sorted(f for f in sources if not os.path.realpath(f).startswith(folders))


def _named(name: str) -> Target:
    """``module:variable``, found from where this process finds its own modules."""
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
        known = {os.path.abspath(entry) for entry in sys.path}
        if root in known and not _is_site_folder(root):
            python_path = (root,)
    return Target(("--wsgi", f"{name}:{variable}"), python_path)


def _script_arguments() -> tuple[str, ...] | None:
    """Give the script's arguments as an option; ``None`` when uWSGI would change them.

    It splits at blanks, besides what it does to the value of any option.
    """
    arguments = sys.argv[1:]
    if any(len(argument.split()) != 1 or not is_plain(argument) for argument in arguments):
        return None
    return ("--pyargv", " ".join(arguments)) if arguments else ()


def _is_site_folder(folder: str) -> bool:
    """Whether a fresh interpreter has it on sys.path, behind the standard library."""
    paths = sysconfig.get_paths()
    known = [paths["purelib"], paths["platlib"], site.getusersitepackages()]
    return os.path.realpath(folder) in {
        os.path.realpath(path) for path in (*known, *site.getsitepackages())
    }


def _variable(module: ModuleType, app: Any) -> str | None:
    """The variable in which importing the module puts the app, if there is one."""
    names = [name for name, value in list(vars(module).items()) if value is app]
    if not names:
        return None
    file = getattr(module, "__file__", None)
    source = None if file is None else _source(file)
    if source is None:
        return names[0]
    bindings = _Bindings(source)
    return next((name for name in names if bindings.at_import(name)), None)


def _source(file: str) -> ast.Module | None:
    try:
        return ast.parse(Path(file).read_bytes())
    except (OSError, SyntaxError, ValueError):
        return None


class _Bindings(ast.NodeVisitor):
    """The names that importing a module binds, apart from those that running it binds.

    A name that is also bound inside ``if __name__ == "__main__":``, or declared ``global`` in a
    function, counts as bound by running: its value at import may be another.
    """

    def __init__(self, module: ast.Module) -> None:
        self._imported: set[str] = set()
        self._run: set[str] = set()
        self._names = self._imported
        self._star = False
        self.visit(module)

    def at_import(self, name: str) -> bool:
        return name not in self._run and (name in self._imported or self._star)

    def visit_If(self, node: ast.If) -> None:
        if not _is_main_guard(node.test):
            self.generic_visit(node)
            return
        outer, self._names = self._names, self._run
        for statement in node.body:
            self.visit(statement)
        self._names = outer
        for statement in node.orelse:
            self.visit(statement)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Store):
            self._names.add(node.id)

    def visit_Import(self, node: ast.Import | ast.ImportFrom) -> None:
        for alias in node.names:
            self._star = self._star or alias.name == "*"
            self._names.add(alias.asname or alias.name.partition(".")[0])

    visit_ImportFrom = visit_Import

    def _visit_definition(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
    ) -> None:
        self._names.add(node.name)
        for inner in ast.walk(node):
            if isinstance(inner, ast.Global):
                self._run.update(inner.names)

    visit_FunctionDef = visit_AsyncFunctionDef = visit_ClassDef = _visit_definition

    def _visit_own_scope(self, node: ast.AST) -> None:
        """A lambda's or comprehension's names are not the module's."""

    visit_Lambda = visit_ListComp = visit_SetComp = _visit_own_scope
    visit_DictComp = visit_GeneratorExp = _visit_own_scope


def _is_main_guard(test: ast.expr) -> bool:
    """Whether a condition asks ``__name__ == "__main__"``, alone or among others."""
    return any(
        isinstance(node, ast.Compare)
        and isinstance(node.ops[0], ast.Eq)
        and {"__name__", "__main__"}
        == {_name_or_text(operand) for operand in (node.left, *node.comparators)}
        for node in ast.walk(test)
    )


def _name_or_text(node: ast.expr) -> object:
    if isinstance(node, ast.Name):
        return node.id
    return node.value if isinstance(node, ast.Constant) else None
