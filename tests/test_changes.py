"""What waits for a store of presence: in order, and not for ever growing."""

from __future__ import annotations

from flask_uwsgi_websocket.rooms.presence.changes import BATCH, Change, Changes
from flask_uwsgi_websocket.rooms.presence.members import Occupant


def change(connection: str, has_left: bool = False) -> Change:
    return Change(Occupant("room:a", connection, "ann", "null", 1.0), None, has_left)


def test_what_is_of_a_kind_goes_together_in_order() -> None:
    changes = Changes()
    one, two, three = change("1"), change("2"), change("2", has_left=True)
    assert [changes.put(each) for each in (one, two, three)] == [True, False, False]
    assert changes.take() == [one, two]
    changes.put(one)
    assert changes.take() == [three]
    assert changes.take() == [one]
    assert changes.take() == []
    assert changes.put(one) is True


def test_a_batch_is_no_larger_than_a_store_takes_in_one_go() -> None:
    changes = Changes()
    for number in range(BATCH + 1):
        changes.put(change(str(number)))
    assert len(changes.take()) == BATCH
    assert len(changes) == 1


def test_of_what_is_tried_again_only_the_end_is_kept() -> None:
    changes = Changes()
    for _ in range(100):  # a client that comes back again and again, while the store is away
        changes.put(change("1"))
        changes.put(change("1", has_left=True))
    changes.put(change("2"))
    changes.put_back(changes.take_all())
    assert changes.take() == [change("1", has_left=True)]
    changes.put(change("3"))
    assert changes.take() == [change("2"), change("3")]
    assert len(changes) == 0
