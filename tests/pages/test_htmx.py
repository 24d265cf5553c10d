"""The code of docs/htmx.rst, as it stands there; a browser with htmx was tried by hand."""

from __future__ import annotations

from tests.pages import Page

PAGE = Page("htmx")


def test_what_is_said_comes_as_html() -> None:
    names = PAGE.run("LINE =")
    exec(PAGE.code("def add_note"), names)
    client = names["websocket"].test_client(names["app"])
    with client.connect("/chat") as ada, client.connect("/chat") as bob:
        # As htmx sends a form.
        ada.send_json({"text": "<b>hello</b>", "HEADERS": {"HX-Request": "true"}})
        line = '<ul id="log" hx-swap-oob="beforeend"><li>&lt;b&gt;hello&lt;/b&gt;</li></ul>'
        assert bob.receive() == ada.receive() == line
        assert client.post("/notes", data={"text": "a note"}).status_code == 204
        assert "<li>a note</li>" in bob.receive()
