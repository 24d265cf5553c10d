"""``flask websocket``: run an app on uWSGI, and build a uWSGI with every engine.

::

    flask --app chat websocket run --gevent 100
    flask websocket install-uwsgi
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import click
from flask import Flask
from flask.cli import ScriptInfo
from flask.helpers import get_debug_flag

from . import install
from ._target import Target, module_variable
from .exceptions import EngineError
from .runner import DEFAULT_HOST, DEFAULT_PORT, exec_uwsgi


@click.group()
def websocket() -> None:
    """WebSockets on uWSGI."""


@websocket.command("run", context_settings={"ignore_unknown_options": True})
@click.option("--host", "-h", default=DEFAULT_HOST, show_default=True, help="Address to serve.")
@click.option("--port", "-p", default=DEFAULT_PORT, show_default=True, help="Port to serve.")
@click.option(
    "--debug/--no-debug",
    default=None,
    help="Reload when code changes, and show the debugger. Default: that of 'flask --debug'.",
)
@click.option("--uwsgi-binary", metavar="PATH", help="The uWSGI to run.")
@click.argument("uwsgi_options", nargs=-1, type=click.UNPROCESSED, metavar="[UWSGI OPTIONS]...")
@click.pass_context
def run(
    context: click.Context,
    host: str,
    port: int,
    debug: bool | None,
    uwsgi_binary: str | None,
    uwsgi_options: Sequence[str],
) -> None:
    """Serve the app with uWSGI.

    Every other option is uWSGI's own, with or without a value, and goes to it as it is:

    \b
        flask --app chat websocket run --gevent 100
        flask --app chat websocket run --asyncio 100 --processes 2
        flask --app chat websocket run --https 0.0.0.0:8443,cert.pem,key.pem
    """
    options = parse_uwsgi_options(uwsgi_options)
    target = flask_target(context.ensure_object(ScriptInfo))
    if debug is None:
        debug = get_debug_flag()
    try:
        exec_uwsgi(target, debug, host, port, uwsgi_binary, options)
    except EngineError as error:
        raise click.ClickException(str(error)) from error


@websocket.command("install-uwsgi")
@click.option("--force", is_flag=True, help="Build also when an adequate uWSGI is there.")
def install_uwsgi(force: bool) -> None:
    """Build uWSGI with gevent, asyncio and greenlet.

    It goes into the Python environment that runs this command, and answers a request on each
    engine before this says that it is ready. Needs a C compiler and Python's headers.
    """
    try:
        install.install_uwsgi(force, click.echo)
    except EngineError as error:
        raise click.ClickException(str(error)) from error


def parse_uwsgi_options(words: Sequence[str]) -> dict[str, Any]:
    """uWSGI's options as the keyword arguments that ``app.run`` takes.

    :param words: ``--name``, ``--name value``, ``--name=value``, ``-n`` and ``-n value``.
    :returns: an option without a value is ``True``, one that is repeated a list.
    :raises click.UsageError: a word that is neither an option nor a value.
    """
    options: dict[str, list[Any]] = {}
    current: list[Any] | None = None
    for word in words:
        if word.startswith("-") and word.strip("-"):
            name, equals, value = word.lstrip("-").partition("=")
            if not word.startswith("--") and len(name) > 1:
                raise click.UsageError(f"write {word!r} as -{name[0]} {name[1:]}")
            current = options.setdefault(name, [])
            current.append(value if equals else True)
            current = None if equals else current
        elif current is None:
            raise click.UsageError(f"{word!r} belongs to no uWSGI option")
        else:
            current[-1] = word
            current = None
    return {name: values[0] if len(values) == 1 else values for name, values in options.items()}


def flask_target(info: ScriptInfo) -> Target:
    """How uWSGI loads the app that the ``flask`` command works on.

    The app is loaded here first, so that Flask reports what is wrong with it as it always does.

    :raises click.ClickException: no app, or one that only this command's own code can make.
    """
    target = module_variable(info.load_app())
    if target is not None:
        return target
    if info.create_app is not None:
        raise click.ClickException(
            "this command makes its app by a function of its own, which uWSGI cannot call: "
            "create the app at the top level of a module and name it by --app module:variable"
        )
    # A factory: uWSGI lets Flask find and call it, exactly as here.
    environment = {"FLASK_APP": info.app_import_path} if info.app_import_path else {}
    return Target(("--wsgi", f"{__name__}:application()"), (os.getcwd(),), environment)


def application() -> Flask:
    """The app that FLASK_APP names; uWSGI calls this."""
    return ScriptInfo(os.environ.get("FLASK_APP")).load_app()
