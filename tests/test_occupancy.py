"""Who is in which room, as a store of presence keeps it."""

from __future__ import annotations

from typing import Any

import pytest

from flask_uwsgi_websocket.rooms.presence.members import Left, Occupant, members_of
from flask_uwsgi_websocket.rooms.presence.occupancy import Occupancy


def one(connection: str, user: str = "ann", **fields: Any) -> Occupant:
    fields = {"channel": "room:a", "info": "null", "since": 1.0, **fields}
    return Occupant(connection=connection, user=user, **fields)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which tests set."""
    now = [1000.0]
    monkeypatch.setattr(
        "flask_uwsgi_websocket.rooms.presence.occupancy.time.monotonic", lambda: now[0]
    )
    return now


def test_a_user_is_new_once(clock: list[float]) -> None:
    rooms = Occupancy()
    assert rooms.enter([one("1"), one("2"), one("3", "bob")]) == [True, False, True]
    assert rooms.enter([one("1", channel="room:b")]) == [True]
    rooms.leave([("room:a", "1")])
    assert rooms.sweep() == []
    [ann, bob] = members_of(rooms.occupants("room:a"))
    assert (ann.user, ann.connections, bob.connections) == ("ann", 1, 1)


def test_grace(clock: list[float]) -> None:
    rooms = Occupancy()
    rooms.enter([one("1", grace=10, since=5.0), one("2", "bob")])
    rooms.leave([("room:a", "1")])
    clock[0] += 9
    assert rooms.sweep() == []
    assert members_of(rooms.occupants("room:a"))[1].connections == 0
    assert rooms.enter([one("3", grace=10, since=6.0, info='"new"')]) == [False]
    clock[0] += 9
    assert rooms.sweep() == []
    assert members_of(rooms.occupants("room:a"))[1] == ("ann", "new", 1, 5.0)
    rooms.leave([("room:a", "3"), ("room:a", "2")])
    assert rooms.sweep() == [Left("room:a", "bob", "null", 1.0, False)]
    clock[0] += 10
    assert rooms.sweep() == [Left("room:a", "ann", '"new"', 5.0, True)]
    assert rooms.sweep() == []
    assert rooms.occupants("room:a") == []


def test_those_who_leave_together(clock: list[float]) -> None:
    rooms = Occupancy()
    rooms.enter([one(str(n), f"user{n}") for n in range(3)])
    for number in (2, 0, 1):
        rooms.leave([("room:a", str(number))])
        clock[0] += 1
    left = rooms.sweep()
    assert [each.user for each in left] == ["user2", "user0", "user1"]
    assert [each.room_is_empty for each in left] == [False, False, True]


def test_what_is_not_there_cannot_leave(clock: list[float]) -> None:
    rooms = Occupancy()
    rooms.leave([("room:a", "1")])
    rooms.enter([one("1")])
    rooms.leave([("room:a", "2"), ("room:b", "1"), ("room:a", "1"), ("room:a", "1")])
    assert [each.user for each in rooms.sweep()] == ["ann"]


def test_a_full_room_has_seats_for_those_who_are_in_it(clock: list[float]) -> None:
    rooms = Occupancy()
    assert rooms.enter([one("1", limit=1, grace=5), one("2", "bob", limit=1)]) == [True, None]
    assert rooms.enter([one("3", limit=1, grace=5)]) == [False]
    rooms.leave([("room:a", "1"), ("room:a", "3")])
    assert rooms.enter([one("2", "bob", limit=1)]) == [None]
    assert rooms.enter([one("4", limit=1, grace=5)]) == [False]
    rooms.leave([("room:a", "4")])
    clock[0] += 5
    assert len(rooms.sweep()) == 1
    assert rooms.enter([one("2", "bob", limit=1)]) == [True]


def test_infos_of_a_user_with_several_connections() -> None:
    rooms = Occupancy()
    rooms.enter([one("1", info='{"name": "Ann"}'), one("2", info='{"name": "Anna"}', since=2.0)])
    [ann] = members_of(rooms.occupants("room:a"))
    assert ann == ("ann", {"name": "Anna"}, 2, 1.0)
    rooms.enter([one("1", info='{"name": "Änne <b>"}')])
    assert members_of(rooms.occupants("room:a"))[0].info == {"name": "Änne <b>"}
    assert members_of([], complete=False).complete is False
