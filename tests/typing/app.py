"""An app as an editor and mypy see it: each handler knows its client's members."""

from __future__ import annotations

from typing import Any

from flask import Flask
from typing_extensions import assert_type

from flask_uwsgi_websocket import (
    AsyncioWebSocket,
    AsyncioWebSocketClient,
    ConnectionClosed,
    GeventWebSocket,
    GeventWebSocketClient,
    WebSocket,
    WebSocketClient,
)
from flask_uwsgi_websocket.rooms.positions import Joined
from flask_uwsgi_websocket.rooms.presence.members import Member
from flask_uwsgi_websocket.testing import HandshakeRejected

app = Flask(__name__)
threads = WebSocket(app)
gevent = GeventWebSocket(timeout=2)
loop = AsyncioWebSocket()
gevent.init_app(app)


@threads.identify
def who_is_it() -> str | None:
    return None


threads.room("chat/*", slow="latest", max_members=100)
assert_type(threads.to("room").send("hi"), str | None)
assert_type(threads.to_user(7).join("room"), str | None)


@threads.route("/threads", subprotocols=["v1"], origins="*", max_message_size=1024)
def on_threads(ws: WebSocketClient) -> None:
    with ws:
        for message in ws:
            assert_type(message, str | bytes)
            ws.send(message)


@gevent.route("/gevent/<room>")
def on_gevent(ws: GeventWebSocketClient, room: str) -> None:
    message = ws.receive(timeout=1)
    assert_type(message, str | bytes | None)
    assert_type(ws.connected, bool)
    assert_type(ws.close_code, int | None)
    assert_type(ws.subprotocol, str | None)
    try:
        ws.send_json({"room": room})
        ws.send_nb(b"bytes", binary=True)
    except ConnectionClosed as closed:
        assert_type(closed.code, int)
    assert_type(ws.receive_json(), Any)
    gevent.send_to_all("hello", exclude=ws)
    for client in gevent.clients:
        client.send_nb(f"one of {len(gevent.clients)}")
    with ws.app_context():
        ws.release_resources()
    ws.join(room)
    assert_type(ws.rooms, frozenset[str])
    assert_type(ws.user, str | None)
    assert_type(ws.to(room, "another").send(b"bytes", binary=True), str | None)
    gevent.to(room, exclude=[ws, "an id", None]).send_json({"room": room})
    gevent.to_user("ann", 7).send_nowait("hi")
    gevent.to_all().close(4000, "over")
    assert_type(gevent.count(room).connections, int)
    assert_type([count.complete for count in gevent.rooms().values()], list[bool])
    assert_type([member.user for member in gevent.who(room)], list[str])
    assert_type(gevent.who(room).complete, bool)
    assert_type(gevent.present(7), bool)
    assert_type(gevent.history(room).messages[0].time, float)
    ws.leave(room)
    ws.close(1000, "bye")


@loop.route("/loop")
async def on_loop(ws: AsyncioWebSocketClient) -> None:
    async with ws:
        async for message in ws:
            assert_type(message, str | bytes)
            await ws.send(message)
    assert_type(await ws.receive(), str | bytes | None)
    assert_type(await ws.receive_json(timeout=1), Any)
    await loop.send_to_all("hello", exclude=[ws])
    loop.send_to_all(b"need not be awaited")
    assert_type(await ws.join("room"), Joined)
    assert_type(await ws.to("room").send("hi"), str | None)
    assert_type(await loop.to_user("ann").send_json({}), None)
    assert_type(loop.to_all().send_nowait("hi"), None)
    loop.to("room").send("need not be awaited")
    await ws.leave("room")
    assert_type(await loop.count("room"), Any)
    assert_type(await loop.who("room"), Any)
    await loop.forget("room")
    await ws.join("room", info={"name": "Ann"})
    assert_type(ws.recv_nb(), str | bytes | None)


@gevent.on_join("chat/*")
def joined(room: str, member: Member) -> None:
    assert_type((member.user, member.connections, member.since), tuple[str, int, float])


@loop.on_room_empty("*")
async def emptied(room: str) -> None:
    assert_type(room, str)


# The decorator keeps the type of what it decorates.
joined("chat/a", gevent.who("chat/a")[0])
on_gevent(GeventWebSocketClient({}, connection=NotImplemented), "lobby")


def test_app() -> None:
    client = threads.test_client(app)
    try:
        with client.connect("/threads", subprotocols=["v1"]) as conn:
            conn.send("hi")
            assert_type(conn.receive(), str | bytes | None)
            assert_type(conn.response.status_code, int)
    except HandshakeRejected as rejected:
        assert_type(rejected.response.text, str)
    assert_type(threads.url_for("on_threads"), str)
