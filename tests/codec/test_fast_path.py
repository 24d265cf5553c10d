"""The fast path gives what the codec's general path gives."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from flask_uwsgi_websocket.codec import SERVER, Event, Protocol, _speedups, fast_path, frames
from flask_uwsgi_websocket.codec.frames import (
    BINARY,
    FIN,
    LENGTH_IN_64_BITS,
    MASK,
    RSV1,
    TEXT,
    frame,
)

ROOT = Path(__file__).resolve().parent.parent.parent
KEY = b"\x80\x01\x7f\xff"

sizes = st.sampled_from([0, 1, 7, 8, 9, 124, 125, 126, 127, 4095, 4096, 4097, 16384, 65535, 65536])
texts = st.text(max_size=200) | st.builds(lambda size: "x\N{EURO SIGN}" * (size // 4), sizes)
payloads = (
    st.binary(max_size=200)
    | st.builds(lambda text: text.encode(), texts)
    | st.builds(lambda size: b"x" * size, sizes)
)
firsts = st.sampled_from([FIN | TEXT, FIN | BINARY]) | st.integers(0, 255)


@pytest.mark.slow
@given(
    data=st.binary(max_size=200) | st.builds(frame, firsts, payloads, st.just(KEY)),
    limit=st.sampled_from([125, 126, 1000, 65535, 1 << 20]),
    octet=st.integers(0, 255),
    place=st.integers(0, 15),
    cut=st.integers(-20, 0),
)
@example(frame(FIN | TEXT, b"", KEY), 125, MASK, 1, 0)
@example(frame(FIN | TEXT, b"x" * 126, KEY), 126, MASK | 126, 1, 0)
@example(frame(FIN | TEXT, b"\xff", KEY), 125, FIN | TEXT, 0, 0)
@example(b"\x81\xfe\x00\x7d" + KEY + bytes(125), 1000, FIN | TEXT, 0, 0)
def test_a_message_comes_out_of_both_paths(
    data: bytes, limit: int, octet: int, place: int, cut: int
) -> None:
    mistaken = data[:place] + bytes((octet,)) + data[place + 1 :]
    for frame_ in (data, mistaken, data[:cut], data + data[:1]):
        message = _speedups.whole_message(frame_, limit)
        assert message == in_one_small_frame(frame_, limit)
        assert type(message) is type(in_one_small_frame(frame_, limit))


def in_one_small_frame(data: bytes, limit: int) -> Event | None:
    """What the general path makes of it, where the fast one must make the same of it."""
    general = Protocol(SERVER, max_message_size=limit)
    general._has_fast_path, general.fast_limit = False, -1
    events = general.receive_data(data)
    if len(events) != 1 or not isinstance(events[0], str | bytes) or general.incomplete:
        return None
    small = data[0] in (FIN | TEXT, FIN | BINARY) and data[1] & 0x7F != LENGTH_IN_64_BITS
    return events[0] if small else None


@pytest.mark.slow
@given(payload=payloads, opcode=st.sampled_from([TEXT, BINARY]))
def test_a_message_comes_out(payload: bytes, opcode: int) -> None:
    message: str | bytes | None = payload
    if opcode == TEXT:
        message = payload.decode(errors="replace")
        payload = message.encode()
    if len(payload) > 65535:
        message = None
    assert _speedups.whole_message(frame(FIN | opcode, payload, KEY), 1 << 20) == message


@pytest.mark.slow
@given(
    message=texts | payloads | st.text(st.characters(categories=["Cs", "L"]), max_size=200),
    below=st.sampled_from([0, 1, 125, 126, 1000, 65535, 65536]),
)
def test_the_frame_is_that_of_the_general_path(message: str | bytes, below: int) -> None:
    first, payload = FIN | BINARY, message
    if isinstance(message, str):
        first, payload = FIN | TEXT, message.encode(errors="surrogatepass")
    encodable = payload.decode(errors="ignore") == message or first == FIN | BINARY
    made = frame(first, payload) if encodable and len(payload) < below else None
    assert _speedups.whole_frame(message, below) == made


@given(
    pieces=st.lists(
        st.binary(max_size=10) | st.builds(frame, firsts, payloads, st.just(KEY)), max_size=5
    ),
    limit=st.sampled_from([125, 126, 1000, 1 << 20]),
)
@example([frame(FIN | TEXT, b"a", KEY), frame(FIN | TEXT, b"\xff", KEY)], 125)
@example([frame(FIN | BINARY, b"", KEY)] * 3 + [b"\x82\x05" + KEY], 125)
def test_many_messages_come_out_of_both_paths(pieces: list[bytes], limit: int) -> None:
    data = b"".join(pieces)
    general = Protocol(SERVER, max_message_size=limit)
    general._has_fast_path, general.fast_limit = False, -1
    events = general.receive_data(data)
    messages: list[Event] = []
    try:
        pos = _speedups.whole_messages(data, 0, limit, messages)
    except UnicodeDecodeError:
        assert events[len(messages)].error.close_code == 1007  # type: ignore[union-attr]
    else:
        assert pos <= len(data)
        assert _speedups.whole_message(data[pos:], limit) is None
    assert events[: len(messages)] == messages
    assert [type(each) for each in events[: len(messages)]] == [type(each) for each in messages]


def test_where_to_look_for_many() -> None:
    data, messages = frame(FIN | TEXT, b"text", KEY), [""]
    assert _speedups.whole_messages(data + data, len(data), 125, messages) == 2 * len(data)  # type: ignore[arg-type]
    assert messages == ["", "text"]
    assert _speedups.whole_messages(data, len(data), 125, []) == len(data)
    for pos in (-1, len(data) + 1):
        with pytest.raises(ValueError, match="no place"):
            _speedups.whole_messages(data, pos, 125, [])
    for arguments in ((), (data, 0, 1), ("", 0, 1, []), (data, "0", 1, []), (data, 0, 1, ())):
        with pytest.raises(TypeError):
            _speedups.whole_messages(*arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("other", [None, 1, bytearray(b"\x81\x80abcd"), ["\x81"]])
def test_other_types_are_left_to_others(other: object) -> None:
    assert _speedups.whole_frame(other, 125) is None
    assert _speedups.whole_message(other, 125) is None


@pytest.mark.parametrize("function", [_speedups.whole_message, _speedups.whole_frame])
@pytest.mark.parametrize("arguments", [(), (b"",), (b"", 1, 2), (b"", "1"), (b"", None)])
def test_wrong_arguments(function, arguments: tuple[object, ...]) -> None:
    with pytest.raises(TypeError):
        function(*arguments)


def test_a_compressed_message_is_not_taken() -> None:
    assert fast_path.whole_message(frame(FIN | RSV1 | TEXT, b"octets", KEY), 1000) is None


def test_nothing_is_leaked() -> None:
    """References are counted; a forgotten one of these objects would show."""
    text, key = "\N{EURO SIGN}" * 60, bytes(KEY)
    data = frame(FIN | TEXT, text.encode(), key)
    wrong = frame(FIN | TEXT, b"\xff", key)
    payload = b"x" * 5000
    before = [sys.getrefcount(thing) for thing in (text, key, data, wrong, payload, None)]
    for _ in range(10_000):
        _speedups.whole_message(data, 1000)
        _speedups.whole_message(wrong, 1000)
        _speedups.whole_frame(text, 1000)
        _speedups.whole_frame(text, 100)
        _speedups.apply_mask(payload, key)
    after = [sys.getrefcount(thing) for thing in (text, key, data, wrong, payload, None)]
    assert max(b - a for a, b in zip(before, after, strict=True)) < 1000


def test_c_is_used_where_it_is() -> None:
    assert fast_path.COMPILED
    assert fast_path.whole_message is _speedups.whole_message
    assert fast_path.whole_frame is _speedups.whole_frame
    assert frames.apply_mask is _speedups.apply_mask


@pytest.mark.slow
def test_the_whole_codec_without_c() -> None:
    script = (
        "import sys; sys.modules['flask_uwsgi_websocket.codec._speedups'] = None\n"
        "import pytest; status = pytest.main(sys.argv[1:])\n"
        "from flask_uwsgi_websocket.codec import fast_path, frames\n"
        "assert not fast_path.COMPILED\n"
        "assert frames.apply_mask is frames.apply_mask_in_python\n"
        "sys.exit(status)"
    )
    without = [f"--ignore=tests/codec/test_{name}.py" for name in ("fast_path", "masking", "fuzz")]
    options = ["-q", "-x", "-p", "no:cacheprovider", *without, "tests/codec"]
    run = subprocess.run(
        [sys.executable, "-c", script, *options], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stdout + run.stderr
