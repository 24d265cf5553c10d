"""uWSGI's options as ``app.run`` takes them, which is as keyword arguments.

``True`` is a bare flag, ``False`` and ``None`` leave one out (also one of the defaults in
:mod:`.defaults`), a list or tuple repeats it, underscores become dashes, and a trailing underscore
goes (``async_=100`` for a name that Python reserves). A flag, which takes no value, may also be
given as in uWSGI's files: ``master=1``, ``vacuum='false'``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..exceptions import EngineError
from ..inspection import options as inspection
from ..inspection.options import FLAGS, OFF, ON, OPTIONAL, SHORT, spellings

#: uWSGI's names, without the dashes in front, to values.
Options = dict[str, Any]

#: Options that load plugins, which bring options of their own.
PLUGIN_LOADERS = spellings("plugins", "plugins-dir")


def spelling(keyword: str) -> str:
    """Return uWSGI's name for a keyword."""
    return keyword.rstrip("_").replace("_", "-")


def settled(name: str, value: Any) -> Any:
    """Return an option's value; that of a flag as True or False.

    uWSGI itself would take what else a flag was given for the name of a configuration file.

    :raises EngineError: for a value that means neither.
    """
    if SHORT.get(name, name) not in FLAGS or value is None:
        return value
    switch = str(value).lower()
    if switch not in (*ON, *OFF):
        raise EngineError(
            f"--{name} takes no value: {name.replace('-', '_')}=True instead of {value!r}, or "
            f"False to leave it out"
        )
    return switch in ON


def values(value: Any) -> Sequence[Any]:
    """Return what a value stands for: one, or as many as the option is repeated."""
    return value if isinstance(value, (list, tuple)) else (value,)


def number(value: Any) -> int:
    """Return an option's number; 0 for what is none, about which uWSGI will complain."""
    return inspection.integer(str(value))


def arguments(name: str, value: Any) -> list[str]:
    """Return one option as words for uWSGI, as often as it has values."""
    flag = f"-{name}" if len(name) == 1 else f"--{name}"
    words: list[str] = []
    for each in values(value):
        if each is True:
            words.append(flag)
        elif each is not None and each is not False:
            words += [f"{flag}={each}"] if name in OPTIONAL else [flag, str(each)]
    return words


def plugin_arguments(options: Options) -> list[str]:
    """Return what stands before the options that plugins bring; their folders go first."""
    names = sorted(options.keys() & PLUGIN_LOADERS, key=lambda name: not name.endswith("-dir"))
    return [word for name in names for word in arguments(name, options[name])]


def for_rules(options: Options) -> inspection.Options:
    """Return the options in the form of :mod:`..inspection`."""
    return inspection.Options.of(
        (SHORT.get(name, name), None if each is True else str(each))
        for name, value in options.items()
        for each in values(value)
    )
