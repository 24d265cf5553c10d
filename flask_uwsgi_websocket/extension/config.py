"""The configuration of an app: every key with its default and what it may be."""

from __future__ import annotations

import re
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from math import inf
from typing import Any

from ..codec import DeflateSettings
from ..connection.base import Limits
from ..helpers.checks import (
    BUFFER,
    BYTES,
    BYTES_OR_NONE,
    CONNECTIONS_OR_NONE,
    RATE_OR_NONE,
    SECONDS,
    SECONDS_OR_NONE,
    SWITCH,
    Kind,
    nearest,
    whole,
)
from ..helpers.log import level_of, logger
from ..rooms.backplane import BackplaneOptions
from ..rooms.backplanes import make_backplane
from ..rooms.exchange import worker_name
from ..rooms.live import RoomSettings
from ..rooms.local.directory import name_of_app
from ..session.origins import parse_origins

PREFIX = "UWSGI_WEBSOCKET_"


@dataclass(frozen=True)
class Setting:
    """A configuration key: its default, and a check that raises ValueError for a bad value."""

    default: Any
    check: Callable[[str, Any], None]


def check_backplane(name: str, value: Any, prefix: str = "") -> None:
    """Check the URL of a backplane, of which None means the default; else ValueError.

    :param prefix: what is in front of all names there.
    """
    if value is None:
        return
    if not isinstance(value, str):
        raise ValueError(f"{name} is {value!r}: it must be None or a URL")
    try:
        make_backplane(value, BackplaneOptions(prefix, worker_name()))
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None  # its value may have a password in it


def check_prefix(name: str, value: str) -> None:
    """Check that a directory can be named for a prefix, as statistics need it; else ValueError."""
    try:
        name_of_app(value)
    except ValueError as error:
        raise ValueError(f"{name}: {error}; choose a shorter one") from None


def check_origins(name: str, value: Any) -> None:
    """Check configured origins, of which None means the request's host; else ValueError."""
    if value is not None:
        try:
            parse_origins(value)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None


def check_level(name: str, value: Any) -> None:
    """Check a level of logging, of which None means no lines; else ValueError."""
    try:
        level_of(value)
    except ValueError:
        raise ValueError(
            f"{name} is {value!r}: it must be None for no lines, or a level of logging: a number, "
            "'DEBUG', 'INFO', 'WARNING' or 'ERROR'"
        ) from None


COMPRESSION = Kind(
    "True, False or a DeflateSettings",
    lambda value: isinstance(value, DeflateSettings) or SWITCH.accepts(value),
)

NAME_OR_NONE = Kind(
    "None or a str without control characters",
    lambda value: value is None or (isinstance(value, str) and value.isprintable()),
)

SHARE = Kind(
    "a number from 0 to 1",
    lambda v: isinstance(v, (int, float)) and not isinstance(v, bool) and 0 <= v <= 1,
)

#: By name, without the prefix. Sizes in bytes, times in seconds.
SETTINGS = {
    "MAX_MESSAGE_SIZE": Setting(Limits.max_message_size, BYTES.check),
    "PING_INTERVAL": Setting(Limits.ping_interval, SECONDS_OR_NONE.check),
    "PING_TIMEOUT": Setting(Limits.ping_timeout, SECONDS.check),
    "SEND_QUEUE_SIZE": Setting(Limits.send_queue_size, BYTES_OR_NONE.check),
    "SEND_TIMEOUT": Setting(Limits.send_timeout, SECONDS.check),
    "SEND_BUFFER": Setting(Limits.send_buffer, BUFFER.check),
    "MAX_RATE": Setting(Limits.max_rate, RATE_OR_NONE.check),
    "MAX_CONNECTIONS": Setting(None, CONNECTIONS_OR_NONE.check),
    "COMPRESSION": Setting(False, COMPRESSION.check),
    "ALLOWED_ORIGINS": Setting(None, check_origins),
    "REQUEST_CONTEXT": Setting(True, SWITCH.check),
    "LEGACY": Setting(False, SWITCH.check),
    "AGGRESSIVE_PATCH": Setting(True, SWITCH.check),
    "BACKPLANE": Setting(None, check_backplane),
    "PREFIX": Setting(None, NAME_OR_NONE.check),
    "ROOM_MESSAGE_SIZE": Setting(RoomSettings.message_size, BYTES.check),
    "MAX_ROOMS": Setting(RoomSettings.max_rooms, whole(1, inf).check),
    "ROOMS_STORE": Setting(RoomSettings.store_size, BYTES.check),
    # Clients can bring about all of these as often as they like: a log that nobody has set up,
    # which shows warnings, must not be filled by them.
    "LOG_OPENED": Setting("DEBUG", check_level),
    "LOG_CLOSED": Setting("DEBUG", check_level),
    "LOG_ABNORMAL": Setting("INFO", check_level),
    "LOG_REFUSED": Setting("INFO", check_level),
    "OTEL": Setting(True, SWITCH.check),
    "OTEL_MESSAGES": Setting(0, SHARE.check),
}


def read(config: MutableMapping[str, Any], name: str) -> Any:
    """Return a checked value, since an app may set it after :func:`set_up`; else ValueError."""
    setting = SETTINGS[name]
    value = config.get(PREFIX + name, setting.default)
    if value is not setting.default:  # which set_up() adds, and which most have
        setting.check(PREFIX + name, value)
    return value


def set_up(config: MutableMapping[str, Any]) -> None:
    """Check the values that an app has, as :func:`read`; warn of unknown keys; add the defaults."""
    for key in config:
        if key.removeprefix(PREFIX) in SETTINGS or not key.startswith(PREFIX.rstrip("_")):
            continue
        name = re.sub("^UWSGI_WEBSOCKETS?_?", "", key)
        logger.warning("unknown configuration key %s%s", key, nearest(name, SETTINGS, PREFIX))
    for name in SETTINGS:
        config[PREFIX + name] = read(config, name)
