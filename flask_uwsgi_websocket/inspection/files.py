"""Files of options: one parser for each kind, which takes a text and a section."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from .options import Pair

#: What may be in each kind of file, by its ending; also the option that names one.
KINDS = {"ini": "ini", "xml": "xml", "yaml": "yaml", "yml": "yaml", "json": "json", "js": "json"}


def kind_of(name: str | os.PathLike[str]) -> str | None:
    """Return the kind that a file's ending tells; None for another ending."""
    return KINDS.get(Path(name).suffix.lstrip("."))


def _parse_ini(text: str, section: str) -> Iterator[Pair]:
    current = ""
    for line in text.split("\n"):
        line = line.strip(" \t\r")
        if line.startswith("["):
            current = line[1:-1]
        elif line and line[0] not in ";#" and current == section:
            key, _, value = line.partition("=")
            yield key.rstrip(" \t\r"), value.strip(" \t\r")


def _parse_json(text: str, section: str) -> Iterator[Pair]:
    for key, value in json.loads(text).get(section, {}).items():
        for each in value if isinstance(value, list) else [value]:
            yield key, str(int(each or 0)) if isinstance(each, bool | None) else str(each)


def _parse_xml(text: str, section: str) -> Iterator[Pair]:
    root = ElementTree.fromstring(text)
    for group in root.iter("uwsgi"):
        if group.get("id", "uwsgi") == section:
            for element in group:
                content = (element.text or "").strip()
                yield element.tag, content or None


def _parse_yaml(text: str, section: str) -> Iterator[Pair]:
    """Read the YAML that uWSGI takes: a mapping of scalars and lists, in a mapping."""
    inside, key = False, ""
    for line in text.split("\n"):
        line = re.sub(r"(^|\s)#.*", "", line).rstrip()
        stripped = line.strip()
        if not stripped or stripped == "---":
            continue
        if stripped.startswith("- "):
            if inside and key:
                yield key, _scalar(stripped[2:])
        elif line[0] not in " \t":
            inside = stripped.rstrip(":").strip("'\"") == section
        elif inside:
            key, _, value = stripped.partition(":")
            key, value = key.strip("'\" "), value.strip()
            if value.startswith("["):
                yield from ((key, _scalar(each)) for each in value[1:-1].split(","))
            elif value:
                yield key, _scalar(value)


def _scalar(text: str) -> str:
    text = text.strip()
    return text[1:-1] if len(text) > 1 and text[0] == text[-1] and text[0] in "'\"" else text


#: A parser for each kind of file.
PARSERS: dict[str, Callable[[str, str], Iterator[Pair]]] = {
    "ini": _parse_ini,
    "json": _parse_json,
    "xml": _parse_xml,
    "yaml": _parse_yaml,
}
