r"""A chat on gevent: pick a name, talk, see who comes and goes.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/chat-gevent/chat.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --gevent 100 --chdir examples/chat-gevent --wsgi chat:app

Visitors may be in different processes: a room reaches all of them. The page tells which process it
is connected to. PORT=8080 before the first command moves the chat to another port.
"""

import os

from flask import Flask, render_template, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@app.route("/")
def index():
    return render_template("chat.html", engine="gevent")


@websocket.route("/chat", max_message_size=4096)
def chat(ws):
    name = request.args.get("name", "").strip()[:24] or "Anonymous"
    visitor = {"id": ws.id, "name": name}
    ws.send_json({"you": ws.id, "process": os.getpid()})
    ws.join("chat")
    try:
        tell_all(visitor, kind="join", online=online())
        for text in ws:
            tell_all(visitor, kind="message", text=text)
    finally:
        ws.leave("chat")
        tell_all(visitor, kind="leave", online=online())


def tell_all(visitor, **event):
    """Send to everybody in the room, the visitor too; no slow reader holds up the others."""
    websocket.to("chat").send_json({**visitor, **event})


def online():
    """Count all visitors, by asking every process: now and then, not for each message."""
    return websocket.count("chat").connections


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), gevent=100, processes=2)
