"""``stats`` and ``top``: what an app's WebSockets do, by what its workers have written.

They read files and ask nobody, so a worker that is blocked is shown, too. The app need not be
loaded where ``--prefix`` names it, nor where it is the only one on this machine.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, TypeVar

import click

from ..helpers.text import printable
from ..monitoring.stats import shown_workers, stats_from_outside
from ..rooms.local.directory import FIGURES
from ..rooms.local.instances import Instance, find_instances
from .figures import (
    Stats,
    headline,
    mean,
    milliseconds,
    refused,
    short,
    slow,
    state_of,
    sum_of,
)
from .loaded import loaded_app, prefix_of
from .tables import table

F = TypeVar("F", bound=Callable[..., Any])


class Place(NamedTuple):
    """Where the figures of an app are.

    :param instance: the id of its uWSGI, and when that was started.
    """

    instance: tuple[int, int]
    prefix: str

    def read(self) -> dict[str, Any] | None:
        """Read the figures; return None where its uWSGI has ended."""
        return stats_from_outside(self.instance, self.prefix)


def _of_app(command: F) -> F:
    """Give a command the options that say which app is meant."""
    for option in (
        click.option("--pid", type=int, help="The process of the uWSGI, where several run."),
        click.option("--prefix", metavar="NAME", help="The app's name, unless it is loaded."),
    ):
        command = option(command)
    return command


@click.command("stats")
@_of_app
@click.option("--json", "as_json", is_flag=True, help="All figures, for programs.")
@click.pass_context
def stats(context: click.Context, prefix: str | None, pid: int | None, as_json: bool) -> None:
    """Print the figures of the WebSockets of all workers.

    With --json these are what websocket.stats() returns.
    """
    found = _read(_finder(context, prefix, pid))
    if as_json:
        click.echo(json.dumps(found, indent=2))
        return
    for line in lines_of(found):
        click.echo(line)
    if not found["complete"]:
        click.echo("note: a worker has said nothing for some seconds", err=True)


@click.command("top")
@_of_app
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 3600),
    default=2.0,
    show_default=True,
    help="Seconds from one refresh to the next.",
)
@click.pass_context
def top(context: click.Context, prefix: str | None, pid: int | None, interval: float) -> None:
    """Watch what the WebSockets of all workers do.

    Keys: q quits; o, i, u, b, e, p and n sort the routes as the last line says, r reverses that;
    the arrows scroll. Without a terminal it prints once, as stats does.
    """
    find = _finder(context, prefix, pid)
    first = _read(find)
    try:
        from .top import watch
    except ImportError:  # Python has no curses on Windows
        is_terminal = False
    else:
        is_terminal = sys.stdout.isatty() and sys.stdin.isatty()
    if not is_terminal:
        for line in lines_of(first):
            click.echo(line)
        return
    try:
        watch(first, partial(_read_or_explain, find), interval)
    except OSError as error:
        raise click.ClickException(str(error)) from error


def _read(find: Callable[[], Place]) -> dict[str, Any]:
    """Read the figures; try again where they are those of a uWSGI that ends just now."""
    for _ in range(2):
        found = find().read()
        if found is not None:
            return found
    raise click.ClickException("the app's uWSGI has ended just now")


def _read_or_explain(find: Callable[[], Place]) -> dict[str, Any] | str:
    """Read the figures; or return why there are none, as between two starts."""
    try:
        return _read(find)
    except click.ClickException as error:
        return error.message


def _finder(context: click.Context, prefix: str | None, pid: int | None) -> Callable[[], Place]:
    """Return what finds the app that is meant: that which is named, else that which is loaded, else
    the only one there is."""
    if prefix is None and (app := loaded_app(context)) is not None:
        prefix = prefix_of(app)
    return partial(_find, prefix, pid)


def _find(prefix: str | None, pid: int | None) -> Place:
    running = [
        (instance, app) for instance in find_instances(FIGURES) for app in sorted(instance.workers)
    ]
    found = [
        (instance, app)
        for instance, app in running
        if prefix in (None, app) and pid in (None, instance.parent)
    ]
    if len(found) != 1:
        raise click.ClickException("\n".join(_explain(prefix, pid, running, found)))
    [(instance, app)] = found
    parent, _, started = os.path.basename(instance.path).partition(".")
    return Place((int(parent), int(started)), app)


def _explain(
    prefix: str | None,
    pid: int | None,
    running: list[tuple[Instance, str]],
    found: list[tuple[Instance, str]],
) -> Iterator[str]:
    """Yield why nobody knows which app is meant, and what to do."""
    if found:
        yield "several run; name one of them:"
    else:
        of_app = " an app" if prefix is None else f" the app {printable(prefix)!r}"
        of_pid = "" if pid is None else f" with the process id {pid}"
        others = "; or name one of these:" if running else ""
        yield (
            f"no uWSGI of this user runs{of_app}{of_pid}: "
            f"start it, or be the user whom it runs as (sudo -u), with its XDG_RUNTIME_DIR{others}"
        )
    for instance, app in found or running:
        yield f"  --pid {instance.parent} --prefix {printable(app)}  ({instance.command})"


# -- for people --------------------------------------------------------------------------


_WORKER = "Worker", "PID", "State", "Open", "Received", "Sent", "Bytes in", "Bytes out", "Queued"
_ROUTE = "Route", "Open", "Accepted", "Refused", "Received", "Sent", "Errors", "Slow", "Ping"


def lines_of(stats: Stats) -> Iterator[str]:
    """Yield the figures as text."""
    yield headline(stats)
    yield ""
    yield from table(_WORKER, [_worker_row(worker) for worker in shown_workers(stats)])
    if stats["routes"]:
        yield ""
        yield from table(_ROUTE, [_route_row(*item) for item in sorted(stats["routes"].items())])
    if stats["refused"]:
        reasons = (f"{printable(why)} {count}" for why, count in sorted(stats["refused"].items()))
        yield ""
        yield f"Refused by no route: {', '.join(reasons)}"


def _worker_row(worker: Stats) -> tuple[str, ...]:
    routes = worker["routes"].values()
    names = ("messages_received", "messages_sent", "bytes_received", "bytes_sent", "queued_bytes")
    sums = (short(sum_of(routes, name)) for name in names)
    return str(worker["worker"]), str(worker["pid"]), state_of(worker), str(worker["open"]), *sums


def _route_row(pattern: str, route: Stats) -> tuple[str, ...]:
    return (
        printable(pattern),
        str(route["open"]),
        short(route["accepted"]),
        short(refused(route)),
        short(route["messages_received"]),
        short(route["messages_sent"]),
        short(route["errors"]),
        short(slow(route)),
        milliseconds(mean(route["ping"])),
    )
