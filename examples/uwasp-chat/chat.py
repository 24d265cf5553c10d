r"""A chat whose server is a class, on gevent and without Flask.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/uwasp-chat/chat.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --gevent 100 --chdir examples/uwasp-chat --wsgi chat:application

Visitors may be in different processes: a room reaches all of them. The page tells which process it
is connected to. PORT=8080 before the first command moves the chat to another port.
"""

import os
from pathlib import Path
from urllib.parse import parse_qs

from werkzeug.middleware.shared_data import SharedDataMiddleware

from flask_uwsgi_websocket.runner import run_uwsgi
from flask_uwsgi_websocket.uwasp import GeventHandler, Limits, Server, WebSocketMiddleware

HERE = Path(__file__).resolve().parent


class Chat(Server):
    """One visitor."""

    def __init__(self, ws):
        super().__init__(ws)
        query = parse_qs(ws.environ["QUERY_STRING"])
        self.name = query.get("name", [""])[0].strip()[:24] or "Anonymous"

    def on_open(self):
        self.ws.client.send_json({"you": self.ws.client.id, "process": os.getpid()})
        self.ws.join("chat")
        self.tell_all(kind="join", online=self.online())

    def on_message(self, message):
        if isinstance(message, str):
            self.tell_all(kind="message", text=message)

    def on_close(self):
        self.ws.leave("chat")
        self.tell_all(kind="leave", online=self.online())

    def tell_all(self, **event):
        """Send to everybody in the room, the visitor too; no slow reader holds up the others."""
        visitor = {"id": self.ws.client.id, "name": self.name}
        application.to("chat").send_json({**visitor, **event})

    def online(self):
        """Count all visitors, by asking every process: now and then, not for each message."""
        return application.count("chat").connections


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
    run_uwsgi(application, port=int(os.environ.get("PORT", "5000")), gevent=100, processes=2)
