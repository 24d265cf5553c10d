"""What a third party's server keeps of rooms: see sample_backplane."""

from __future__ import annotations

import time
from dataclasses import replace

from flask_uwsgi_websocket.rooms.backplane import Log
from flask_uwsgi_websocket.rooms.options import MAX_KEPT, History
from flask_uwsgi_websocket.rooms.positions import Position, new_epoch
from flask_uwsgi_websocket.rooms.record import KeptRecord


class Shelf:
    """The log of a room."""

    def __init__(self) -> None:
        self.seconds = 300.0
        self.clear()

    def clear(self) -> None:
        self.epoch = new_epoch()
        self.top = 0
        self.entries: list[KeptRecord] = []

    @property
    def position(self) -> Position:
        return Position(self.epoch, self.top)

    def append(self, record: KeptRecord) -> KeptRecord:
        self.top += 1
        self.seconds = record.history.seconds
        now = int(time.time() * 1000) / 1000
        kept = replace(record, history=History(), key="", position=self.position, time=now)
        self.entries.append(kept)
        self.trim(record.history)
        return kept

    def trim(self, history: History) -> None:
        del self.entries[: -history.count]
        while sum(len(entry.data) for entry in self.entries) > MAX_KEPT:
            del self.entries[0]

    def read(self, after: int, limit: int, max_size: int) -> Log:
        found: list[KeptRecord] = []
        for entry in self.entries:
            assert entry.position is not None
            size = sum(len(each.data) for each in (*found, entry))
            if len(found) == limit or (found and size > max_size):
                break
            if entry.position.offset > after and not self.is_over(entry):
                found.append(entry)
        return Log(self.epoch, self.top, tuple(found))

    def is_over(self, entry: KeptRecord) -> bool:
        return entry.time < time.time() - self.seconds


class Archive:
    """The logs of all rooms, what was sent with keys, and what apps say of their rooms."""

    def __init__(self, shelf: type[Shelf] = Shelf) -> None:
        self.shelf = shelf
        self.shelves: dict[tuple[str, str], Shelf] = {}
        self.sent: dict[tuple[tuple[str, str], str], Position] = {}
        self.descriptions: dict[str, str] = {}

    def of(self, room: tuple[str, str]) -> Shelf:
        if room not in self.shelves:
            self.shelves[room] = self.shelf()
        return self.shelves[room]

    def forget(self, room: tuple[str, str]) -> Position | None:
        """Where the log is after it began anew; None if there was none."""
        if (shelf := self.shelves.get(room)) is None:
            return None
        shelf.clear()
        for sent in [sent for sent in self.sent if sent[0] == room]:
            del self.sent[sent]
        return shelf.position

    def append(self, room: tuple[str, str], record: KeptRecord) -> KeptRecord | Position:
        """What to deliver; or where it is already."""
        if (room, record.key) in self.sent:
            return self.sent[room, record.key]
        shelf = self.of(room)
        kept = shelf.append(record)
        if record.key:
            self.sent[room, record.key] = shelf.position
        return kept
