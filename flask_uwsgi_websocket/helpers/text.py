"""Make text that clients sent fit for logs, terminals and messages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

#: Characters of one text of a client's in a line of a log: uWSGI takes headers of up to 64 KiB.
MAX_SHOWN = 300


def printable(text: object, keep: str = "") -> str:
    """Escape a text so that it forges no line of a log and no terminal obeys it.

    Whatever is not printable (control characters, line separators, marks that turn the direction
    of writing, surrogates) becomes its escape in Python, such as ``\\x1b``.

    :param keep: characters to leave as they are.
    """
    written = str(text)
    if written.isprintable():
        return written
    return "".join(
        char if char.isprintable() or char in keep else char.encode("unicode_escape").decode()
        for char in written
    )


def shown(text: object) -> str:
    """Make a text that a client has a part in fit for a line of a log, whatever its length."""
    written = printable(str(text)[: MAX_SHOWN + 1])
    return written if len(written) <= MAX_SHOWN else f"{written[: MAX_SHOWN - 3]}..."


def from_wsgi(text: str) -> str:
    """Decode what WSGI has as Latin-1 of the bytes that came, which were UTF-8 (PEP 3333)."""
    try:
        return text.encode("latin-1").decode(errors="replace")
    except UnicodeEncodeError:
        return text  # it was decoded by somebody else


def path_of(environ: Mapping[str, Any]) -> str:
    """Return the decoded path of a request, without the part that mounts the app."""
    return from_wsgi(str(environ.get("PATH_INFO", "")))
