"""The sources of uWSGI's options: its command line, files, the environment, an emperor.

Files are read as uWSGI reads them, without running anything. What ``@(exec://...)`` gives, or a
variable that is not set here, and whether the condition of an ``if-env`` block holds, is not known:
:attr:`Instance.notes` says so, and the options concerned are in doubt.
"""

from __future__ import annotations

import glob
import operator
import os
import re
import socket
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .files import KINDS, PARSERS, kind_of
from .options import EXPANDED, FILES, Options, Pair, canonical, integer, split_words

_ENDS = {"end", "endif", "end-if", "endfor", "end-for"}
_LOGIC = re.compile(r"(if|for)(-|env$|exists$|plugin$|dir$|file$|opt$|$)")
_SCHEME = re.compile(r"[a-z0-9]+://", re.IGNORECASE)

# uWSGI's own variables (parse_sys_envs in core/utils.c), which are no options.
_NO_OPTIONS = {"RELOADS", "VASSALS_DIR", "EMPEROR_FD", "BROODLORD_NUM", "EMPEROR_FD_CONFIG"}
_NO_OPTIONS |= {"EMPEROR_PROXY", "JAIL_PID", "ORIGINAL_PROC_NAME"}


def is_option(variable: str) -> bool:
    """Return whether uWSGI takes a variable of the environment for an option."""
    return variable.startswith("UWSGI_") and variable.removeprefix("UWSGI_") not in _NO_OPTIONS


class ConfigError(Exception):
    """A command line, a file or a process that uWSGI, or we, cannot read."""


@dataclass(frozen=True)
class Instance:
    """One uWSGI that would run, or runs: its options, and notes on what could not be judged.

    The name is a vassal's file; empty for what was asked for itself.
    """

    name: str
    options: Options
    notes: tuple[str, ...] = ()


def read(
    words: Sequence[str],
    environment: Mapping[str, str] = os.environ,
    folder: str | os.PathLike[str] = ".",
    known: Collection[str] = (),
) -> list[Instance]:
    """Read what a command line of uWSGI's comes to, and all vassals of an emperor in it.

    :param environment: uWSGI's, whose ``UWSGI_*`` variables are options.
    :param known: uWSGI's options, for abbreviated ones.
    :raises ConfigError: when uWSGI would not take the words.
    """
    reader = _Reader(Path(folder), environment)
    for name, value in environment.items():
        if is_option(name):
            reader.add(name[len("UWSGI_") :].lower().replace("_", "-"), value)
    pairs, others = split_words(words, known)
    for name, given in pairs:
        reader.add(name, given)
    for word in others:
        reader.add_word(word)
    instance = reader.finish()
    return [instance, *_vassals(instance.options, reader)]


class _Reader:
    """The options of one instance, as uWSGI puts them together."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = environment
        self._pairs: list[Pair] = []
        self._uncertain: set[str] = set()
        self._complete = True
        self._notes: list[str] = []
        self._file: Path | None = None
        self._block: str | None = None
        self._open: list[tuple[Path, str]] = []

    def finish(self, name: str = "") -> Instance:
        """Resolve what refers to something else, and return the whole."""
        self._resolve()
        for option, value in list(self._pairs):
            if option == "inherit":
                self.load("inherit", value or "")
        self._resolve()
        options = Options.of(self._pairs, self._uncertain, self._complete)
        return Instance(name, options, tuple(dict.fromkeys(self._notes)))

    def add(self, name: str, value: str | None) -> None:
        """Take an option, and what a file that it names holds."""
        if name in _ENDS:
            self._block = None
        elif self._block is not None:
            self._add_in_block(name)
        elif _LOGIC.match(name):
            self._block = f"{name} = {value}" if value else name
            why = "a loop" if name.startswith("for") else "depends on the machine"
            self._notes.append(f"the block under {self._block}: {why}, not judged")
        else:
            self._pairs.append((name, value))
            self._follow(canonical(name), value or "")

    def _add_in_block(self, name: str) -> None:
        self._uncertain.add(name)
        if canonical(name) in FILES:
            self._complete = False

    def _follow(self, name: str, value: str) -> None:
        if name in ("set", "set-placeholder"):
            option, _, text = value.partition("=")
            self._pairs.append((option, text))
        elif name in FILES and name != "inherit":
            self.load(name, value)

    def add_word(self, word: str) -> None:
        """Take a word that belongs to no option, as ``uwsgi app.ini`` has it; else ConfigError."""
        path = self._path(_split(word)[0])
        if word.startswith("["):
            return  # what the emperor leaves on its vassals' command lines
        if path.is_dir():
            self._pairs.append(("emperor", word))
        elif Path(word.partition(":")[0]).suffix in (".py", ".wsgi"):
            self._pairs.append(("wsgi-file", word))
        elif kind_of(path):
            if not path.exists() and not _SCHEME.match(word):
                raise ConfigError(f"{path}: there is no such file")
            self.load("include", word)
        elif ":" in word and "." in word:
            self._pairs.append(("module", word))
        else:
            raise ConfigError(f"{word!r} belongs to no uWSGI option, and is no file of options")

    # Files

    def load(self, option: str, word: str) -> None:
        """Take the options in a file, ``name.ini`` or ``name.ini:section``."""
        name, section = _split(word)
        # ":section" is one of the file that was read last.
        path = self._path(name) if name else self._file
        if path is None or name == "-" or _SCHEME.match(name):
            self._give_up(f"{option} = {word}: not looked at")
            return
        kind = kind_of(path) or KINDS.get(option) or "ini"
        visit = (path, section)
        if visit in self._open or len(self._open) > 20:
            return
        try:
            content = path.read_text(errors="replace")
            pairs = list(PARSERS[kind](_substitute(content, self._magic(path)), section or "uwsgi"))
        except (OSError, ValueError, SyntaxError) as error:
            reason = getattr(error, "strerror", None) or error
            self._give_up(f"{path}: {reason}; what it holds was not looked at")
            return
        if not pairs:
            self._notes.append(f"{path}: there is nothing in its section [{section or 'uwsgi'}]")
        self._file = path
        self._open.append(visit)
        for key, value in pairs:
            self.add(key, value)
        self._open.pop()

    def _give_up(self, note: str) -> None:
        self._complete = False
        self._notes.append(note)

    def _path(self, name: str) -> Path:
        return self.folder / os.path.expanduser(name)

    def _magic(self, path: Path) -> dict[str, str]:
        """Return what ``%d`` and its like stand for (config_magic_table_fill in core/uwsgi.c)."""
        full = path.absolute() if path.is_symlink() else path.resolve()
        parts = full.parent.parts[1:]
        table = {
            "p": str(full),
            "s": full.name,
            "n": full.stem,
            "e": full.suffix.lstrip("."),
            "d": f"{full.parent}/".replace("//", "/"),
            "c": full.parent.name,
            "o": str(path),
            "v": str(self.folder.absolute()),
            "h": socket.gethostname(),
            "k": str(os.cpu_count() or 1),
            "u": str(os.getuid()),
            "g": str(os.getgid()),
            "U": self.environment.get("USER", str(os.getuid())),
            "%": "%",
            "(": "%(",
            **{str(number): part for number, part in enumerate(parts[:10])},
        }
        return table | {letter.upper(): table[letter] for letter in "psnedco"}

    # Placeholders

    def _resolve(self) -> None:
        marks: dict[str, Callable[[str], str | None]] = {
            "$": self.environment.get,
            "@": self._content,
            "%": self._placeholder,
        }
        for mark, look_up in marks.items():
            self._pairs = [(name, v and _fill(mark, v, look_up)) for name, v in self._pairs]

    def _content(self, name: str) -> str | None:
        if _SCHEME.match(name):
            return None
        try:
            return self._path(name).read_text().rstrip("\r\n")
        except (OSError, ValueError):
            return None

    def _placeholder(self, expression: str) -> str | None:
        if " " not in expression.strip():
            return self._first(expression)
        return self._calculate(expression.split())

    def _first(self, name: str) -> str | None:
        values = (value for key, value in self._pairs if key == name)
        found = next(values, None)
        return None if found is None or EXPANDED.search(found) else found

    def _calculate(self, tokens: Sequence[str]) -> str | None:
        """Work out ``%(processes * 2)``, from left to right (uwsgi_manage_placeholder)."""
        result, operation = "", ""
        for token in tokens:
            if token in _OPERATORS:
                operation = token
                continue
            if token in ("++", "--"):
                result, operation = str(integer(result) + (1 if token == "++" else -1)), ""
                continue
            value = token if token.lstrip("-").isdigit() else self._first(token)
            if value is None:
                return None
            calculate = _OPERATORS.get(operation)
            number = calculate and calculate(integer(result), integer(value))
            result, operation = result + value if number is None else str(number), ""
        return result


_OPERATORS: dict[str, Callable[[int, int], int]] = {
    "+": operator.add,
    "-": operator.sub,
    "*": operator.mul,
    "/": lambda left, right: left // right if right else 0,
}


def _fill(mark: str, value: str, look_up: Callable[[str], str | None]) -> str:
    def replace(match: re.Match[str]) -> str:
        found = look_up(match[1])
        return match[0] if found is None else found

    return re.sub(rf"{re.escape(mark)}\(([^()]*)\)", replace, value)


def _split(word: str) -> tuple[str, str]:
    """Split ``file.ini:section``; without a section it is an empty string."""
    before, colon, after = word.rpartition(":")
    has_section = colon and not _SCHEME.match(word) and (not before or kind_of(before))
    return (before, after) if has_section else (word, "")


def _substitute(content: str, magic: Mapping[str, str]) -> str:
    """Replace ``%d`` and its like; one that means nothing goes (magic_sub in core/utils.c)."""
    return re.sub("%(.)", lambda match: magic.get(match[1], ""), content)


# An emperor


def _vassals(options: Options, emperor: _Reader) -> Iterator[Instance]:
    for place in options.values("emperor"):
        files = _vassal_files(emperor.folder, place)
        if not files:
            note = "not looked at" if files is None else "there are no vassals"
            yield Instance(place, Options({}, complete=False), (f"{place}: {note}",))
        for file in files or ():
            reader = _Reader(emperor.folder, emperor.environment)
            for name in ("vassals-include-before", "vassals-include"):
                for template in options.values(name):
                    reader.load("include", template)
            for assignment in options.values("vassal-set"):
                reader.add("set", assignment)
            reader.load("include", str(file))
            for name in ("vassals-inherit-before", "vassals-inherit"):
                for template in options.values(name):
                    reader.add("inherit", template)
            yield reader.finish(str(file))


def _vassal_files(folder: Path, place: str) -> list[Path] | None:
    """Return the files that an emperor would start; None for a place that holds no files."""
    scheme = _SCHEME.match(place)
    if scheme and scheme[0] not in ("dir://", "glob://"):
        return None
    path = os.path.join(folder, place[scheme.end() :] if scheme else place)
    names = glob.glob(os.path.join(path, "*") if os.path.isdir(path) else path)
    return sorted(Path(name) for name in names if kind_of(name))
