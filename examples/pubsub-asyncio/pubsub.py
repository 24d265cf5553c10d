r"""Channels on asyncio and Redis: what one visitor says, all visitors of the same channel hear.

Start Redis and, from the repository's root, the example; then open http://localhost:5000 twice::

    python examples/pubsub-asyncio/pubsub.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --asyncio 100 --greenlet --chdir examples/pubsub-asyncio --wsgi pubsub:app

Visitors may be in different processes, and on different machines: Redis passes everything on, also
to and from the example on gevent. ``pip install 'Flask-uWSGI-WebSocket[redis]'`` for the client.
REDIS_URL=redis://localhost:6379 before the first command names another Redis, PORT=8080 another
port.
"""

import os

from flask import Blueprint, Flask, redirect, render_template, url_for

from flask_uwsgi_websocket import AsyncioWebSocket

app = Flask(__name__)
app.config["UWSGI_WEBSOCKET_BACKPLANE"] = os.environ.get("REDIS_URL", "redis://localhost:6379")
websocket = AsyncioWebSocket(app)
channels = Blueprint("channels", __name__, url_prefix="/channels")


@app.route("/")
def index():
    return redirect(url_for("page", name="lobby"))


@app.route("/channels/<name>")
def page(name):
    return render_template("pubsub.html", engine="asyncio", channel=name)


# The same URL as the page's: an upgrade request comes here. While Redis is away, to join or to send
# closes with 1013, "try again later", and the page comes back by itself.
@channels.route("/<name>", max_message_size=4096)
async def channel(ws, name):
    await ws.join(name)
    await ws.send_json({"you": ws.id, "process": os.getpid()})
    async for text in ws:
        await websocket.to(name).send_json({"from": ws.id, "text": text})


websocket.register_blueprint(channels)

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), asyncio=100, processes=2)
