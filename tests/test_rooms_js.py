"""rooms.js against a real server: in Node, and in pages of Chromium and of Firefox."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flask_uwsgi_websocket.extension.extension import CLIENT_JS
from tests.js_clients import Runtime, program, runtime
from tests.server import Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module", params=["node", "chromium", "firefox"])
def js(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    with runtime(request.param, tmp_path_factory.mktemp(request.param)) as js:
        yield js


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server("gevent", app="resume", config={"UWSGI_WEBSOCKET_PING_INTERVAL": 1})


class Chat:
    """A client in a runtime, and what it was told."""

    def __init__(self, js: Runtime, server: Server) -> None:
        self.js = js
        self.server = server
        js.prepare(f"http://{server.address}/")

    def start(
        self, path: str, options: str = "{}", url: str = "", rooms: Any = (), then: str = "null"
    ) -> Any:
        """Connect; return what a script says right then."""
        address = url or json.dumps(self.server.url(path))
        return self.js.evaluate(f"start({address}, {json.dumps(list(rooms))}, {options}); {then}")

    def do(self, call: str) -> Any:
        return self.js.evaluate(f"chat.{call} ?? null")

    def say(self, command: str) -> None:
        self.do(f"send({json.dumps(command)})")

    def frame(self, **members: Any) -> None:
        self.say(f"frame {json.dumps({key.strip('_'): members[key] for key in members})}")

    def events(self, name: str = "") -> list[Any]:
        """What was told until now, or the values of one event."""
        events: list[Any] = self.js.evaluate("events")
        return [event[1:] for event in events if event[0] == name] if name else events

    def have(self, name: str, count: int = 1) -> list[Any]:
        """The values of an event, once it was told so often."""
        eventually(lambda: len(self.events(name)) >= count, f"{count} {name}: {self.events()}")
        return self.events(name)

    def state(self, state: str, since: int = 0) -> dict[str, Any]:
        """What is told of a state, once it is there."""

        def look() -> list[dict[str, Any]]:
            return [one[1] for one in self.events("state")[since:] if one[0] == state]

        eventually(look, f"{state}: {self.events()}")
        return look()[0]

    def opened(self) -> None:
        self.have("join")


@pytest.fixture
def chat(js: Runtime, server: Server) -> Iterator[Chat]:
    chat = Chat(js, server)
    yield chat
    js.evaluate("globalThis.chat?.close()")


def test_what_comes(chat: Chat, server: Server) -> None:
    chat.start("/resume/a", rooms=["a"])
    assert chat.have("join") == [["a", {}]]
    assert chat.events("state") == [["connecting", {}], ["open", {}]]
    assert chat.js.evaluate("chat.state") == "open"
    assert len(chat.js.evaluate("chat.id")) == 36
    server.http("POST", "/to/a", "é".encode())
    server.http("POST", "/to/a", b"[1]", {"Content-Type": "application/json"})
    server.http("POST", "/to/a?binary=1", b"\xff\x00")
    values = ["é", [1], {"bytes": [255, 0]}]
    assert chat.have("a", 3) == chat.have("*", 3) == [[each, {"room": "a"}] for each in values]
    for command in ("text é", "json x", "bytes x"):
        chat.say(command)
    assert chat.have("message", 3) == [["é"], [{"you": "x"}], [{"bytes": [120]}]]
    chat.say("join other")
    chat.say("leave a")
    assert chat.have("leave") == [["a"]]
    assert chat.events("join")[1] == ["other", {}]
    chat.frame(presence={"room": "a", "join": [1], "leave": []})
    assert chat.have("presence") == [[{"room": "a", "join": [1], "leave": []}]]


def test_what_goes(chat: Chat) -> None:
    chat.start("/resume/a")
    chat.opened()
    chat.js.evaluate("chat.send(new TextEncoder().encode('text bytes'))")
    assert chat.have("message") == [["bytes"]]
    chat.js.evaluate("chat.on('message', () => { throw Error('one listener of several') }) && 0")
    chat.js.evaluate("globalThis.off = chat.on('message', data => events.push(['again', data])), 0")
    # In a page nobody is harmed by it; Node would end, as for each listener that raises.
    if chat.js.evaluate("!!globalThis.process"):
        chat.js.evaluate("process.on('uncaughtException', () => {}) && 0")
    chat.say("text 1")
    assert chat.have("again") == [["1"]]
    chat.js.evaluate("off() && 0")
    chat.say("text 2")
    assert chat.have("message", 3)[-1] == ["2"]
    assert chat.events("again") == [["1"]]


@pytest.mark.parametrize(
    ("code", "seconds"), [(1012, 0.05), (1011, 0.005), (1001, 0.005), (3000, 0.005)]
)
def test_it_reconnects(chat: Chat, code: int, seconds: float) -> None:
    chat.start("/resume/a")
    chat.opened()
    chat.say(f"close {code}")
    waiting = chat.state("waiting")
    assert waiting == {"seconds": pytest.approx(seconds), "code": code, "reason": "as asked"}
    chat.state("open", 3)
    chat.have("join", 2)
    assert [state for state, _ in chat.events("state")] == [
        *("connecting", "open", "waiting", "connecting", "open")
    ]


def test_waits_grow_and_end_at_once_when_there_is_a_network(chat: Chat) -> None:
    chat.start("/resume/a")
    chat.opened()
    chat.js.evaluate("luck = 0.9")
    events = ["dispatchEvent(new Event('online'))"]
    events += ["document.dispatchEvent(new Event('visibilitychange'))"]
    if not chat.js.evaluate("!!globalThis.document"):
        events = ["chat.reconnect() ?? 0"] * 2
    # It was open for a moment only, each time.
    for number, (seconds, event) in enumerate(zip([5.45, 5.9], events, strict=True)):
        chat.say("close 1013")
        assert chat.state("waiting", 3 * number)["seconds"] == pytest.approx(seconds)
        chat.js.evaluate(event)
        chat.have("join", number + 2)


@pytest.mark.parametrize("code", [1000, 1002, 1008, 4403])
def test_codes_after_which_it_does_not_reconnect(chat: Chat, code: int) -> None:
    chat.start("/resume/a")
    chat.opened()
    chat.say(f"close {code}")
    assert chat.state("closed") == {"code": code, "reason": "as asked", "unsent": []}
    chat.js.evaluate("new Promise(done => setTimeout(done, 100))")
    assert chat.js.evaluate("chat.state") == "closed"
    chat.do("reconnect()")  # such as after a log-in
    chat.have("join", 2)


def test_the_app_says_after_which_code_it_reconnects(chat: Chat) -> None:
    chat.start("/resume/a", "{retry: code => code === 4403 || (code === 1011 ? false : undefined)}")
    chat.opened()
    chat.say("close 4403")
    chat.have("join", 2)
    chat.say("close 1011")
    assert chat.state("closed")["code"] == 1011


def test_nothing_is_queued_unless_that_is_asked_for(chat: Chat) -> None:
    attempt = "try { chat.send('x'), '' } catch (error) { error.message }"
    said = chat.start("/resume/a", then=attempt)
    assert said == "not sent: the connection is connecting"
    chat.opened()
    two = "chat.send('text 1'), chat.send('text 2')"
    assert "connecting" in chat.start("/resume/a", "{buffer: 2}", then=f"{two}; {attempt}")
    assert chat.have("message", 2) == [["1"], ["2"]]
    chat.js.evaluate("luck = 0.9")
    chat.say("close 1013")
    chat.state("waiting")
    chat.js.evaluate("chat.send({a: 1})")
    chat.do("close()")
    assert chat.state("closed") == {"code": 1000, "reason": "", "unsent": ['{"a":1}']}
    assert "closed" in chat.js.evaluate(attempt)


def test_a_server_that_is_silent_is_given_up(
    js: Runtime, serve: Callable[..., Server], token: str
) -> None:
    server = serve("gevent", app="resume", config={"UWSGI_WEBSOCKET_PING_INTERVAL": 1})
    chat = Chat(js, server)
    chat.start("/resume/a", "{timeout: 1}")
    chat.opened()
    chat.say("pid")
    pid = int(chat.have("message")[0][0])
    os.kill(pid, signal.SIGSTOP)
    try:
        waiting = chat.state("waiting")
        assert (waiting["code"], waiting["reason"]) == (1006, "no sign of life")
    finally:
        os.kill(pid, signal.SIGCONT)
    chat.have("join", 2)
    chat.do("close()")


def test_a_worker_that_dies(js: Runtime, serve: Callable[..., Server]) -> None:
    server = serve("gevent", app="resume")
    chat = Chat(js, server)
    chat.start("/resume/a")
    chat.opened()
    os.kill(server.worker_pid, signal.SIGKILL)
    assert chat.state("waiting")["code"] == 1006
    chat.have("join", 2)
    chat.do("close()")
    server.allow_log("DAMN")


def test_a_refusal_is_found_out(chat: Chat) -> None:
    chat.start("/resume/a?token=old")
    closed = chat.state("closed")
    assert (closed["status"], closed["reason"]) == (401, "refused with 401")
    assert [state for state, _ in chat.events("state")].count("waiting") >= 5


def test_a_url_that_is_another_each_time(chat: Chat) -> None:
    url = json.dumps(chat.server.url("/resume/a?n="))
    chat.js.evaluate("globalThis.n = 0")
    chat.start("", url=f"async () => {{ if (n++ === 1) throw 'no token'; return {url} + n }}")
    chat.opened()
    chat.say("close 1012")
    chat.have("join", 2)
    assert "no token" in chat.state("waiting", 4)["reason"]
    chat.say("query")
    assert chat.have("message") == [["n=3"]]


def test_messages_are_told_once(chat: Chat) -> None:
    chat.start("/resume/a", "{since: {b: 'k.7', c: null}}", rooms=["b"])
    chat.opened()
    for at in ("k.7", "k.8", "k.8", "k.3", "k.10", "k.9", "new.1"):
        chat.frame(room="b", at=at, text=at)
    chat.frame(room="b", at="new.5")  # for others
    chat.frame(room="b", at="new.5", json=None)
    chat.frame(room="b", at="new.6", json=None)
    assert [one[0] for one in chat.have("b", 4)] == ["k.8", "k.10", "new.1", None]
    assert chat.js.evaluate("chat.positions") == {"b": "new.6"}


def test_who_has_missed_too_much_is_told(chat: Chat) -> None:
    chat.start("/resume/a", "{since: {b: 'k.7', c: 'k.7', d: 'k.7', e: 'k.7'}}")
    chat.opened()
    chat.frame(in_="b", at="k.7", recovered=True)
    chat.frame(in_="c", at="k.9", recovered=False)
    chat.frame(in_="d", at="k.7")
    chat.frame(in_="e", at="k.8")  # it had no place in the URL
    chat.frame(in_="f", at="k.3")
    chat.have("join", 6)
    assert chat.events("resync") == [["c"], ["e"]]
    positions = {"b": "k.7", "c": "k.9", "d": "k.7", "e": "k.8", "f": "k.3"}
    assert chat.js.evaluate("chat.positions") == positions


def test_positions_are_in_the_url(chat: Chat) -> None:
    chat.start("/resume/a?x=1", "{since: {'é,:%/': 'k.1', b: 'k.2'}}")
    chat.opened()
    chat.say("query")
    query = "x=1&_since=b%3Ak.2,%C3%A9%252C%253A%2525%2F%3Ak.1&_was="
    assert chat.have("message") == [[query]]
    many = "Object.fromEntries([...Array(300).keys()].map(n => ['room-' + n, 'k.' + n]))"
    chat.start("/resume/a", f"{{since: {many}}}")
    chat.opened()
    chat.say("query")
    [[query]] = chat.have("message")
    assert 1400 < len(query) <= 1500 + len("_since=&_was=")
    assert query.startswith("_since=room-299%3Ak.299,room-298")


def test_it_goes_on_where_it_was(chat: Chat, server: Server, token: str) -> None:
    room = f"kept/{token}"
    position = server.get(f"/position/{room}").body.decode()
    server.http("POST", f"/to/{room}", b"before the page is connected")
    chat.start(f"/resume/{room}", f"{{since: {{'{room}': '{position}'}}}}", rooms=[room])
    assert chat.have("join")[0][1]["recovered"] is True
    chat.say(f"others {room} not for me")
    chat.have(room)
    chat.js.evaluate("luck = 0.9")
    chat.say("close 1013")
    chat.state("waiting")
    for number in range(3):
        server.http("POST", f"/to/{room}", f"{number}".encode())
    chat.do("reconnect()")
    assert chat.have("join", 2)[1][1]["recovered"] is True
    server.http("POST", f"/to/{room}", b"after")
    told = [data for data, _ in chat.have(room, 5)]
    assert told == ["before the page is connected", "0", "1", "2", "after"]
    top = server.get(f"/position/{room}").body.decode()
    assert chat.js.evaluate("chat.positions") == {room: top}
    assert chat.events("resync") == []


def test_many_reconnects_in_a_stream(chat: Chat, server: Server, token: str) -> None:
    room = f"long/{token}"
    chat.start(f"/resume/{room}", rooms=[room])
    chat.opened()
    chat.js.evaluate("""chat.on('join', () => {
        if (events.filter(([name]) => name === 'join').length <= 15) chat.send('close 1012')
    }) && 0""")
    chat.say("close 1012")
    for number in range(200):
        server.http("POST", f"/to/{room}", b"%d" % number)
    told = chat.have(room, 200)
    assert [data for data, _ in told] == [str(number) for number in range(200)]
    joins = chat.have("join", 16)
    assert {detail.get("recovered") for _, detail in joins[1:]} == {True}


def test_too_much_was_said_meanwhile(chat: Chat, server: Server, token: str) -> None:
    room = f"short/{token}"
    chat.start(f"/resume/{room}", rooms=[room])
    chat.opened()
    chat.js.evaluate("luck = 0.9")
    chat.say("close 1013")
    chat.state("waiting")
    for number in range(5):
        server.http("POST", f"/to/{room}", f"{number}".encode())
    chat.do("reconnect()")
    assert chat.have("resync") == [[room]]
    assert chat.events(room) == []
    server.http("POST", f"/to/{room}", b"after")
    assert [data for data, _ in chat.have(room)] == ["after"]
    server.http("POST", f"/forget/{room}")
    assert chat.have("resync", 2) == [[room], [room]]
    server.http("POST", f"/to/{room}", b"anew")
    assert [data for data, _ in chat.have(room, 2)] == ["after", "anew"]


def test_a_route_without_resume(chat: Chat) -> None:
    chat.start("/plain/a")
    eventually(lambda: chat.events("state")[1:], "an end")
    state, detail = chat.events("state")[1]
    assert (state, detail["code"]) in (("waiting", 1006), ("closed", 1002))


def test_it_is_small() -> None:
    command = [program("esbuild", "esbuild"), "--minify", "--format=esm", str(CLIENT_JS)]
    minified = subprocess.run(command, capture_output=True, check=True, timeout=60).stdout
    print(f"rooms.js: {len(minified)} bytes minified")
    assert len(minified) <= 6 * 1024


def test_it_is_typed(tmp_path: Path) -> None:
    for name in ("rooms.js", "rooms.d.ts"):
        (tmp_path / name).write_text(CLIENT_JS.with_name(name).read_text())
    (tmp_path / "use.ts").write_text(TYPED)
    command = [program("tsc", "node-typescript"), "--noEmit", "--strict", "--target", "es2022"]
    command += ["--moduleResolution", "node", "--lib", "es2022,dom", "use.ts"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


TYPED = """
import {connect, type From} from './rooms.js'
const since = {a: 'k.1', b: null}
const chat = connect('/chat', {since, buffer: 3, retry: code => code === 4001 || undefined})
const off = chat.on('chat/a', (data, {at, room}: From) => console.log(data, at, room))
chat.on('state', (state, {seconds}) => { if (state === 'waiting') console.log(seconds!.toFixed()) })
chat.on('resync', room => room.length)
chat.send({text: 'hi'}); chat.send(new Uint8Array(3)); off(); chat.close()
// @ts-expect-error
const bad: number = connect(async () => new URL('/a', location.href), {WebSocket}).state
"""


def test_the_extension_serves_it(server: Server) -> None:
    answer = server.get("/rooms.js")
    assert answer.body == CLIENT_JS.read_bytes()
    assert answer.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert answer.headers["Cache-Control"] == "no-cache"
    again = server.http("GET", "/rooms.js", headers={"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
