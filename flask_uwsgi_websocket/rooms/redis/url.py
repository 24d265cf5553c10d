"""URLs of Redis and Valkey: which server is meant, and how to log in there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

_PORT, _SENTINEL_PORT = 6379, 26379
_FORMS = (
    "redis://user:password@host:6379/0, rediss:// with TLS, unix:///path/redis.sock, "
    "redis+sentinel://host:26379,host/name-of-the-master/0, or redis+cluster://host:6379,host; "
    "valkey:// is the same as redis://"
)
_ESCAPED = "in a user or password, write / as %2F, ? as %3F, # as %23, @ as %40, : as %3A"
_OPTIONS = {
    "db": "the number of a database",
    "protocol": "2 or 3, of RESP",
}
_TLS_OPTIONS = {
    "ca": "the file of the authority that signed the server's certificate",
    "cert": "the file of a certificate of our own",
    "key": "the file of its key",
    "verify": "full, ca (any host name) or none",
}
_SENTINEL_OPTIONS = {
    "sentinel_username": "what the sentinels themselves ask for",
    "sentinel_password": "what the sentinels themselves ask for",
}


class Kind(Enum):
    """What stands at the addresses of a URL."""

    SERVER = ""
    SENTINEL = "sentinel"
    CLUSTER = "cluster"


#: The schemes that are Redis' or Valkey's.
SCHEMES = frozenset(
    {"unix"}
    | {
        f"{name}{tls}{kind.value and '+'}{kind.value}"
        for name in ("redis", "valkey")
        for tls in ("", "s")
        for kind in Kind
    }
)


@dataclass(frozen=True)
class Login:
    """A user and a password; shows neither."""

    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)


#: From Python 3.14 on urlsplit() allows brackets around the first of several hosts only.
_LATER_IPV6 = re.compile(r",\[[^]/?#@]*\]")


@dataclass(frozen=True)
class Address:
    """Where a server listens: a host and a port, or the path of a Unix socket."""

    host: str
    port: int = 0

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" if self.port else self.host


@dataclass(frozen=True)
class RedisURL:
    """A URL in its parts. Its text is without user, password and options."""

    scheme: str
    kind: Kind
    addresses: tuple[Address, ...]
    login: Login = Login()
    sentinel_login: Login = Login()
    master: str = ""
    db: int = 0
    protocol: int = 2
    tls: Mapping[str, str] | None = field(default=None, repr=False)

    def __str__(self) -> str:
        addresses = ",".join(map(str, self.addresses))
        return f"{self.scheme}://{addresses}" + (f"/{self.master}" if self.master else "")


def parse(url: str) -> RedisURL:
    """Read a URL.

    :raises ValueError: for one that is wrong. Says what is right, and never quotes the URL, which
        may have a password in it.
    """
    try:
        parts = urlsplit(_LATER_IPV6.sub(lambda found: quote(found[0], safe=","), url))
    except ValueError:  # its text may quote the password
        raise ValueError(f"no URL of Redis: {_ESCAPED}; right is {_FORMS}") from None
    if parts.scheme not in SCHEMES:
        raise ValueError(f"no URL of Redis: right is {_FORMS}")
    base, _, kind = parts.scheme.partition("+")
    tls = base in ("rediss", "valkeys")
    if parts.fragment or "@" in parts.path + parts.query:
        raise ValueError(f"a URL of Redis that is cut by its password: {_ESCAPED}")
    login, hosts = _login_of(parts)
    options = _options_of(parts, tls, Kind(kind))
    master, db = _path_of(parts, Kind(kind), options.pop("db", None))
    protocol = options.pop("protocol", "2")
    if protocol not in ("2", "3"):
        raise ValueError("the option protocol of a URL of Redis is 2 or 3")
    return RedisURL(
        parts.scheme,
        Kind(kind),
        _addresses_of(parts, Kind(kind), hosts),
        login,
        Login(options.pop("sentinel_username", None), options.pop("sentinel_password", None)),
        master,
        db,
        int(protocol),
        options if tls else None,
    )


def _login_of(parts: SplitResult) -> tuple[Login, str]:
    before, at, hosts = parts.netloc.rpartition("@")
    user, _, password = before.partition(":")
    if "@" in before:
        raise ValueError(f"a URL of Redis with two @: {_ESCAPED}")
    if at and not password and not user:
        raise ValueError("a URL of Redis with nothing before its @: user:password@ or :password@")
    if at and not password:
        raise ValueError("a URL of Redis with a user but no password: user:password@ or :password@")
    return Login(unquote(user) or None, unquote(password) or None), hosts


def _addresses_of(parts: SplitResult, kind: Kind, hosts: str) -> tuple[Address, ...]:
    if parts.scheme == "unix":
        if hosts or not parts.path:
            raise ValueError(
                "the URL of a Unix socket is unix:///path/of/redis.sock: three slashes"
            )
        return (Address(unquote(parts.path)),)
    port = _SENTINEL_PORT if kind is Kind.SENTINEL else _PORT
    addresses = tuple(_address_of(host, port) for host in hosts.split(","))
    if kind is Kind.SERVER and len(addresses) > 1:
        raise ValueError(
            "a URL of Redis with several hosts: redis+sentinel://host,host/name-of-the-master or "
            "redis+cluster://host,host"
        )
    return addresses


def _address_of(text: str, port: int) -> Address:
    host, colon, number = text.rpartition(":")
    if not colon or text.endswith("]"):
        host, number = text, str(port)
    if not number.isascii() or not number.isdecimal() or not 0 < int(number) < 65536:
        raise ValueError(f"a URL of Redis whose port is no number of 1 to 65535; {_ESCAPED}")
    return Address(unquote(host).strip("[]") or "localhost", int(number))


def _path_of(parts: SplitResult, kind: Kind, db: str | None) -> tuple[str, int]:
    path = "" if parts.scheme == "unix" else parts.path.strip("/")
    master = ""
    if kind is Kind.SENTINEL:
        master, _, path = path.partition("/")
        if not master:
            raise ValueError(
                "a URL of Redis Sentinel names the master that the sentinels watch: "
                "redis+sentinel://host:26379,host/mymaster"
            )
    number = db or path or "0"
    if not number.isascii() or not number.isdecimal() or (db and path and db != path):
        raise ValueError(f"a URL of Redis ends with the number of a database, as /0; {_ESCAPED}")
    if kind is Kind.CLUSTER and number != "0":
        raise ValueError("a Redis cluster has one database only: leave its number out of the URL")
    return unquote(master), int(number)


def _options_of(parts: SplitResult, tls: bool, kind: Kind) -> dict[str, str]:
    known = _OPTIONS | (_TLS_OPTIONS if tls else {})
    known |= _SENTINEL_OPTIONS if kind is Kind.SENTINEL else {}
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in options:
        if name in _TLS_OPTIONS and name not in known:
            raise ValueError(f"{name} is an option of TLS, whose URLs begin with rediss://")
        if name not in known:
            described = "; ".join(f"{key}: {text}" for key, text in known.items())
            raise ValueError(f"a URL of Redis with an option that is none; there are {described}")
    if options.get("verify", "full") not in ("full", "ca", "none"):
        raise ValueError("the option verify of a URL of Redis is full, ca or none")
    return options
