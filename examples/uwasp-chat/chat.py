r"""A chat whose server is a class, on gevent and without Flask.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/uwasp-chat/chat.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --gevent 100 --chdir examples/uwasp-chat --wsgi chat:application

Everybody has to be in the same process, because that is where ``visitors`` lives: leave
``--processes`` at 1. PORT=8080 before the first command moves the chat to another port.
"""

import json
import os
from contextlib import suppress
from pathlib import Path
from urllib.parse import parse_qs

from werkzeug.middleware.shared_data import SharedDataMiddleware

from flask_uwsgi_websocket.runner import run_uwsgi
from flask_uwsgi_websocket.uwasp import (
    ConnectionClosed,
    GeventHandler,
    Limits,
    Server,
    WebSocketMiddleware,
)

HERE = Path(__file__).resolve().parent
visitors = set()


class Chat(Server):
    """One visitor."""

    def __init__(self, ws):
        super().__init__(ws)
        query = parse_qs(ws.environ["QUERY_STRING"])
        self.name = query.get("name", [""])[0].strip()[:24] or "Anonymous"

    def on_open(self):
        self.ws.client.send_json({"you": self.ws.client.id, "process": os.getpid()})
        visitors.add(self)
        self.broadcast("join")

    def on_message(self, message):
        if isinstance(message, str):
            self.broadcast("message", message)

    def on_close(self):
        visitors.discard(self)
        self.broadcast("leave")

    def broadcast(self, kind, text=""):
        """Tell everybody; ``send_nb`` never waits, so no slow reader holds up the others."""
        message = json.dumps(
            {
                "kind": kind,
                "id": self.ws.client.id,
                "name": self.name,
                "text": text,
                "online": len(visitors),
            }
        )
        for visitor in list(visitors):
            # Whoever is gone, or hopelessly behind, leaves through their own on_close().
            with suppress(ConnectionClosed):
                visitor.ws.client.send_nb(message)


def page(environ, start_response):
    """Any WSGI application would do."""
    if environ["PATH_INFO"] != "/":
        start_response("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not here\n"]
    start_response("200 OK", [("Content-Type", "text/html; charset=utf-8")])
    return [(HERE / "chat.html").read_bytes()]


application = WebSocketMiddleware(
    SharedDataMiddleware(page, {"/static": str(HERE / "static")}),
    GeventHandler,
    [("/chat", Chat)],
    limits=Limits(max_message_size=4096),
)


if __name__ == "__main__":
    run_uwsgi(application, port=int(os.environ.get("PORT", "5000")), gevent=100)
