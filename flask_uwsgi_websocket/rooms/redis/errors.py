"""What goes wrong with Redis, in words for those who run it."""

from __future__ import annotations

import asyncio
import re
from typing import Any, TypeGuard

from redis import exceptions as redis

from .url import Address

_FULL = (
    "it is full: raise its maxmemory, or have rooms keep less; its maxmemory-policy may be "
    "volatile-ttl, with which it drops what expires first"
)
_REPLICA = "it is a replica: name the master, or use redis+sentinel://"
_FORBIDDEN = "its ACL forbids it: see docs/rooms for what the user needs"

#: Where what is wrong can be told by the text only: a part of it, and what to do.
_TEXTS = {
    "CERTIFICATE_VERIFY_FAILED": "its certificate is not to be trusted here: name the authority "
    "that signed it by ?ca=FILE, and the server as the certificate does",
    "No such file": "a file is not there: that of a Unix socket, or of the options ca, cert, key",
    "CERTIFICATE_REQUIRED": "it asks for a certificate of ours: ?cert=FILE&key=FILE",
    "WRONG_VERSION_NUMBER": "it speaks no TLS there: take its TLS port, or redis://",
    "record layer": "it speaks no TLS there: take its TLS port, or redis://",
    "Connection refused": "nothing listens there: is the server running, and is the port right?",
    "Connect call failed": "nothing listens there: is the server running, and is the port right?",
    "Name or service not known": "the name of its host is not known",
    "Temporary failure in name": "the name of its host could not be looked up",
    "Permission denied": "this user may not open the socket: see its mode and the directory's",
    "max number of clients": "it has as many clients as maxclients allows",
    "MOVED ": "the cluster is moving slots",
    "ASK ": "the cluster is moving slots",
    "TRYAGAIN": "the cluster is moving slots",
    "OOM ": _FULL,
    "READONLY ": _REPLICA,
    "MISCONF": "it cannot save its data to disk, and takes none meanwhile: see its log",
    "NOREPLICAS": "it has fewer replicas than min-replicas-to-write asks for",
    "WRONGTYPE": "keys of rooms are used by others: see UWSGI_WEBSOCKET_PREFIX",
    "BUSY ": "it is held up by a script: see its SCRIPT KILL",
    "can't run this command": _FORBIDDEN,
    "can't access at least one of the keys": _FORBIDDEN,
    "ACL failure in script": _FORBIDDEN,
    "CLUSTERDOWN": "the cluster is down: see redis-cli cluster info",
    "unknown command": "it is too old: rooms need Redis 6.2, in a cluster 7.0, or Valkey",
    "closed connection": "it closed the connection",
    "closed by server": "it closed the connection",
    "Connection reset": "it closed the connection",
    "Connection lost": "it closed the connection",
    "Broken pipe": "it closed the connection",
}

_TYPES: tuple[tuple[type[BaseException], str], ...] = (
    (redis.NoPermissionError, _FORBIDDEN),
    (redis.AuthenticationError, "it refuses user and password: correct those in the URL"),
    (redis.BusyLoadingError, "it has just started, and is loading its data"),
    (redis.OutOfMemoryError, _FULL),
    (redis.ReadOnlyError, _REPLICA),
    (redis.ClusterDownError, "the cluster is down: see redis-cli cluster info"),
)

_SECRETS = re.compile(r"//[^/@\s]*@")


class Lost(Exception):
    """A connection is over before all replies to a call have come.

    :param replies: those that have; None where nothing was sent.
    """

    def __init__(self, error: BaseException, replies: list[Any] | None) -> None:
        super().__init__(error)
        self.error = error
        self.replies = replies


class NotAnswering(Exception):
    """A server that has not answered within the time it had."""

    def __init__(self, tls: bool = False) -> None:
        super().__init__(
            "it does not answer: it hangs or is paused, or something on the way drops what is sent"
            + (", or it speaks no TLS at that port" if tls else "")
        )


class NoMaster(Exception):
    """Sentinels that know no master, or cannot be asked."""


def is_moved(error: object) -> bool:
    """Return whether a server refuses what is another one's, of its cluster."""
    # Before redis-py 6 only its own client of clusters has a type for it.
    return isinstance(error, redis.MovedError) or str(error).startswith("MOVED ")


def is_torn(error: object) -> bool:
    """Return whether some of the keys that a command needs have moved to another node, some not."""
    return _code_of(error) == "TRYAGAIN"


def moving_to(error: object) -> Address | None:
    """Return the node that a slot is moving to, where its keys are already."""
    words = str(error).removeprefix("ASK ").split()
    if _code_of(error) != "ASK" or len(words) != 2:
        return None
    host, _, port = words[1].rpartition(":")
    return Address(host, int(port))


def _code_of(error: object) -> str:
    # A type, whose text is without the code, has it only since redis-py 6.
    names = {"AskError": "ASK", "TryAgainError": "TRYAGAIN"}
    is_one = isinstance(error, redis.ResponseError)
    return names.get(type(error).__name__, str(error).partition(" ")[0]) if is_one else ""


def is_replica(error: object) -> TypeGuard[BaseException]:
    """Return whether a server refuses to write, since another one is the master."""
    # What a script of an older Redis is refused has the reason in its text only.
    is_one = isinstance(error, redis.ResponseError)
    return isinstance(error, redis.ReadOnlyError) or (is_one and "READONLY " in str(error))


def explain(error: BaseException) -> str:
    """Return what went wrong, and the remedy where there is one."""
    if isinstance(error, Lost):
        return explain(error.error)
    if isinstance(error, (TimeoutError, asyncio.TimeoutError, redis.TimeoutError)):
        return str(NotAnswering())
    if isinstance(error, (NotAnswering, NoMaster)):
        return str(error)
    text = " ".join(str(error).split())
    for kind, remedy in _TYPES:
        if isinstance(error, kind):
            return _joined(remedy, text)
    for part, remedy in _TEXTS.items():
        if part in text:
            return _joined(remedy, text)
    return _SECRETS.sub("//", text) or type(error).__name__


def _joined(remedy: str, text: str) -> str:
    return f"{remedy} ({_SECRETS.sub('//', text):.200})" if text else remedy
