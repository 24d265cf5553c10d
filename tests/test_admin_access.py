"""The admin page for everybody: narrow, dark, and for screen readers; in Chromium."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from threading import Thread
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.server import PATIENCE, Server

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

SIZES = {
    "wide": {"width": 1600, "height": 900},
    "phone": {"width": 360, "height": 740},
}
AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text()

expect.set_options(timeout=PATIENCE * 1000)


@pytest.fixture
def server(shared_server: Callable[..., Server]) -> Server:
    return shared_server("gevent", app="admin_page", processes=2)


@contextmanager
def visit(browser: Browser, server: Server, **context: Any) -> Iterator[Page]:
    """The page with two connections in it, without a complaint of the browser's."""
    complaints: list[str] = []
    with ExitStack() as stack:
        for user in ("ann", "b" * 200):
            path = f"/rooms/x?user={user}&room=kept/a&room={'long' * 60}"
            client = stack.enter_context(server.connect(path))
            assert client.recv(PATIENCE) == "here"
        opened = browser.new_context(**context)
        stack.callback(opened.close)
        opened.set_default_timeout(PATIENCE * 1000)
        page = opened.new_page()
        page.on("console", lambda line: complaints.append(line.text))
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.add_init_script(KEEP_SOCKET)
        page.goto(f"http://{server.address}/login")
        expect(page.locator("#rows tbody tr")).to_have_count(2)
        expect(page.locator("#rooms tbody tr")).to_have_count(2)
        yield page
        # That something is refused is no fault of the page.
        refused = ("status of 400", "status of 403", "response code: 403")
        assert [line for line in complaints if not any(word in line for word in refused)] == []


#: Before the page's own scripts: keeps its WebSocket where a test can close it.
KEEP_SOCKET = """globalThis.WebSocket = class extends WebSocket {
    constructor(...values) { super(...values); globalThis.socket = this }
}"""


def find_barriers(page: Page, where: str) -> list[str]:
    """What axe finds, and whether one has to scroll sideways."""
    found = page.evaluate("axe.run(document, {resultTypes: ['violations', 'incomplete']})")
    barriers = [
        f"{where}: {rule['help']}: {node['html'][:200]}: {json.dumps(node['any'])[:300]}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
        barriers.append(f"{where}: is wider than the window")
    for dialog in page.locator("dialog[open]").all():
        if dialog.evaluate("one => one.scrollWidth > one.clientWidth"):
            barriers.append(f"{where}: a dialog is wider than it shows")
    return barriers


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_barrier(browser: Browser, server: Server, scheme: Any, size: str) -> None:
    context = {"viewport": SIZES[size], "color_scheme": scheme, "bypass_csp": True}
    with visit(browser, server, **context) as page:
        page.evaluate(AXE)
        page.locator("details").evaluate_all("all => all.forEach(one => one.open = true)")
        barriers = find_barriers(page, "page")
        page.locator("#pause").click()
        barriers += find_barriers(page, "figures of before")
        page.locator("#pause").click()
        page.locator("#rows tbody button").first.click()
        barriers += find_barriers(page, "connection")
        for button in ("#send", "#close"):
            page.locator(button).click()
            barriers += find_barriers(page, button)
            page.keyboard.press("Escape")
        page.locator("#detail-rooms button").first.click()
        page.locator("#confirm-do").click()
        expect(page.locator("#inside")).to_be_visible()
        barriers += find_barriers(page, "room")
        page.keyboard.press("Escape")
        page.locator("#close").click()
        page.get_by_label("Close code", exact=True).fill("1005")
        page.keyboard.press("Enter")
        expect(page.locator("#detail .result")).to_contain_text("Not done:")
        barriers += find_barriers(page, "what was not done")
        page.keyboard.press("Escape")
        for search in ("#search", "#rooms-search"):
            page.locator(search).fill("no such name")
        for none in ("#none", "#no-room"):
            expect(page.locator(none)).to_be_visible()
        barriers += find_barriers(page, "nothing found")
        page.context.clear_cookies()
        page.evaluate("socket.close()")
        expect(page.locator("#refused")).to_be_visible()
        barriers += find_barriers(page, "not allowed")
        assert barriers == []


def test_a_socket_that_is_refused(browser: Browser, server: Server) -> None:
    """As behind a proxy that was not told of: the page says where to look."""
    elsewhere = """globalThis.WebSocket = class extends WebSocket {
        constructor(url) { super(`${url}-nowhere`) }
    }"""
    with closing(browser.new_context()) as context:
        page = context.new_page()
        page.add_init_script(elsewhere)
        page.goto(f"http://{server.address}/login")
        expect(page.locator("#trouble")).to_contain_text("the log of the server says why")
        expect(page.locator("#state")).to_have_text("Disconnected")


OTHER_PAGE = b"""<!doctype html><title>Another site</title>
<iframe></iframe><form id=f method=post enctype=text/plain>
<input name='{"id":"' value='"}'></form>"""

#: What pages of other origins can do to the admin page at `where`, with the admin's cookies.
ATTACKS = {
    "fetch": """fetch(`${where}close`,
        {method: 'POST', credentials: 'include', mode: 'no-cors', body})""",
    "fetch of JSON": """fetch(`${where}close`, {method: 'POST', credentials: 'include', body,
        headers: {'Content-Type': 'application/json', 'X-Admin-Token': 'x'}})""",
    "read": "fetch(where, {credentials: 'include'}).then(answer => answer.text())",
    "socket": """new Promise((resolve, reject) => {
        const socket = new WebSocket(`${where}updates`.replace('http', 'ws'))
        socket.onopen = () => resolve('open')
        socket.onerror = () => reject('refused')
    })""",
    "script": """new Promise((resolve, reject) => {
        const script = document.createElement('script')
        Object.assign(script, {src: `${where}static/admin.js`, onload: resolve, onerror: reject})
        document.body.append(script)
    })""",
}


@contextmanager
def other_site() -> Iterator[str]:
    """The URL of a site on another port, whose one page is `OTHER_PAGE`."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()
            self.wfile.write(OTHER_PAGE)

        def log_message(self, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as site:
        thread = Thread(target=site.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{site.server_port}/"
        finally:
            site.shutdown()
            thread.join()


def test_pages_of_others(browser: Browser, server: Server) -> None:
    """Of the same site, even, so that the admin's cookies go with all that they ask for."""
    with ExitStack() as stack:
        client = stack.enter_context(server.connect("/rooms/x?user=ann&room=a"))
        assert client.recv(PATIENCE) == "here"
        page = stack.enter_context(closing(browser.new_context())).new_page()
        page.goto(f"http://{server.address}/login")
        expect(page.locator("#rows tbody tr")).to_have_count(1)
        page.locator("#rows tbody button").click()
        id = page.locator("#fact-id").inner_text()
        page.goto(stack.enter_context(other_site()))
        where = f"http://{server.address}/_ws/"
        came = {
            name: page.evaluate(
                f"""([where, body]) => Promise.race([{attack}]).then(
                    answer => String(answer?.type ?? answer), () => 'refused')""",
                [where, json.dumps({"id": id})],
            )
            for name, attack in ATTACKS.items()
        }
        assert came == dict.fromkeys(ATTACKS, "refused")
        with page.expect_event("requestfailed") as framed:
            page.evaluate("where => { frames[0].location = where }", where)
        assert framed.value.failure == "net::ERR_BLOCKED_BY_RESPONSE"
        with page.expect_navigation() as posted:
            page.evaluate("where => { f.action = `${where}close`; f.submit() }", where)
        assert posted.value.status == 403
        client.ping().wait(PATIENCE)  # it has not been closed
    assert server.new_log().count("from its own origin only") >= 3


def test_dialogs_give_the_focus_back(browser: Browser, server: Server) -> None:
    with visit(browser, server, viewport=SIZES["wide"]) as page:
        row = page.locator("#rows tbody button").last
        row.focus()
        page.keyboard.press("Enter")
        expect(page.locator("#detail")).to_be_visible()
        page.locator("#close").focus()
        page.keyboard.press("Enter")
        code = page.get_by_label("Close code", exact=True)
        expect(code).to_be_focused()
        for _ in range(6):  # within the dialog, and the browser's own
            page.keyboard.press("Tab")
            inside = "document.activeElement.matches('#confirm *, body')"
            assert page.evaluate(inside)
        page.keyboard.press("Escape")
        expect(page.locator("#close")).to_be_focused()
        page.keyboard.press("Escape")
        expect(row).to_be_focused()


def test_a_code_that_cannot_be(browser: Browser, server: Server) -> None:
    """The browser asks for another; what only the server knows to be wrong is said."""
    with visit(browser, server) as page:
        page.locator("#rows tbody button").first.click()
        page.locator("#close").click()
        page.get_by_label("Close code", exact=True).fill("99")
        page.locator("#confirm-do").click()
        expect(page.locator("#confirm")).to_be_visible()
        page.get_by_label("Close code", exact=True).fill("1005")
        page.keyboard.press("Enter")
        expect(page.locator("#detail .result")).to_contain_text("Not done:")


def test_nothing_chatters(browser: Browser, server: Server) -> None:
    """Figures change all the time, and what is read out does not."""
    with visit(browser, server) as page:
        live = "[...document.querySelectorAll('[role=status], [role=alert], [aria-live]')]"
        page.evaluate(
            f"""() => {{
                globalThis.said = []
                const heard = changes => said.push(...changes.map(one => one.target.textContent))
                const options = {{subtree: true, childList: true, characterData: true}}
                for (const one of {live}) new MutationObserver(heard).observe(one, options)
            }}"""
        )
        since = page.locator("#rows [data-label='Open for']").first
        before = since.inner_text()
        expect(since).not_to_have_text(before)
        page.locator("#rows tbody button").first.click()
        facts = page.locator("#fact-open-for")
        before = facts.inner_text()
        expect(facts).not_to_have_text(before)
        assert page.evaluate("said") == []


def test_prints_without_controls(browser: Browser, server: Server) -> None:
    with visit(browser, server) as page:
        page.emulate_media(media="print")
        expect(page.locator("#pause")).to_be_hidden()
        expect(page.locator("#rows tbody tr").first).to_be_visible()


def test_a_question_that_is_asked_again_at_once(browser: Browser, server: Server) -> None:
    """The end of the first is told late, and says nothing of the second."""
    with visit(browser, server) as page:
        page.locator("#rows tbody button").first.click()
        page.evaluate(
            """() => {
                const [close, dialog] = ['close', 'confirm'].map(id => document.getElementById(id))
                close.click()
                dialog.close()
                close.click()
            }"""
        )
        page.get_by_label("Reason, which the client gets").fill("asked again")
        page.locator("#confirm-do").click()
        expect(page.locator("#detail .result")).to_contain_text("is being closed")
