r"""Echo on asyncio: what the browser sends comes back.

Start it from the repository's root and open http://localhost:5000::

    python examples/echo-asyncio/echo.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --asyncio 100 --greenlet --chdir examples/echo-asyncio --wsgi echo:app

The 100 cores are for HTTP: open WebSockets hold none. PORT=8080 before the first command moves it.
"""

import os

from flask import Flask, render_template

from flask_uwsgi_websocket import AsyncioWebSocket

app = Flask(__name__)
websocket = AsyncioWebSocket(app)


@app.route("/")
def index():
    return render_template("echo.html", engine="asyncio")


@websocket.route("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), asyncio=100)
