"""Which records go to which connections: each gets its own, once, in order, in one share."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.rooms.shares import Share, by_exclusion, by_type, merge


class Connection:
    """What the shares ask of a connection."""

    def __init__(self, client: Any) -> None:
        self.client = client


NUMBERS = st.integers(0, 5)
EXCLUDED = st.lists(NUMBERS.map(str), max_size=2).map(tuple)
#: A run: who is in its channels, and whom each of its records excludes.
RUNS = st.lists(st.tuples(st.sets(NUMBERS), st.lists(EXCLUDED, min_size=1, max_size=4)), max_size=6)


@given(RUNS, st.sets(NUMBERS, max_size=2), st.sets(NUMBERS, max_size=1))
def test_each_gets_its_own_in_order(
    runs: list[tuple[set[int], list[tuple[str, ...]]]], without_id: set[int], released: set[int]
) -> None:
    clients = [
        SimpleNamespace() if number in without_id else SimpleNamespace(id=str(number))
        for number in range(6)
    ]
    connections: list[Any] = [
        Connection(None if number in released else clients[number]) for number in range(6)
    ]
    shares: list[Share] = []
    expected: dict[int, list[Record]] = {}
    count = 0
    for members, exclusions in runs:
        run = []
        for exclude in exclusions:
            count += 1
            run.append(Record(Kind.MESSAGE, ("room:a",), exclude=exclude, number=count))
        shares += by_exclusion(run, [connections[number] for number in members])
        for number in members:
            known = number not in without_id | released
            mine = [record for record in run if not (known and str(number) in record.exclude)]
            expected[number] = expected.get(number, []) + mine
    seen: dict[int, list[Record]] = {}
    for records, some in merge(shares):
        for connection in some:
            number = connections.index(connection)
            assert number not in seen
            seen[number] = records
    assert {number: records for number, records in seen.items() if records} == {
        number: records for number, records in expected.items() if records
    }


class Id(str):
    """One that counts what it is compared with."""

    comparisons = 0

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        Id.comparisons += 1
        return str.__eq__(self, other)


def test_excluding_very_many_takes_no_more_steps_for_each() -> None:
    ids = [f"client {number}" for number in range(300)]
    receivers: list[Any] = [Connection(SimpleNamespace(id=one)) for one in ids]
    exclude = tuple(map(Id, ids))
    records = [Record(Kind.MESSAGE, ("room:a",), exclude=exclude[n:]) for n in range(20)]
    got = {one.client.id: some for some, few in by_exclusion(records, receivers) for one in few}
    assert got == {f"client {number}": records[number + 1 :] for number in range(19)}
    assert Id.comparisons <= 3 * 300


@given(
    st.lists(st.booleans(), min_size=1, max_size=4), st.lists(st.sampled_from([True, False, None]))
)
def test_bytes_are_text_for_some(texts: list[bool], kinds: list[bool | None]) -> None:
    records = [Record(Kind.MESSAGE, ("room:a",), text=text) for text in texts]
    receivers: list[Any] = [
        Connection(None if kind is None else SimpleNamespace(_bytes_are_text=kind))
        for kind in kinds
    ]
    seen = {id(one): as_text for as_text, some in by_type(records, receivers) for one in some}
    assert len(seen) == len(receivers)
    if not all(texts):
        for connection, kind in zip(receivers, kinds, strict=True):
            assert seen[id(connection)] == bool(kind)
