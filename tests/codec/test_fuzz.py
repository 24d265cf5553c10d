"""The fuzzer runs, finds nothing in a short time, and would find something."""

from __future__ import annotations

import pytest

from flask_uwsgi_websocket.codec import SERVER, Protocol, receiving
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
    monkeypatch.setattr(receiving, "WHOLE_TEXT", receiving.WHOLE_BINARY)
    assert Protocol(SERVER).receive_data(frame(BINARY, b"octets") * 2) == ["octets"] * 2
    _, failed = codec.fuzz(seed=1, seconds=60)
    assert failed is not None
