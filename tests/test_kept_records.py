"""Positions, and the records of kept rooms."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from flask_uwsgi_websocket import Room
from flask_uwsgi_websocket.rooms.channels import room_channel
from flask_uwsgi_websocket.rooms.options import DEFAULT, RoomOptions, RoomPatterns
from flask_uwsgi_websocket.rooms.positions import Position, new_epoch
from flask_uwsgi_websocket.rooms.record import BadRecord, KeptRecord, Kind, Record, decode, kept


def test_a_position_reads_as_it_was_written() -> None:
    for position in (Position("k3v9", 16), Position(new_epoch(), 0), Position("a", 10**15 - 1)):
        assert Position.parse(str(position)) == position


@pytest.mark.parametrize(
    "text",
    [
        *("", ".", "k3v9", "k3v9.", ".1", "k3v9.-1", "k3v9.1.2", "k3v9.1\n", " k3v9.1", "K3V9.1"),
        *("k3v9.01", "k3v9.1e3", "k3v9.٣", "é.1", "k3v9.\0", f"k3v9.1{'0' * 15}", f"{'a' * 33}.1"),
        *(None, 1, 1.5, b"k3v9.1", ["k3v9.1"], "a" * 1_000_000),
    ],
)
def test_what_is_no_position_is_none(text: Any) -> None:
    assert Position.parse(text) is None


RECORD = KeptRecord(
    Kind.MESSAGE, (room_channel("chat/ä"),), b"\0hi\xff", False, ("one", "two"), b"12345678", 7
)


def test_a_kept_record_reads_as_it_was_written() -> None:
    for record in (RECORD, replace(RECORD, data="hä".encode(), text=True, exclude=())):
        record = replace(record, position=Position("k3v9", 16), time=1_764_000_000.123)
        assert decode(record.encode()) == record
        assert kept(record.body(), record.position or Position("", 0), record.time) == record


def test_a_server_puts_the_stamp_before_the_body() -> None:
    stamped = b"Kk3v9.16 1764000000123\0" + RECORD.body()
    assert decode(stamped) == replace(RECORD, position=Position("k3v9", 16), time=1764000000.123)


@pytest.mark.parametrize(
    "data",
    [
        b"K" + bytes(30),
        b"K" * 30,
        b"Kk3v9.16 x\0" + RECORD.body(),
        b"Kk3v9.x 1\0" + RECORD.body(),
        b"Kk3v9.16 1\0" + RECORD.body()[:-10],
        b"Kk3v9.16 1\0Kk3v9.16 1\0" + RECORD.body(),
        b"Kk3v9.16 1\0" + Record(Kind.MESSAGE, ("room:a", "room:b"), b"more than one").encode(),
        b"K\xff\xff" + RECORD.body(),
    ],
)
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(BadRecord):
        decode(data)


def test_options_are_given_as_switches_or_in_full() -> None:
    assert RoomOptions(history=True).history == Room.history(100, 300)  # type: ignore[arg-type]
    assert RoomOptions(presence=True).presence == Room.presence(10)  # type: ignore[arg-type]
    assert RoomOptions(history=False).history is None  # type: ignore[arg-type]
    assert RoomOptions(history=Room.history(count=7)).history == Room.history(7, 300.0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"history": 100}, "history is 100: it must be True, False or Room.history"),
        ({"presence": "yes"}, "presence is 'yes': it must be True, False or Room.presence"),
        ({"announce": "yes"}, "announce is 'yes': it must be True or False"),
        ({"announce": True}, "announce needs presence=True"),
    ],
)
def test_other_options_are_refused(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        RoomOptions(**options)


def test_histories_have_limits() -> None:
    for count in (0, 10_001, 1.5, True):
        with pytest.raises(ValueError, match=r"count is .* from 1 to 10000"):
            Room.history(count)  # type: ignore[arg-type]
    for seconds in (0, -1, float("nan"), "300"):
        with pytest.raises(ValueError, match="seconds is"):
            Room.history(seconds=seconds)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="grace is -1"):
        Room.presence(grace=-1)


def test_patterns_read_as_they_were_described() -> None:
    patterns = RoomPatterns()
    patterns.add("chat/*", history=Room.history(5), presence=True, announce=True)
    patterns.add("*", slow="latest", max_members=3)
    described = RoomPatterns.described(patterns.describe())
    for room in ("chat/a", "else"):
        assert described.of(room) == patterns.of(room) != DEFAULT


@pytest.mark.parametrize("text", ["", "[]", "1", '{"a": {}}', '{"a": {"history": 1}}', "{"])
def test_what_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"Expecting|description"):
        RoomPatterns.described(text)
