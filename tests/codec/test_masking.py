"""Masking, RFC 6455 section 5.3: the same with and without the C function."""

from __future__ import annotations

import importlib.util
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_uwsgi_websocket.codec import SERVER, Protocol, masking, protocol
from tests.conformance import CASES, Case
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
    for apply_mask in (masking.apply_mask, masking.apply_mask_in_python):
        assert apply_mask(data, key) == masked
        assert apply_mask(memoryview(data), key) == masked
        assert apply_mask(masked, key) == data


def test_python_where_there_is_no_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "websockets.speedups", None)
    spec = importlib.util.spec_from_file_location("masking_without_speedups", masking.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.apply_mask is module.apply_mask_in_python


def test_c_where_it_is() -> None:
    from websockets import speedups  # an extra of the package, and with the tests always

    assert masking.apply_mask is speedups.apply_mask


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.name.startswith("framing")], ids=lambda case: case.name
)
def test_the_codec_without_c(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    events = []
    for apply_mask in (masking.apply_mask, masking.apply_mask_in_python):
        monkeypatch.setattr(protocol, "apply_mask", apply_mask)
        codec = Protocol(SERVER)
        received = [event for chunk in case.chunks for event in codec.receive_data(chunk)]
        events.append([repr(event) for event in received])
    assert events[0] == events[1]


def test_views_are_unmasked_without_c(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "apply_mask", masking.apply_mask_in_python)
    for size in (16384, 65536):
        assert Protocol(SERVER).receive_data(frame(TEXT, "x" * size)) == ["x" * size]
