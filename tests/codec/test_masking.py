"""Masking, RFC 6455 section 5.3: the same in C and in Python."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_uwsgi_websocket.codec import SERVER, Protocol, _speedups, frames, receiving
from tests.rawclient import TEXT, frame

KEYS = st.binary(min_size=4, max_size=4)


def by_the_rfc(data: bytes, key: bytes) -> bytes:
    """ "j = i MOD 4, transformed-octet-i = original-octet-i XOR masking-key-octet-j" """
    return bytes(octet ^ key[i % 4] for i, octet in enumerate(data))


@given(data=st.binary(max_size=200) | st.binary(min_size=2040, max_size=2060), key=KEYS)
@example(data=b"", key=b"1234")
@example(data=b"\x00" * 2048, key=b"\x00\x00\x00\x01")
def test_both_do_what_the_rfc_says(data: bytes, key: bytes) -> None:
    masked = by_the_rfc(data, key)
    for apply_mask in (_speedups.apply_mask, frames.apply_mask_in_python):
        assert apply_mask(data, key) == masked
        assert apply_mask(memoryview(data), key) == masked
        assert apply_mask(masked, key) == data


@pytest.mark.parametrize("key", [b"", b"123", b"12345"])
def test_a_key_has_four_octets(key: bytes) -> None:
    with pytest.raises(ValueError, match="4 octets"):
        _speedups.apply_mask(b"octets", key)


def test_views_are_unmasked_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(receiving, "whole_message", lambda data, max_size: None)
    monkeypatch.setattr(receiving, "whole_messages", lambda data, pos, max_size, events: pos)
    monkeypatch.setattr(receiving, "apply_mask", frames.apply_mask_in_python)
    for size in (16384, 65536):
        assert Protocol(SERVER).receive_data(frame(TEXT, "x" * size)) == ["x" * size]
