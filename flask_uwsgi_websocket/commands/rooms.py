"""``rooms``, ``who``, ``history``, ``publish`` and ``tail``: an app's rooms from the terminal.

They take part as one more publisher does, so the app need not be loaded where it is told by
``--backplane`` and ``--prefix``, nor where it is the only one on this machine.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import click

from ..exceptions import RoomError
from ..helpers.log import logger
from ..helpers.text import printable
from ..helpers.threads import unpatched
from ..rooms.access import Access
from ..rooms.channels import room_channel, room_of
from ..rooms.counting import counts_of, rooms_question
from ..rooms.exchange import Exchange
from ..rooms.loop_calls import wait_for
from ..rooms.past import Past
from ..rooms.positions import Position
from ..rooms.publisher import Publisher
from ..rooms.record import KeptRecord, Kind, Record
from .following import Following
from .loaded import loaded_app, prefix_of
from .tables import table

F = TypeVar("F", bound=Callable[..., Any])

#: Seconds within which a backplane answers.
TIMEOUT = 2.0
#: Seconds between two looks at whether the app was started anew.
_PAUSE = 0.2

_NO_INSTANCE = (
    "there is no app with rooms: no uWSGI of this user has had a client yet (be the user whom it "
    "runs as: sudo -u), or its backplane is elsewhere, which --backplane URL names"
)


def _of_backplane(command: F) -> F:
    """Give a command the options that say which app is meant."""
    for option in (
        click.option("--prefix", metavar="NAME", help="The app's name at the backplane."),
        click.option("--backplane", metavar="URL", help="Where it is. Default: the app's own."),
    ):
        command = option(command)
    return command


@click.command("rooms")
@_of_backplane
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.pass_context
def rooms(context: click.Context, backplane: str | None, prefix: str | None, as_json: bool) -> None:
    """List the rooms that have members, on all workers."""
    with _publisher(context, backplane, prefix) as publisher:
        if _explained(publisher.is_alone):
            raise click.ClickException(_NO_INSTANCE)
        answers = _explained(publisher.ask, rooms_question())
    counts = counts_of(answers)
    if as_json:
        named = {
            room: {"connections": count.connections, "users": count.users}
            for room, count in counts.items()
        }
        click.echo(json.dumps({"rooms": named, "complete": answers.complete}, indent=2))
        return
    rows = [
        (printable(room), str(count.connections), str(count.users))
        for room, count in counts.items()
    ]
    for line in table(("Room", "Connections", "Users"), rows) if rows else ["No room has members."]:
        click.echo(line)
    if not answers.complete:
        click.echo("note: not all workers have answered in time", err=True)


@click.command("who")
@_of_backplane
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("room", metavar="ROOM")
@click.pass_context
def who(
    context: click.Context, backplane: str | None, prefix: str | None, as_json: bool, room: str
) -> None:
    """List who is in a room that has presence."""
    with _publisher(context, backplane, prefix) as publisher:
        if _explained(publisher.is_alone):
            raise click.ClickException(_NO_INSTANCE)
        members = _explained(publisher.who, room)
    if as_json:
        named = [dict(member._asdict()) for member in members]
        click.echo(json.dumps({"members": named, "complete": members.complete}, indent=2))
        return
    rows = [
        (printable(each.user), str(each.connections), _clock(each.since), _shown(each.info))
        for each in members
    ]
    headings = ("User", "Connections", "Since", "Info")
    for line in table(headings, rows) if rows else ["Nobody is there, or it has no presence."]:
        click.echo(line)
    if not members.complete:
        click.echo("note: there may be more, since the backplane does not answer", err=True)


def _clock(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


def _shown(info: Any) -> str:
    return "" if info is None else printable(json.dumps(info, ensure_ascii=False))


@click.command("history")
@_of_backplane
@click.option("--after", metavar="POSITION", help="Only what came after it.")
@click.option("--limit", default=100, show_default=True, help="How many messages at most.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.argument("room", metavar="ROOM")
@click.pass_context
def history(
    context: click.Context,
    backplane: str | None,
    prefix: str | None,
    after: str | None,
    limit: int,
    as_json: bool,
    room: str,
) -> None:
    """Print what a room has kept, that has history; the position of each message first."""
    with _publisher(context, backplane, prefix) as publisher:
        if _explained(publisher.is_alone):
            raise click.ClickException(_NO_INSTANCE)
        past = _explained(partial(publisher.history, room, after, limit))
    if as_json:
        click.echo(json.dumps(_as_json(past), indent=2))
        return
    for each in past.messages:
        text = each.data if isinstance(each.data, str) else each.data.hex(" ")
        click.echo(f"{each.position}  {printable(text, keep=chr(9))}")
    if not past.complete:
        click.echo("note: there were more, which are not kept any more", err=True)


def _as_json(past: Past) -> dict[str, Any]:
    messages = [
        {"position": each.position, "time": each.time}
        | ({"text": each.data} if isinstance(each.data, str) else {"hex": each.data.hex()})
        for each in past.messages
    ]
    return {"messages": messages, "position": past.position, "complete": past.complete}


@click.command("publish")
@_of_backplane
@click.option("--json", "as_json", is_flag=True, help="MESSAGE is JSON: check it first.")
@click.option("--binary", is_flag=True, help="Send a binary message.")
@click.option("--user", "users", multiple=True, metavar="ID", help="To a user, not a room.")
@click.option("--all", "to_all", is_flag=True, help="To all clients of the app.")
@click.argument("words", nargs=-1, metavar="[ROOM] MESSAGE")
@click.pass_context
def publish(
    context: click.Context,
    backplane: str | None,
    prefix: str | None,
    as_json: bool,
    binary: bool,
    users: Sequence[str],
    to_all: bool,
    words: Sequence[str],
) -> None:
    """Send a message to a room, a user, or all clients.

    '-' as MESSAGE is what the input has:

    \b
        flask --app chat websocket publish news "Back in five minutes"
        flask --app chat websocket publish --user 7 --json '{"paid": true}'
        flask --app chat websocket publish --all - < notice.txt
    """
    if bool(users) + to_all > 1 or len(words) != (1 if users or to_all else 2):
        raise click.UsageError("give ROOM and MESSAGE, or --user ID or --all and MESSAGE")
    message = _read(words[-1], as_json, binary)
    with _publisher(context, backplane, prefix) as publisher:
        if _explained(publisher.is_alone):
            raise click.ClickException(_NO_INSTANCE)
        if to_all:
            target = publisher.to_all()
        else:
            target = _valid(publisher.to_user, *users) if users else _valid(publisher.to, words[0])
        _explained(target.send, message)


def _read(word: str, as_json: bool, binary: bool) -> str | bytes:
    """Return the message that a word stands for."""
    data = sys.stdin.buffer.read() if word == "-" else word.encode()
    if binary:
        return data
    try:
        text = data.decode()
        text = text.removesuffix("\n") if word == "-" else text
        if as_json:
            json.loads(text)
    except UnicodeDecodeError:
        raise click.ClickException("the input is not UTF-8: use --binary") from None
    except json.JSONDecodeError as error:
        raise click.ClickException(f"MESSAGE is not JSON: {error}") from None
    return text


@click.command("tail")
@_of_backplane
@click.option("--since", metavar="POSITION", help="First what a room kept that came after it.")
@click.argument("names", nargs=-1, required=True, metavar="ROOM...")
@click.pass_context
def tail(
    context: click.Context,
    backplane: str | None,
    prefix: str | None,
    since: str | None,
    names: Sequence[str],
) -> None:
    """Print what is sent to rooms, until ctrl-C."""
    channels = [_valid(room_channel, name) for name in names]
    printer = _Printer(many=len(channels) > 1)
    following = None if since is None else _follow(since, channels, printer)
    receive = printer.show if following is None else following.receive
    access = Access(*_place(context, backplane, prefix), TIMEOUT, receive=receive)
    heard: Exchange | None = None
    sleep = unpatched("time", "sleep")  # or gevent's hub, which an app has brought, tells of ctrl-C
    with suppress(KeyboardInterrupt):
        while not printer.is_closed:
            exchange = _explained(access.exchange)
            if exchange is None and heard is None:
                raise click.ClickException(_NO_INSTANCE)
            if exchange is not None and exchange is not heard:
                heard = exchange
                _subscribe(exchange, channels)
                if following is not None:
                    following.begin(exchange)
            sleep(_PAUSE)
    access.start_closing()  # a moment is left for it at the end of the process


def _follow(since: str, channels: Sequence[str], printer: _Printer) -> Following:
    position = Position.parse(since)
    if position is None or len(channels) != 1:
        raise click.UsageError("--since takes a position, as `history` prints it, and one ROOM")
    return Following(channels[0], position, printer.show)


def _subscribe(exchange: Exchange, channels: Sequence[str]) -> None:
    waiting = [exchange.subscribe(channel) for channel in channels]
    for each in waiting:
        if each is not None:
            _explained(_wait, each)
    click.echo("listening", err=True)


def _wait(future: Future[None]) -> None:
    wait_for(future, 2 * TIMEOUT)


class _Printer:
    """Prints records, as they come.

    :param many: whether to say of which room each is.
    """

    def __init__(self, many: bool) -> None:
        self._many = many
        #: Whether nobody reads any more.
        self.is_closed = False

    def show(self, record: Record | str) -> None:
        """Print a record, of whichever kind, or a line."""
        line = record if isinstance(record, str) else told(record)
        if self._many and isinstance(record, Record):
            room = next(filter(None, map(room_of, record.channels)), "")
            line = f"{printable(room)}: {line}"
        try:
            click.echo(line)
        except OSError:  # the reader of a pipe has left
            self.is_closed = True


def told(record: Record) -> str:
    """Return a line for a record."""
    if isinstance(record, KeptRecord) and record.position and not record.position.offset:
        return "(the room was forgotten)"
    if record.kind is Kind.MESSAGE:
        text = record.data.decode(errors="replace")
        return printable(text, keep="\t") if record.text else record.data.hex(" ")
    if record.kind is Kind.CLOSE:
        code, reason = int.from_bytes(record.data[:2], "big"), record.data[2:].decode()
        return f"(close {code} {printable(reason)}".rstrip() + ")"
    return f"({record.kind.name.lower()} {printable(record.data.decode(errors='replace'))})"


def _publisher(context: click.Context, backplane: str | None, prefix: str | None) -> Publisher:
    url, prefix = _place(context, backplane, prefix)
    logger.disabled = True  # what is wrong is told once, by the command
    publisher: Publisher = _valid(Publisher, url, prefix=prefix, timeout=TIMEOUT)
    return publisher


def _place(
    context: click.Context, backplane: str | None, prefix: str | None
) -> tuple[str | None, str | None]:
    """Return the URL and prefix that are meant: those given, else the app's, else the only ones."""
    app = loaded_app(context) if backplane is None or prefix is None else None
    if app is None:
        if backplane is not None and prefix is None:
            raise click.UsageError("--backplane needs --prefix NAME: app.name, unless it is set")
        return backplane, prefix
    if backplane is None:
        backplane = app.config.get("UWSGI_WEBSOCKET_BACKPLANE")
        if backplane is not None and backplane.startswith("memory:"):
            raise click.ClickException(
                f"the backplane is {backplane}, which nobody reaches from another process: set "
                "UWSGI_WEBSOCKET_BACKPLANE to local:///some/path, or redis://..."
            )
    return backplane, prefix or prefix_of(app)


def _valid(make: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Call what raises ValueError for what was typed."""
    try:
        return make(*arguments, **options)
    except ValueError as error:
        raise click.ClickException(str(error)) from error


def _explained(call: Callable[..., Any], *arguments: Any) -> Any:
    """Call what a backplane may refuse."""
    try:
        return call(*arguments)
    except (RoomError, TimeoutError, ValueError) as error:
        raise click.ClickException(str(error)) from error
