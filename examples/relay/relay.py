r"""A relay: each WebSocket is joined to a TCP connection of its own, and waits for both.

Start it from the repository's root, then talk to whatever listens on RELAY_TO::

    python examples/relay/relay.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --threads 16 --chdir examples/relay --wsgi relay:app

A thread waits for the one connection while the handler waits for the other. With
``GeventWebSocket`` in place of ``WebSocket`` the same code runs in greenlets. RELAY_TO names the
service, as in RELAY_TO=localhost:6379 for Redis; PORT=8080 another port for the relay.
"""

import os
import socket
import threading
from contextlib import suppress

from flask import Flask, abort

from flask_uwsgi_websocket import ConnectionClosed, WebSocket

app = Flask(__name__)
websocket = WebSocket(app)

HOST, _, SERVICE_PORT = os.environ.get("RELAY_TO", "localhost:6379").partition(":")


@app.route("/")
def index():
    return f"ws://.../relay speaks to {HOST}:{SERVICE_PORT}: try flask websocket echo /relay\n"


# Lazy: the handshake waits until ws is used, so that the client may be refused with HTTP.
@websocket.route("/relay", lazy=True)
def relay(ws):
    try:
        service = socket.create_connection((HOST, SERVICE_PORT), timeout=0.9)
    except OSError as error:
        app.logger.error("No service at %s:%s: %s", HOST, SERVICE_PORT, error)
        abort(502)
    service.settimeout(None)
    with service:
        answers = threading.Thread(target=pass_on, args=(service, ws))
        answers.start()
        try:
            for message in ws:
                service.sendall(message.encode() if isinstance(message, str) else message)
        except OSError:
            pass  # the service has gone: pass_on has noticed, and closes
        finally:
            shut_down(service)  # the other thread's recv() returns
            answers.join()


def pass_on(service, ws):
    try:
        while data := service.recv(65536):
            ws.send(data)  # waits for a client that reads slowly, and so the service waits too
        ws.close()
    except ConnectionClosed:
        pass  # the handler's loop ends too
    except OSError:
        ws.close(1011, "the service broke off")


def shut_down(service):
    with suppress(OSError):  # it may have gone already
        service.shutdown(socket.SHUT_RDWR)


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), threads=16, processes=2)
