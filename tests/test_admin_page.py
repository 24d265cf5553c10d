"""The admin page in Chromium and Firefox, in front of an app with two workers."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from urllib.parse import urlencode

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection

import flask_uwsgi_websocket
from tests.admin_page import AdminPage
from tests.cable import Cable
from tests.js_clients import Browser, program, runtime
from tests.server import PATIENCE, ROOT, Server, eventually

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

STATIC = ROOT / flask_uwsgi_websocket.__name__ / "monitoring/admin/static"
IMAGE = "<img src=x onerror=document.body.remove()>"
#: Of users and rooms; and what people see of them.
HOSTILE = {
    IMAGE: IMAGE,
    "\u202egnp.exe": "U+202Egnp.exe",
    "ad\u200bmin": "adU+200Bmin",
    "z" + "\u0301" * 40: "z\u0301\u0301\u030137 marks",
    " two  spaces ": "␣two ␣spaces␣",
    "x" * 250: "x" * 60 + "…",
    "\u3164": "U+3164",
    "مرحبا": "مرحبا",
}


@pytest.fixture(scope="module", params=["chromium", "firefox"])
def js(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Browser]:
    with runtime(request.param, tmp_path_factory.mktemp(request.param)) as js:
        assert isinstance(js, Browser)
        yield js


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server("gevent", app="admin_page", processes=2)


@pytest.fixture
def page(js: Browser, server: Server) -> Iterator[AdminPage]:
    yield AdminPage(js, server).open()
    js.go("about:blank")


@contextmanager
def members(server: Server, *users: str, room: str = "all") -> Iterator[list[ClientConnection]]:
    """Connections of users, which have joined a room."""
    with ExitStack() as stack:
        clients = []
        for user in users:
            query = urlencode({"user": user, "room": room}, errors="surrogatepass")
            clients.append(stack.enter_context(server.connect(f"/rooms/x?{query}")))
            assert clients[-1].recv(PATIENCE) == "here"
        yield clients


def end_of(client: ClientConnection) -> tuple[int, str]:
    """The code and reason that a client is closed with."""
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(PATIENCE)
    assert caught.value.rcvd is not None
    return caught.value.rcvd.code, caught.value.rcvd.reason


def test_sorts_and_searches(page: AdminPage, server: Server) -> None:
    with members(server, "bob", "ann", "cid"), members(server, "dan", room="other"):
        page.expect_users("bob", "ann", "cid", "dan")  # the oldest first
        assert set(page.column("Rooms")) == {"all", "other"}
        page.sort_by("User")
        page.expect_users("ann", "bob", "cid", "dan")
        page.sort_by("User")
        page.expect_users("dan", "cid", "bob", "ann")
        assert page.focused == "User"
        page.type("#search", "OTHER")
        page.expect_users("dan")
        page.expect("#count", "1 to 1 of 1 (5 in all)")
        page.choose("#field", "user")
        page.expect("#none", "no such connection")
        page.type("#search", "a")
        page.expect_users("dan", "ann")
        page.click("#own")
        page.type("#search", "")
        page.choose("#field", "")
        eventually(lambda: len(page.column("User")) == 5, "the page's own connection")
        assert len(set(page.column("Worker"))) <= 2


def test_pages(page: AdminPage, server: Server) -> None:
    users = [f"user{number:02}" for number in range(30)]
    with members(server, *users):
        page.sort_by("User")
        page.choose("#limit", "25")
        page.expect_users(*users[:25])
        page.click("#next")
        page.expect_users(*users[25:])
        page.expect("#count", "26 to 30 of 30")
        page.click("#next")  # is at the end
        page.click("#previous")
        page.expect_users(*users[:25])
        page.click("#last")
        eventually(lambda: users[-1] in page.column("User"), "the last page")
        page.click("#first")
        page.expect_users(*users[:25])
        page.expect("#rooms", "all", "30")


def test_closes_a_connection(page: AdminPage, server: Server) -> None:
    with members(server, "ann", "bob") as (ann, bob):
        page.open_row("ann")
        page.expect("#detail", "ann", "/rooms/<path:names>", "127.0.0.1")
        page.click("#close")
        page.expect("#confirm", "The connection of ann", "Its page may connect again")
        page.js.press("Escape")
        eventually(lambda: page.dialogs == ["detail"], "no question any more")
        assert page.focused == "Close the connection…"
        page.click("#close")
        page.confirm(code=4321, reason="enough")
        page.expect("#detail .result", "is being closed")
        assert end_of(ann) == (4321, "enough")
        page.expect("#detail-gone", "It has ended.")
        page.js.press("Escape")
        eventually(lambda: page.dialogs == [], "no panel any more")
        assert page.focused == "/rooms/<path:names>"
        page.leave_table()
        page.expect_users("bob")
        bob.ping()
        page.click("#codes-more summary")
        page.expect("#codes-table", "4321")


def test_sends_a_message(page: AdminPage, server: Server) -> None:
    with members(server, "ann") as [ann]:
        page.open_row("ann")
        page.click("#send")
        page.expect("#confirm", "gets this text as a message")
        page.confirm(text="<b>Hello</b>")
        assert ann.recv(PATIENCE) == "<b>Hello</b>"
        page.expect("#detail .result", "The message was sent.")
        page.js.press("Escape")


def test_looks_into_a_room(page: AdminPage, server: Server) -> None:
    with members(server, "ann", "bob", room="kept/a") as (ann, _), members(server, "cid"):
        ann.send(f"what is said {IMAGE}")
        assert ann.recv(PATIENCE) == f"what is said {IMAGE}"
        eventually(lambda: "kept/a" in page.text("#rooms"), "the room")
        page.click_text("#rooms button", "kept/a")
        page.confirm()
        page.expect("#inside", "Room kept/a", "2 connections of 2 users", "ann", "bob", "55 B")
        assert "what is said" not in page.text("#inside")
        page.click("#inside-connections")
        page.expect_users("ann", "bob")
        assert page.dialogs == []
        page.open_row("ann")
        page.click("#detail-rooms button")
        eventually(lambda: page.dialogs == ["detail", "confirm"], "a question")
        page.click("#confirm input[type=checkbox]")
        page.confirm()
        page.expect("#inside", f"what is said {IMAGE}", f'"{IMAGE}"')
        assert page.js.read("document.querySelectorAll('img').length") == 0
        page.js.press("Escape")
        page.js.press("Escape")


def test_the_page_by_keyboard(page: AdminPage, server: Server) -> None:
    press, user = page.js.press, "#rows thead th:nth-child(2)"
    with members(server, "ann", "bob", room="kept/a"):
        page.expect_users("ann", "bob")
        page.js.read("document.activeElement.blur() ?? null")
        press("Tab")
        assert page.focused == "Skip to the connections"
        press("Enter")
        eventually(lambda: page.focused.startswith("Connections"), "the skip")
        reached = page.tab_to("Last")
        assert [each for each in reached if each in ("Route", "User", "Rooms", "First")] == [
            *("Route", "User", "Rooms", "First")
        ]
        assert reached.count("/rooms/<path:names>") == 2
        page.focus(f"{user} button")
        press("Enter")
        page.expect_attribute(user, "aria-sort", "ascending")
        press("Space")
        page.expect_attribute(user, "aria-sort", "descending")
        assert page.focused == "User"
        page.expect_users("bob", "ann")
        page.focus("#pause")
        for pressed in ("true", "false"):
            press("Space")
            page.expect_attribute("#pause", "aria-pressed", pressed)
        page.focus("#codes-more summary")
        press("Enter")
        page.expect("#codes-table", "By the client")


def test_a_connection_by_keyboard(page: AdminPage, server: Server) -> None:
    press, route = page.js.press, "/rooms/<path:names>"
    with members(server, "ann") as [ann]:
        page.expect_users("ann")
        page.focus("#rows thead th:last-child button")
        page.tab_to(route)
        press("Enter")
        page.expect("#detail", "ann")
        page.tab_to("Close the connection…")
        press("Space")
        eventually(lambda: page.dialogs == ["detail", "confirm"], "a question")
        assert page.js.read("document.activeElement.name") == "code"
        assert page.tab_to("Close the connection") == ["", "Cancel", "Close the connection"]
        press("Escape")
        eventually(lambda: page.dialogs == ["detail"], "no question any more")
        assert page.focused == "Close the connection…"
        press("Enter")
        eventually(lambda: page.dialogs == ["detail", "confirm"], "a question")
        page.type("#confirm [name=code]", "4321")
        press("Enter")  # as a form is sent
        assert end_of(ann) == (4321, "")
        page.expect("#detail .result", "is being closed")
        press("Escape")
        eventually(lambda: page.dialogs == [], "no panel any more")
        assert page.focused == route


def test_a_room_by_keyboard(page: AdminPage, server: Server) -> None:
    press = page.js.press
    with members(server, "ann", room="kept/keys") as [ann]:
        ann.send("what is said")
        assert ann.recv(PATIENCE) == "what is said"
        page.type("#rooms-search", "KEYS")
        eventually(lambda: page.texts("#rooms tbody button") == ["kept/keys"], "the room")
        page.tab_to("kept/keys")
        press("Enter")
        eventually(lambda: page.dialogs == ["confirm"], "a question")
        page.focus("#confirm [type=checkbox]")
        press("Space")
        page.tab_to("Look into the room")
        press("Enter")
        page.expect("#inside", "Room kept/keys", "1 connection of 1 user.", "what is said")
        press("Escape")
        eventually(lambda: page.dialogs == [], "no panel any more")
        assert page.focused == "kept/keys"


def test_names_of_all_kinds(page: AdminPage, server: Server) -> None:
    with members(server, *HOSTILE), members(server, "ann", room="<script>" + "\u0301" * 90):
        page.expect_users(*HOSTILE.values(), "ann")
        assert page.column("Rooms")[-1] == "<script>\u0301\u0301\u030113 marks…"
        assert page.js.read("document.querySelectorAll('main img, main script').length") == 0
        width = "document.documentElement.scrollWidth <= innerWidth"
        heights = "[...document.querySelectorAll('#rows tbody tr')].map(row => row.offsetHeight)"
        assert page.js.read(width)
        assert len(set(page.js.read(heights))) == 1
        for shown in HOSTILE.values():
            page.open_row(shown)
            page.expect("#detail", shown.rstrip("…"))
            page.js.press("Escape")
            eventually(lambda: page.dialogs == [], "no panel any more")


def test_rows_wait_for_people(page: AdminPage, server: Server) -> None:
    """Nothing moves below a pointer, a focus or a selection, and none of them gets lost."""
    with members(server, "bob", "cid"):
        page.expect_users("bob", "cid")
        select = "getSelection().selectAllChildren(document.querySelector('#rows tbody td bdi'))"
        page.js.read(f"({select}, null)")
        with members(server, "ann"):
            page.expect("#count", "of 3")
            page.expect("#held", "stand still")
            assert page.column("User") == ["bob", "cid"]
            assert page.js.read("String(getSelection())") == "bob"
            page.js.read("getSelection().removeAllRanges() ?? null")
            page.expect_users("bob", "cid", "ann")
            page.js.read("document.querySelectorAll('#rows tbody button')[2].focus() ?? null")
        page.expect("#count", "of 2")
        assert page.column("User") == ["bob", "cid", "ann"]
        assert page.js.read("document.activeElement.closest('tr').className") == "gone"
        page.leave_table()
        page.expect_users("bob", "cid")


def test_figures(page: AdminPage, server: Server) -> None:
    page.expect("#workers", "1", "2", "● live", "gevent")
    with members(server, "ann", "bob", room="busy") as (ann, bob):
        for number in range(20):
            ann.send(f"{number}")
            assert ann.recv(PATIENCE) == bob.recv(PATIENCE) == f"{number}"
        eventually(lambda: "/rooms/<path:names>" in page.text("#routes"), "the route")
        page.expect("#tile-open", "3", "2 of 2 workers live")
        eventually(lambda: page.column("Received") == ["20", "0"], "what ann has sent")
        assert page.column("Sent") == ["21", "21"]
        page.click("#throughput-more summary")
        page.expect("#throughput-table", "Received", ":")
        drawn = "document.querySelector('#throughput polyline').getAttribute('points')"
        assert page.js.read(drawn)


def test_a_worker_that_is_stuck(page: AdminPage, server: Server) -> None:
    page.click("#own")
    eventually(lambda: page.column("Worker"), "the page's own connection")
    [own] = page.column("Worker")
    [stuck] = [worker for worker in server.stats()["workers"] if str(worker["id"]) != own]
    os.kill(stuck["pid"], signal.SIGSTOP)
    try:
        page.expect("#workers", "▲ blocked")
        page.expect("#tile-open", "1 of 2 workers live")
        page.expect("#incomplete", f"worker {stuck['id']} did not answer")
    finally:
        os.kill(stuck["pid"], signal.SIGCONT)
    eventually(lambda: "blocked" not in page.text("#workers"), "all to be live again")
    eventually(lambda: not page.text("#incomplete"), "all to answer again")


def test_comes_back_by_itself(page: AdminPage, server: Server) -> None:
    """After its worker was killed, and after a reload of all."""
    server.allow_log("DAMN", "unable to")
    for pid in [worker["pid"] for worker in server.stats()["workers"]]:
        os.kill(pid, signal.SIGKILL)
    page.expect("#state", "Disconnected")
    page.expect("#state", "Live")
    with members(server, "ann"):
        page.expect_users("ann")
        before = [worker["pid"] for worker in server.stats()["workers"]]
        server.signal(signal.SIGHUP)

        def reloaded() -> bool:
            return not {worker["pid"] for worker in server.stats()["workers"]} & {*before, 0}

        eventually(reloaded, "new workers")
    with members(server, "bob"):
        page.expect_users("bob")
    page.expect("#state", "Live")


def test_a_network_that_fails(js: Browser, server: Server) -> None:
    with Cable(server.port) as cable:
        page = AdminPage(js, server).open(f"127.0.0.1:{cable.port}")
        with members(server, "ann"):
            page.expect_users("ann")
            cable.cut()
            page.expect("#state", "Disconnected")
            page.expect("#stale", "old")
            page.expect("#again", "again in")
            page.open_row("ann")
            page.click("#send")
            page.confirm(text="x")
            page.expect("#detail .result", "whether it was done is not known")
            page.js.press("Escape")
            cable.mend()
            page.click("#retry")
            page.expect("#state", "Live")
            eventually(lambda: not page.text("#stale"), "figures of now")
        js.go("about:blank")


def test_who_may_not_any_more(page: AdminPage, server: Server) -> None:
    with members(server, "ann"):
        page.open_row("ann")
        page.js.read("document.cookie = 'admin=; max-age=0; path=/'")
        page.click("#send")
        page.confirm(text="x")
        page.expect("#detail .result", "Not done")
        page.js.press("Escape")
    server.signal(signal.SIGHUP)
    page.expect("#state", "Not allowed")
    page.expect("#refused", "log in again")


def test_its_scripts_are_typed() -> None:
    command = [program("tsc", "node-typescript"), "--noEmit", "--allowJs", "--checkJs", "--strict"]
    command += ["--module", "es2022", "--target", "es2022", "--moduleResolution", "node"]
    command += ["--lib", "es2022,dom,dom.iterable", str(STATIC / "admin.js")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout


def test_no_script_is_long() -> None:
    lines = {path.name: len(path.read_text().splitlines()) for path in STATIC.glob("*.js")}
    assert max(lines.values()) <= 350, lines
