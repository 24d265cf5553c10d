"""Rules over what uWSGI's options make of sockets: the router's, the workers', and all together."""

from __future__ import annotations

from collections.abc import Iterator

from .effects import cores, detaches, has_router, serves, workers
from .findings import Finding, Rule, Surroundings, error, hint, warning
from .options import FASTCGI_SOCKETS, SOCKETS, TLS_SOCKETS, Options

#: uWSGI's buffers when the options do not say (4,096 on every machine that it is built for: the
#: router's is a page).
PAGE = 4096

#: From this size of its buffer on, uWSGI's router loses uploads: it sends on the head of a request,
#: and what it read of the body with it, in a buffer of at most UMAX16 (plugins/http/http.c).
LOSSY_ROUTER_BUFFER = 65535

#: The router's buffer that carries every upload, with room for any head beside it, and with our
#: TCP_NODELAY large messages as fast as any size: thousands of 64 KiB a second instead of 11.
ROUTER_BUFFER = 32768

#: Fewer descriptors than this are few for engines whose cores do not limit the connections.
FEW_DESCRIPTORS = 4096

#: Descriptors of a process that are none of connections: libraries, logs, pipes, databases.
OTHER_DESCRIPTORS = 64
#: The same of the router: listeners, pipes, its log.
ROUTERS_OWN = 16

#: Options that give the workers a socket on which WebSockets work.
USABLE_SOCKETS = (*SOCKETS, "shared-socket", "undeferred-shared-socket", "zerg")

#: Users and groups as which nginx runs.
_NGINX = {"www-data", "nginx", "http", "33"}


@Rule
def tls_socket(options: Options, around: Surroundings) -> Iterator[Finding]:
    for name in options.given(*TLS_SOCKETS):
        yield error(
            f"WebSockets don't work behind --{name}",
            "uWSGI encrypts above the descriptor",
            "use --https (uWSGI's TLS router) or a proxy that speaks TLS",
            blocks=True,
        )


@Rule
def fastcgi(options: Options, around: Surroundings) -> Iterator[Finding]:
    protocol = options.text("protocol")
    names = options.given(*FASTCGI_SOCKETS)
    if protocol.startswith("fastcgi") and options.has("socket"):
        names.append(f"protocol {protocol}")
    for name in names[:1]:
        yield warning(
            f"--{name}",
            "FastCGI knows no upgrade, and what follows a handshake is lost",
            "use --socket (nginx: uwsgi_pass) or --http-socket (proxy_pass)",
        )


@Rule
def socket_permissions(options: Options, around: Surroundings) -> Iterator[Finding]:
    users = [options.text(name) for name in options.given("uid", "gid")]
    paths = [path for name in ("socket", "http-socket") for path in options.values(name)]
    sockets = [path for path in paths if ":" not in path and path[:1] not in ("", "@", "\\")]
    alone = users and options.lacks("chmod-socket", "chown-socket", "umask")
    if alone and sockets and not _NGINX & set(users):
        yield warning(
            f"--socket {sockets[0]} of {users[0]}, without --chmod-socket",
            "nginx, which runs as another user, may not connect to it (502)",
            "add --chmod-socket=666, or --chmod-socket=660 and a --gid that nginx is in",
        )


@Rule
def buffer_size(options: Options, around: Surroundings) -> Iterator[Finding]:
    size = options.number("buffer-size", PAGE)
    if size is not None and size <= PAGE:
        find = hint if size == PAGE else warning
        yield find(
            f"--buffer-size {size}" if options.has("buffer-size") else "no --buffer-size",
            f"a handshake or request with more than {size} bytes of headers, such as large "
            "cookies, is reset",
            "add --buffer-size 32768",
        )


# The router


@Rule
def http_websockets(options: Options, around: Surroundings) -> Iterator[Finding]:
    router = has_router(options)
    if router and options.lacks("http-websockets", "http-raw-body"):
        only = options.lacks(*USABLE_SOCKETS)
        find = error if only else warning
        yield find(
            f"WebSockets don't work behind --{router} without --http-websockets",
            "uWSGI's router would pass the handshake, and nothing after it",
            "add --http-websockets",
            blocks=only and serves(options),
        )


@Rule
def http_buffer_size(options: Options, around: Surroundings) -> Iterator[Finding]:
    size = options.number("http-buffer-size", PAGE)
    if not has_router(options) or size is None:
        return
    given = options.has("http-buffer-size")
    found = f"--http-buffer-size {size}"
    if size >= LOSSY_ROUTER_BUFFER:
        yield error(
            found,
            "uWSGI's router resets clients whose upload arrives together with its head, from "
            f"{LOSSY_ROUTER_BUFFER} on, and logs nothing",
            f"use {ROUTER_BUFFER}, which carries large WebSocket messages as well",
        )
    elif size < ROUTER_BUFFER // 2:
        yield hint(
            found if given else f"--{has_router(options)} without --http-buffer-size",
            f"messages above {size} bytes wait for TCP's timers, at some ten a second",
            f"add --http-buffer-size {ROUTER_BUFFER}",
        )


@Rule
def http_timeout(options: Options, around: Surroundings) -> Iterator[Finding]:
    router, seconds = has_router(options), options.number("http-timeout", 60)
    if not router or not seconds:
        return
    given = f"--http-timeout {seconds}" if options.has("http-timeout") else f"--{router}"
    why = f"the router cuts WebSockets that are silent for {seconds} seconds"
    if not around.ping_interval:
        yield warning(f"{given} with UWSGI_WEBSOCKET_PING_INTERVAL = 0", why, "leave the pings on")
    elif seconds <= around.ping_interval:
        yield warning(
            given,
            f"{why}, and a ping comes every {around.ping_interval:g}",
            f"raise it, or set UWSGI_WEBSOCKET_PING_INTERVAL below {seconds}",
        )


# Descriptors


@Rule
def descriptors(options: Options, around: Surroundings) -> Iterator[Finding]:
    limit = options.number("max-fd") or around.descriptors
    if not limit or not cores(options):
        return
    usable = limit - limit // 8  # an eighth is kept for HTTP
    needed = _descriptors_needed(options)
    router = " and two in the router" if has_router(options) else ""
    remedy = "raise ulimit -n, systemd's LimitNOFILE=, or --max-fd"
    if needed > usable:
        yield warning(
            f"{limit} descriptors for {cores(options)} connections",
            f"each takes {1 if detaches(options) else 2} in its worker{router}: one process "
            f"may need {needed}, and refuses visitors or spins without",
            remedy,
        )
    elif detaches(options) and limit < FEW_DESCRIPTORS:
        most = (usable - ROUTERS_OWN) // 2 if router else usable * workers(options)
        yield hint(
            f"{limit} descriptors",
            f"each WebSocket takes one in its worker{router}: from some {most} at a time on, "
            "handshakes are answered with 503",
            remedy,
        )


def _descriptors_needed(options: Options) -> int:
    """Return how many the busiest process needs when all cores are busy."""
    everybody = cores(options)
    each = everybody // workers(options)
    if detaches(options):
        return each + OTHER_DESCRIPTORS
    router = 2 * everybody + ROUTERS_OWN if has_router(options) else 0
    return max(2 * each + OTHER_DESCRIPTORS, router)
