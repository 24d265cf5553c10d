"""What the engines' loops do for whatever runs in a worker, and for frames that are pushed."""

from __future__ import annotations

import threading

import pytest

from tests.server import Server

ENGINES = ["threads", "gevent", "asyncio", "asyncio-uvloop", "async"]


@pytest.fixture(params=ENGINES)
def loop(request: pytest.FixtureRequest, shared_server) -> Server:
    server: Server = shared_server(request.param, app="loop")
    return server


def test_calls_from_another_thread_keep_their_order(loop: Server, token: str) -> None:
    with loop.raw(f"/in-order/{token}"):
        seen = loop.record(token)
    assert seen == {"in_order": True, "then": [True, "soon", "later"]}


@pytest.mark.parametrize("kind", ["here", "thread"])
def test_a_pipe_is_watched(loop: Server, token: str, kind: str) -> None:
    with loop.raw(f"/pipe/{token}/{kind}"):
        seen = loop.record(token)
    on_loop = [["a", True], ["b", True], ["room", True], "over"]
    assert seen == {"seen": on_loop}


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/pushed", "/pushed-compressed"])
def test_pushed_messages_and_sent_ones_keep_their_order(loop: Server, path: str) -> None:
    count = 3000
    with loop.connect(f"{path}/{count}", compression="deflate") as client:
        client.send("go")
        seen = [str(client.recv(10)).rstrip() for _ in range(2 * count)]
    assert [one for one in seen if one.isdecimal()] == [str(number) for number in range(count)]
    others = [one for one in seen if not one.isdecimal()]
    assert others == [f"other {number}" for number in range(count)]


@pytest.mark.parametrize(("count", "size"), [(400, 2000), (3, 200_000)])
def test_a_burst_cuts_nobody_who_reads(loop: Server, token: str, count: int, size: int) -> None:
    with loop.raw(f"/burst/{token}/{count}/{size}") as first:
        with loop.raw(f"/burst/{token}/{count}/{size}") as second:
            assert first.message() == second.message() == "ready"
            first.text("go")
            messages: list[str] = []

            def read() -> None:
                messages.extend(second.message() for _ in range(count))

            reader = threading.Thread(target=read)
            reader.start()
            messages += [first.message() for _ in range(count)]
            reader.join()
            assert messages == ["x" * size] * (2 * count)
            assert loop.record(token) == {"alive": 2, "all": 2}
            second.leave()
        first.leave()


def test_who_does_not_read_what_is_pushed_is_closed(loop: Server, token: str) -> None:
    with loop.raw(f"/flood/{token}") as client:
        seen = loop.record(token)
        assert (seen["code"], seen["again"]) == (1013, False)
        assert 4 < seen["pushed"] < 400
        client.close()


@pytest.mark.slow
def test_who_waits_for_the_queue_hears_when_half_of_it_is_free(loop: Server, token: str) -> None:
    with loop.raw(f"/drained/{token}") as client:
        full = loop.record(token)
        assert full["seen"] == ["at once"]
        for _ in range(full["count"]):
            assert len(client.message()) == 65536
        assert client.message() == "drained"
        client.leave()
    assert loop.record(token)["seen"] == ["at once", False]
