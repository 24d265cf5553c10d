"""Which backplane a URL names: ours by its scheme, a third party's by an entry point."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import cast

from .backplane import Backplane, BackplaneOptions
from .redis.url import SCHEMES

#: The entry points of third parties: each is named as the scheme of its URLs.
GROUP = "flask_uwsgi_websocket.backplanes"

_REDIS = "redis.backplane:RedisBackplane"
#: Ours, by scheme: loaded when needed, since what one stands on may not be installed.
_OURS = {
    "memory": "memory:MemoryBackplane",
    "local": "local.mesh:LocalBackplane",
    **dict.fromkeys(sorted(SCHEMES), _REDIS),
}


def make_backplane(url: str, options: BackplaneOptions) -> Backplane:
    """Make the backplane that a URL names; does no I/O.

    :raises ValueError: for a URL that none takes; says what one looks like.
    """
    scheme = scheme_of(url)
    backplane_class = _our_class(scheme) if scheme in _OURS else _their_class(scheme)
    return backplane_class(url, options)


def scheme_of(url: str) -> str:
    """Return the scheme of a URL; ValueError where there is none."""
    scheme, separator, _ = url.partition("://")
    if not (scheme and separator):
        # It is not quoted: there may be a password in it.
        raise ValueError(f"no URL of a backplane: one begins with {', '.join(_known())}")
    return scheme.lower()


def _our_class(scheme: str) -> type[Backplane]:
    module, _, name = _OURS[scheme].partition(":")
    try:
        return cast("type[Backplane]", getattr(import_module(f".{module}", __package__), name))
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise ValueError(
            f"{scheme}:// needs redis-py: pip install 'Flask-uWSGI-WebSocket[redis]'"
        ) from None


def _their_class(scheme: str) -> type[Backplane]:
    for point in _entry_points():
        if point.name == scheme:
            return cast("type[Backplane]", point.load())
    raise ValueError(f"there is no backplane for {scheme}://, only for {', '.join(_known())}")


def _known() -> list[str]:
    return [f"{scheme}://" for scheme in [*_OURS, *(point.name for point in _entry_points())]]


def _entry_points() -> tuple[EntryPoint, ...]:
    return tuple(entry_points(group=GROUP))
