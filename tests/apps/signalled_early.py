"""An app whose second worker is told to reload before uWSGI has set its own handlers of signals."""

import os
import signal

import uwsgi
from uwsgidecorators import postfork

from tests.apps.kit import make_app, make_extension

app = make_app(__name__)
websocket = make_extension(app)


@postfork  # after the extension's
def reload():
    if uwsgi.workers()[0]["respawn_count"] == 1:
        os.kill(os.getpid(), signal.SIGHUP)


@websocket.route("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
