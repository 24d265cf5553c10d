"""The page's actions: checked, done by whichever worker can, logged, and answered."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import Any

from flask import Response, g, jsonify, request

from ...codec.frames import check_close, encode_text
from ...exceptions import BackplaneUnavailable, LocalProtocolError, RoomError
from ...rooms.rooms import Rooms
from .acting import ASK
from .audit import log_action
from .looking import look

#: Bytes of a request, and characters of a test message.
MAX_BODY, MAX_TEXT = 16 * 1024, 4096
MAX_ID = 100


class BadAction(ValueError):
    """What the page has asked for cannot be done."""


def refusal(status: int, error: str, reload: bool = False) -> Response:
    """Make the answer to what is not done."""
    response = jsonify(error=error, reload=reload)
    response.status_code = status
    return response


class Actions:
    """The actions of a page, for the rooms of its app."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms

    def views(self) -> dict[str, Callable[[], Response]]:
        """Return a view for each action, by the name in its URL."""
        return {
            "close": lambda: self._answer("close", self._close),
            "send": lambda: self._answer("send", self._send),
            "room": lambda: self._answer("room", self._look),
        }

    def _answer(self, action: str, do: Callable[[dict[str, Any]], Any]) -> Response:
        """Do what the request asks for."""
        try:
            return do(_body())  # type: ignore[no-any-return]
        except (BadAction, LocalProtocolError, ValueError) as error:
            return refusal(400, str(error))
        except (RoomError, asyncio.TimeoutError) as error:
            status = 503 if isinstance(error, (BackplaneUnavailable, TimeoutError)) else 400
            log_action(g.websocket_admin, action, f"failed: {type(error).__name__}")
            return refusal(status, str(error) or "the workers did not answer")

    def _close(self, body: dict[str, Any]) -> Response:
        id, code, reason = _text(body, "id", MAX_ID), body.get("code", 1000), body.get("reason", "")
        check_close(code, reason)
        encode_text(reason)
        return self._act({"do": "close", "id": id, "code": code, "reason": reason})

    def _send(self, body: dict[str, Any]) -> Response:
        text = _text(body, "text", MAX_TEXT)
        encode_text(text)
        return self._act({"do": "send", "id": _text(body, "id", MAX_ID), "text": text})

    def _act(self, question: dict[str, Any]) -> Response:
        answers = self._run(self._rooms.live().exchange.ask({"ask": ASK, **question}))
        done: dict[str, Any] = {}
        for part in answers.answers:
            done.update(part or {})
        if not done and answers.complete:
            done = {"status": 404, "error": "there is no such connection (any more)"}
        elif not done:
            done = {"status": 503, "error": "not all workers answered; none of those has it"}
        facts = {name: question.get(name) for name in ("code", "reason") if name in question}
        whom = dict(done.get("connection", {"id": question["id"]}))
        whom["client"] = whom.pop("address", None)
        result = done.get("done") or done["error"]
        size = {"characters": len(question["text"])} if "text" in question else {}
        log_action(g.websocket_admin, question["do"], result, **whom, **facts, **size)
        if "error" in done:
            return refusal(done["status"], done["error"])
        return jsonify(done)

    def _look(self, body: dict[str, Any]) -> Response:
        room, payloads = _text(body, "room", 255), body.get("payloads") is True
        seen = self._run(look(self._rooms.live(), room, payloads))
        what = "looked into it, payloads too" if payloads else "looked into it"
        log_action(g.websocket_admin, "room", what, room=room)
        return jsonify(seen)

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._rooms.run(coroutine)


def _body() -> dict[str, Any]:
    """Return the request's JSON, which is a small object; BadAction for another one."""
    if request.mimetype != "application/json":
        raise BadAction("the body must be application/json")
    data = request.stream.read(MAX_BODY + 1)
    if len(data) > MAX_BODY:
        raise BadAction(f"the body has more than {MAX_BODY} bytes")
    try:
        body = json.loads(data)
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise BadAction("the body must be a JSON object")
    return body


def _text(body: dict[str, Any], name: str, longest: int) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= longest:
        raise BadAction(f"{name} must be a text of 1 to {longest} characters")
    return value
