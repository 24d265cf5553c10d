r"""A chat on gevent: pick a name, talk, see who comes and goes.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/chat-gevent/chat.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --gevent 100 --chdir examples/chat-gevent --wsgi chat:app

Everybody has to be in the same process, which is as far as ``send_to_all`` reaches: leave
``--processes`` at 1. PORT=8080 before the first command moves the chat to another port.
"""

import os

from flask import Flask, render_template, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


def broadcast(kind, sender, name, text=""):
    """Tell everybody: no slow reader holds up the others, and nobody who has left is in the way."""
    online = len(websocket.clients)
    event = {"kind": kind, "id": sender.id, "name": name, "text": text, "online": online}
    websocket.send_to_all(app.json.dumps(event))


@app.route("/")
def index():
    return render_template("chat.html", engine="gevent")


@websocket.route("/chat", max_message_size=4096)
def chat(ws):
    name = request.args.get("name", "").strip()[:24] or "Anonymous"
    broadcast("join", ws, name)
    try:
        for text in ws:
            broadcast("message", ws, name, text)
    finally:
        broadcast("leave", ws, name)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), gevent=100)
