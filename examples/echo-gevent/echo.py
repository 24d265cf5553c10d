r"""Echo on gevent: what the browser sends comes back.

Start it from the repository's root and open http://localhost:5000::

    python examples/echo-gevent/echo.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --gevent 100 --chdir examples/echo-gevent --wsgi echo:app

Each open WebSocket occupies one of the 100 greenlets. PORT=8080 before the first command moves it.
"""

import os

from flask import Flask, render_template

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@app.route("/")
def index():
    return render_template("echo.html", engine="gevent")


@websocket.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), gevent=100)
