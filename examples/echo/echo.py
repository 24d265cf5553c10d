r"""Echo on threads: what the browser sends comes back.

Start it from the repository's root and open http://localhost:5000::

    python examples/echo/echo.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --threads 16 --chdir examples/echo --wsgi echo:app

Each open WebSocket occupies one of the 16 threads. PORT=8080 before the first command moves it.
"""

import os

from flask import Flask, render_template

from flask_uwsgi_websocket import WebSocket

app = Flask(__name__)
websocket = WebSocket(app)


@app.route("/")
def index():
    return render_template("echo.html", engine="threads")


@websocket.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), threads=16)
