"""``flask websocket``: what there is to do about an app's WebSockets from the terminal.

::

    flask --app chat websocket run --gevent 100
    flask --app chat websocket routes
    flask websocket echo /chat
    flask --app chat websocket doctor app.ini
    flask --app chat websocket stats
    flask --app chat websocket top
    flask --app chat websocket rooms
    flask --app chat websocket who lobby
    flask --app chat websocket history news
    flask --app chat websocket publish news "hi"
    flask --app chat websocket tail news
    flask websocket install-uwsgi
"""

from __future__ import annotations

import os
import ssl  # by its name: gevent, which an app may bring later, warns of names taken from it
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Thread
from typing import Any

import click
from flask import Flask, current_app
from flask.cli import NoAppException, ScriptInfo, with_appcontext
from flask.helpers import get_debug_flag

from ..exceptions import EngineError, HandshakeError, ProtocolError
from ..helpers.checks import is_on
from ..helpers.text import printable
from ..inspection.sources import ConfigError
from ..launch import install
from ..launch.defaults import DEFAULT_HOST, DEFAULT_PORT
from ..launch.locate import Target, module_variable
from ..launch.run import exec_uwsgi
from .doctor import examine, of_command, of_process
from .echo import Peer, tls_context
from .rooms import history, publish, rooms, tail, who
from .stats import stats, top
from .tables import table


@contextmanager
def _without_traceback() -> Iterator[None]:
    """Tell people what went wrong, and not where in our code."""
    try:
        yield
    except (ConfigError, EngineError) as error:
        raise click.ClickException(str(error)) from error


@click.group()
def websocket() -> None:
    """WebSockets on uWSGI."""


for _command in (stats, top, rooms, who, history, publish, tail):
    websocket.add_command(_command)


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
@_without_traceback()
def run(
    context: click.Context,
    host: str,
    port: int,
    debug: bool | None,
    uwsgi_binary: str | None,
    uwsgi_options: Sequence[str],
) -> None:
    """Serve the app with uWSGI.

    Every other option is uWSGI's own, with or without a value, and goes to it as it is. Where none
    names an engine, it is the one of the app's extension:

    \b
        flask --app chat websocket run
        flask --app chat websocket run --gevent 100 --processes 2
        flask --app chat websocket run --https 0.0.0.0:8443,cert.pem,key.pem
    """
    options = parse_uwsgi_options(uwsgi_options)
    info = context.ensure_object(ScriptInfo)
    target = flask_target(info)
    for extension in info.load_app().extensions.get("uwsgi_websocket", ()):
        extension.add_engine(options)
    if debug is None:
        debug = get_debug_flag() or is_on("FLASK_UWSGI_DEBUG")
    exec_uwsgi(target, debug, host, port, uwsgi_binary, options)


@websocket.command("install-uwsgi")
@click.option("--force", is_flag=True, help="Build also when an adequate uWSGI is there.")
@_without_traceback()
def install_uwsgi(force: bool) -> None:
    """Build uWSGI with gevent, asyncio and greenlet.

    It goes into the Python environment that runs this command, and answers a request on each
    engine before this says that it is ready. Needs a C compiler and Python's headers.
    """
    install.install_uwsgi(force, click.echo)


@websocket.command("routes")
@with_appcontext
def routes() -> None:
    """List the app's WebSocket routes."""
    rows = [
        (
            f"{rule.subdomain or rule.host or ''}{rule.rule}",
            rule.endpoint,
            rule.endpoint.rpartition(".")[0],
            ", ".join(rule.subprotocols),
        )
        for extension in current_app.extensions.get("uwsgi_websocket", ())
        for rule in extension.url_map.iter_rules()
    ]
    if not rows:
        click.echo("This app has no WebSocket routes.")
        return
    for line in table(("Rule", "Endpoint", "Blueprint", "Subprotocols"), rows):
        click.echo(line)


@websocket.command("doctor", context_settings={"ignore_unknown_options": True})
@click.option("--uwsgi-binary", metavar="PATH", help="The uWSGI to look at.")
@click.option("--pid", type=int, help="Look at this uWSGI, which runs.")
@click.argument(
    "uwsgi_options", nargs=-1, type=click.UNPROCESSED, metavar="[UWSGI OPTIONS OR FILES]..."
)
@click.pass_context
@_without_traceback()
def doctor(
    context: click.Context, uwsgi_binary: str | None, pid: int | None, uwsgi_options: Sequence[str]
) -> None:
    """Say what would keep WebSockets from working, and the remedy.

    Looks at the uWSGI that would run, at what it would run with, and at the app's class:

    \b
        flask --app chat websocket doctor app.ini
        flask --app chat websocket doctor --http :8080 --gevent 100
        flask --app chat websocket doctor -- uwsgi --ini app.ini --processes 2
        flask websocket doctor --emperor /etc/uwsgi/vassals
        flask websocket doctor --pid "$(cat uwsgi.pid)"

    Fails if something is wrong; hints alone are not.
    """
    if pid is None:
        process = of_command(uwsgi_options, uwsgi_binary)
    else:
        process = of_process(pid, uwsgi_binary)
    info = context.ensure_object(ScriptInfo)
    app = _app_of(info) if process.words or info.app_import_path or info.create_app else None
    if not examine(process, app, click.echo):
        raise SystemExit(1)


def _app_of(info: ScriptInfo) -> Flask | None:
    """Load the app if there is one; the doctor has work without, too."""
    try:
        return info.load_app()
    except NoAppException as error:
        reason = str(error).strip().partition("\n")[0]
    except Exception as error:
        reason = f"{type(error).__name__}: {error}"
    click.echo(f"note: the app was not looked at ({reason})")
    return None


@websocket.command("echo")
@click.argument("url")
@click.option("--header", "-H", "headers", multiple=True, metavar="NAME:VALUE")
@click.option("--subprotocol", "subprotocols", multiple=True, help="Offer this subprotocol.")
@click.option("--origin", help="Be a page of this origin.")
@click.option(
    "--cafile",
    "--cacert",
    type=click.Path(exists=True, dir_okay=False),
    help="Trust servers that the authorities in this file (PEM) vouch for, and no others.",
)
@click.option("--insecure", "-k", is_flag=True, help="Trust any server.")
def echo(
    url: str,
    headers: Sequence[str],
    subprotocols: Sequence[str],
    origin: str | None,
    cafile: str | None,
    insecure: bool,
) -> None:
    """Try a route: send each line of the input, print what comes.

    URL may be only a path, of an app that 'flask run' serves.
    """
    for header in headers:
        if ":" not in header:
            raise click.BadParameter(f"{header!r} is not NAME:VALUE", param_hint="--header")
    fields = [(name, value.strip()) for name, _, value in (h.partition(":") for h in headers)]
    tls = _tls_of(cafile, insecure)
    try:
        peer = Peer(url, fields, subprotocols, origin, tls=tls)
    except ssl.SSLCertVerificationError as error:
        remedy = "--cafile says whom to trust, --insecure to trust anybody"
        raise click.ClickException(f"{url}: {error.verify_message}; {remedy}") from error
    except OSError as error:
        raise click.ClickException(f"{url}: {printable(error.strerror or error)}") from error
    except (HandshakeError, ValueError) as error:
        raise click.ClickException(printable(error)) from error
    if peer.subprotocol:
        click.echo(f"subprotocol {peer.subprotocol}", err=True)
    # A daemon: it may still wait for a line when the server has closed.
    Thread(target=_send_lines, args=(peer,), daemon=True).start()
    try:
        for message in peer.messages():
            if isinstance(message, bytes):
                click.echo(message.hex(" "))
            else:
                click.echo(printable(message, keep="\n\t"))
    except KeyboardInterrupt:
        peer.close()
    click.echo(f"closed {peer.close_code} {printable(peer.close_reason)}".rstrip(), err=True)


def _tls_of(cafile: str | None, insecure: bool) -> ssl.SSLContext:
    try:
        return tls_context(cafile, insecure)
    except OSError as error:
        raise click.ClickException(f"{cafile}: {printable(error.strerror or error)}") from error


def _send_lines(peer: Peer) -> None:
    with suppress(OSError, ProtocolError):  # the connection has ended
        for line in sys.stdin:
            peer.send(line.rstrip("\r\n"))
        peer.close()


def parse_uwsgi_options(words: Sequence[str]) -> dict[str, Any]:
    """Return uWSGI's options as the keyword arguments that ``app.run`` takes.

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
    """Find out how uWSGI loads the app that the ``flask`` command works on.

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
    """Load the app that FLASK_APP names; uWSGI calls this."""
    return ScriptInfo(os.environ.get("FLASK_APP")).load_app()
