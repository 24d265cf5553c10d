"""What in uWSGI's options breaks WebSockets, each with its remedy."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ._uwsgi import HOLDING

#: Fewer connections at a time than this are used up by the first visitors.
FEW = 10
#: Configuration that is read from elsewhere.
FILES = ("ini", "yaml", "yml", "json", "xml", "emperor")

Options = Mapping[str, Any]


@dataclass(frozen=True)
class Finding:
    """Something in the options, and what to do about it."""

    problem: str
    remedy: str


def diagnose(options: Options) -> list[Finding]:
    """What WebSockets would suffer from, worst first.

    :param options: as on uWSGI's command line, names without dashes.
    """
    checks = (_router, _tls, _harakiri, _slots, _engine, _http_timeout, _master)
    return [finding for check in checks for finding in check(options)]


def files(options: Options) -> list[str]:
    """Where more options are, which nobody looked at."""
    return [f"--{name} {options[name]}" for name in FILES if name in options]


def command_line(pid: int) -> list[str]:
    """The arguments of a running process.

    :raises OSError: when there is none, or it is not ours to look at.
    """
    words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    return [word.decode(errors="replace") for word in words[1:] if word]


def _number(options: Options, *names: str) -> int:
    for name in names:
        value = options.get(name)
        if isinstance(value, (str, int)) and str(value).isdigit():
            return int(value)
    return 0


def _router(options: Options) -> list[Finding]:
    routers = [name for name in ("http", "https", "https2") if name in options]
    if not routers or "http-websockets" in options:
        return []
    return [
        Finding(
            f"--{routers[0]} without --http-websockets: the router passes the handshake, and "
            "nothing after it",
            "add --http-websockets",
        )
    ]


def _tls(options: Options) -> list[Finding]:
    if "https-socket" not in options:
        return []
    return [
        Finding(
            "--https-socket: uWSGI encrypts above the descriptor that WebSockets need",
            "use --https instead (uWSGI's TLS router), or a proxy that speaks TLS",
        )
    ]


def _lets_go(options: Options) -> bool:
    """Whether WebSockets hold no slot; as `_uwsgi.lets_go` has it."""
    return ("gevent" in options or "asyncio" in options) and not any(
        name in options for name in HOLDING
    )


def _harakiri(options: Options) -> list[Finding]:
    seconds = _number(options, "harakiri", "t")
    if not seconds or _lets_go(options):
        return []
    return [
        Finding(
            f"--harakiri {seconds} kills the worker, with all of its connections, {seconds} s "
            "into any WebSocket",
            "leave it out for workers that serve WebSockets",
        )
    ]


def _slots(options: Options) -> list[Finding]:
    engines = [name for name in ("gevent", "asyncio", "async", "threads") if name in options]
    each = max((_number(options, name) for name in engines), default=1) or 1
    workers = _number(options, "processes", "workers", "p") or 1
    if each * workers >= FEW or _lets_go(options):
        return []
    return [
        Finding(
            f"{each * workers} connections at a time in all: each WebSocket holds one, and the "
            "next visitor waits, of a page too",
            "raise --gevent N, --asyncio N or --threads N, or --processes",
        )
    ]


def _engine(options: Options) -> list[Finding]:
    for name in ("asyncio", "async"):
        if name in options and "greenlet" not in options:
            return [Finding(f"--{name} without --greenlet", "add --greenlet")]
    return []


def _http_timeout(options: Options) -> list[Finding]:
    seconds = _number(options, "http-timeout")
    if not 0 < seconds <= 30:
        return []
    return [
        Finding(
            f"--http-timeout {seconds} cuts connections that are silent for so long",
            f"raise it, or set UWSGI_WEBSOCKET_PING_INTERVAL below {seconds}",
        )
    ]


def _master(options: Options) -> list[Finding]:
    if "master" in options or "M" in options:
        return []
    return [
        Finding("no --master: a worker that dies is not replaced", "add --master"),
    ]
