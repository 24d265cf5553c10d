"""The fuzzer runs, finds nothing in a short time, and would find something."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import SERVER, Event, Protocol, fast_path, receiving
from fuzz import codec
from tests.rawclient import BINARY, frame


@pytest.mark.slow
def test_a_short_fuzz() -> None:
    count, failed = codec.fuzz(seed=1, seconds=2)
    assert failed is None
    assert count > 100


def test_the_same_seed_gives_the_same_inputs() -> None:
    def some(seed: int) -> list[bytes]:
        inputs = codec.inputs(seed)
        return [next(inputs) for _ in range(len(codec.seeds()) + 50)]

    assert some(2) == some(2)
    assert some(2) != some(3)


@pytest.mark.slow
def test_a_mistake_in_the_fast_path_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_as_text(data: bytes, pos: int, max_size: int, events: list[Event]) -> int:
        messages: list[Event] = []
        pos = fast_path.whole_messages(data, pos, max_size, messages)
        events += [each.decode("latin-1") if type(each) is bytes else each for each in messages]
        return pos

    monkeypatch.setattr(receiving, "whole_messages", all_as_text)
    assert Protocol(SERVER).receive_data(frame(BINARY, b"octets") * 2) == ["octets"] * 2
    _, failed = codec.fuzz(seed=1, seconds=60)
    assert failed is not None
