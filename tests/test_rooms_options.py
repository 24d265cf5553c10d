"""The options of rooms, by patterns of their names."""

from __future__ import annotations

from typing import Any

import pytest

from flask_uwsgi_websocket.rooms import options
from flask_uwsgi_websocket.rooms.options import DEFAULT, RoomOptions, RoomPatterns


def test_the_first_pattern_that_matches_wins() -> None:
    patterns = RoomPatterns()
    patterns.add("chat/vip-?", slow="drop-oldest", max_members=10)
    patterns.add("chat/*", slow="latest")
    patterns.add("[ab]", max_members=1)
    vip = RoomOptions("drop-oldest", 10)
    assert [patterns.of(room) for room in ("chat/vip-1", "chat/vip-10", "chat/", "a", "c")] == [
        *(vip, RoomOptions("latest"), RoomOptions("latest"), RoomOptions(max_members=1), DEFAULT)
    ]
    assert patterns.of("CHAT/1") is DEFAULT
    assert patterns.of("chat/a/b") is patterns.of("chat/c")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"slow": "last"}, "slow is 'last': it must be one of 'close', 'latest', 'drop-oldest'"),
        ({"slow": "drop_oldest"}, "did you mean drop-oldest?"),
        ({"slow": None}, "slow is None: it must be one of"),
        ({"slow": []}, r"slow is \[\]: it must be one of"),
        ({"max_members": 0}, "max_members is 0: it must be None or a whole number, 1 or more"),
        ({"max_members": True}, "max_members is True"),
        ({"max_members": 2.5}, "max_members is 2.5"),
    ],
)
def test_wrong_values(wrong: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        RoomPatterns().add("*", **wrong)


def test_wrong_patterns() -> None:
    patterns = RoomPatterns()
    patterns.add("a*")
    with pytest.raises(ValueError, match=r"'a\*' has options already"):
        patterns.add("a*", slow="latest")
    with pytest.raises(TypeError, match="a pattern is a str, not bytes"):
        patterns.add(b"a*")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="historic"):
        patterns.add("b", historic=1)


def test_no_options_once_a_room_is_used() -> None:
    patterns = RoomPatterns()
    patterns.add("a*")
    patterns.of("b")
    with pytest.raises(RuntimeError, match="before the first room is used"):
        patterns.add("b", slow="latest")


def test_what_is_remembered_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(options, "REMEMBERED", 10)
    patterns = RoomPatterns()
    patterns.add("*7", slow="latest")
    found = [patterns.of(str(number)).slow for number in range(100)]
    assert found.count("latest") == 10
    assert patterns.of.cache_info().currsize == 10
