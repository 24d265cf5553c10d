r"""Channels on asyncio and Redis: what one visitor says, all visitors of the same channel hear.

Start Redis and, from the repository's root, the example; then open http://localhost:5000 twice::

    python examples/pubsub-asyncio/pubsub.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --asyncio 100 --greenlet --chdir examples/pubsub-asyncio --wsgi pubsub:app

Visitors may be in different processes, and on different machines: Redis passes everything on.
``pip install redis`` for the client. REDIS_URL=redis://localhost:6379 before the first command
names another Redis, PORT=8080 another port.
"""

import asyncio
import os

from flask import Blueprint, Flask, redirect, render_template, url_for
from redis.asyncio import Redis
from redis.exceptions import RedisError

from flask_uwsgi_websocket import AsyncioWebSocket, ConnectionClosed

app = Flask(__name__)
websocket = AsyncioWebSocket(app)
channels = Blueprint("channels", __name__, url_prefix="/channels")

# It connects when it is first used, which is in the worker and on its loop.
redis = Redis.from_url(os.environ.get("REDIS_URL", "redis://localhost:6379"))


@app.route("/")
def index():
    return redirect(url_for("page", name="lobby"))


@app.route("/channels/<name>")
def page(name):
    return render_template("pubsub.html", engine="asyncio", channel=name)


# The same URL as the page's: an upgrade request comes here.
@channels.route("/<name>", max_message_size=4096)
async def channel(ws, name):
    topic = f"pubsub-asyncio:{name}"
    try:
        async with redis.pubsub(ignore_subscribe_messages=True) as subscription:
            await subscription.subscribe(topic)
            await ws.send_json({"you": ws.id})
            listening = asyncio.create_task(pass_on(subscription, ws))
            try:
                async for text in ws:
                    await redis.publish(topic, app.json.dumps({"from": ws.id, "text": text}))
            finally:
                listening.cancel()
                await asyncio.wait([listening])
    except RedisError as error:
        app.logger.error("Redis: %s", error)
        await ws.close(1013, "Redis is away")


async def pass_on(subscription, ws):
    try:
        async for event in subscription.listen():
            await ws.send(event["data"].decode())
    except ConnectionClosed:
        pass  # the handler hears of it too
    except RedisError as error:
        app.logger.error("Redis: %s", error)
        await ws.close(1013, "Redis is away")


websocket.register_blueprint(channels)

if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), asyncio=100, processes=2)
