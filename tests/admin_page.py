"""The admin page as a test sees it, in whichever browser: what it shows, and hands on it."""

from __future__ import annotations

import json
from typing import Any

from tests.js_clients import Browser
from tests.server import Server, eventually


def at(selector: str) -> str:
    """The script for the first element that a selector has."""
    return f"document.querySelector({json.dumps(selector)})"


class AdminPage:
    """The page of a server's app, with the cookie that it takes."""

    def __init__(self, js: Browser, server: Server) -> None:
        self.js = js
        self.server = server

    def open(self, address: str = "") -> AdminPage:
        self.js.go(f"http://{address or self.server.address}/login")
        self.expect("#state", "Live")
        eventually(lambda: self.text("#count"), "connections")
        return self

    # What it shows

    def text(self, selector: str) -> str:
        """What people see of an element; nothing if it is not there, or hidden."""
        shown = f"(one => one?.checkVisibility() ? one.innerText.trim() : '')({at(selector)})"
        return str(self.js.read(shown))

    def texts(self, selector: str) -> list[str]:
        every = f"document.querySelectorAll({json.dumps(selector)})"
        texts: list[str] = self.js.read(f"[...{every}].map(one => one.innerText.trim())")
        return texts

    def expect(self, selector: str, *parts: str) -> None:
        """Wait until an element's text has these parts."""

        def look() -> bool:
            text = self.text(selector)
            return bool(text) and all(part in text for part in parts)

        try:
            eventually(look, f"{parts} in {selector}", interval=0.05)
        except AssertionError as error:
            state = f"{self.text(selector)!r}; {self.dialogs}: {self.text('dialog#confirm')!r}"
            raise AssertionError(f"{error}: it has {state}") from None

    def column(self, title: str) -> list[str]:
        """A column of the table of connections, row by row."""
        return self.texts(f"#rows tbody [data-label='{title}']")

    def expect_attribute(self, selector: str, name: str, value: str) -> None:
        read = f"{at(selector)}.getAttribute({json.dumps(name)})"
        eventually(lambda: self.js.read(read) == value, f"{name}={value} of {selector}")

    def expect_users(self, *users: str) -> None:
        eventually(lambda: self.column("User") == [*users], f"{users}", interval=0.05)

    @property
    def focused(self) -> str:
        """The text of what has the focus."""
        return str(self.js.read("document.activeElement.innerText.trim()"))

    @property
    def dialogs(self) -> list[str]:
        """The open dialogs, that on top at the end."""
        ids: list[str] = self.js.read(
            "[...document.querySelectorAll('dialog[open]')].map(d => d.id)"
        )
        return ids

    # What one does with it

    def click(self, selector: str) -> None:
        self.js.click(at(selector))

    def click_text(self, selector: str, text: str) -> None:
        """Click that of several elements which has a text."""
        every = f"[...document.querySelectorAll({json.dumps(selector)})]"
        self.js.click(f"{every}.find(one => one.innerText.trim() === {json.dumps(text)})")

    def sort_by(self, title: str) -> None:
        self.click_text("#rows .sort", title)

    def leave_table(self) -> None:
        """Let rows move: nobody is in them."""
        self.click("h1")

    def type(self, selector: str, text: str) -> None:
        """Type a text instead of what there is."""
        self.js.read(f"({at(selector)}.focus(), {at(selector)}.select())")
        for character in text or ["Delete"]:
            self.js.press(character)

    def focus(self, selector: str) -> None:
        self.js.read(f"{at(selector)}.focus() ?? null")

    def tab_to(self, text: str, most: int = 60) -> list[str]:
        """Go on by the Tab key to what has a text; return the texts of all that was reached."""
        reached: list[str] = []
        while reached[-1:] != [text]:
            assert len(reached) < most, reached
            self.js.press("Tab")
            reached.append(self.focused)
        return reached

    def choose(self, selector: str, value: str) -> None:
        """Choose of a list, which opens outside of the page."""
        self.js.read(
            f"({at(selector)}.value = {json.dumps(value)}, "
            f"{at(selector)}.dispatchEvent(new Event('change', {{bubbles: true}})))"
        )

    def open_row(self, user: str) -> None:
        """Open the panel of a user's connection."""
        eventually(lambda: user in self.column("User"), f"{user} in the table")
        row = f"[...document.querySelectorAll('#rows tbody tr')][{self.column('User').index(user)}]"
        self.js.click(f"{row}.querySelector('button')")
        eventually(lambda: self.dialogs == ["detail"], "the panel")

    def confirm(self, **fields: Any) -> None:
        """Fill in what the dialog asks for, and confirm."""
        eventually(lambda: self.dialogs[-1:] == ["confirm"], "a question")
        for name, value in fields.items():
            self.type(f"#confirm [name={name}]", str(value))
        self.click("#confirm-do")
