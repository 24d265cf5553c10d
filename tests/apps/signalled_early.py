"""An app whose second worker is told to reload before uWSGI has set its own handlers of signals."""

import os
import signal

import uwsgi
from uwsgidecorators import postfork


def reload():
    if uwsgi.workers()[0]["respawn_count"] == 1:
        os.kill(os.getpid(), signal.SIGHUP)


if "lazy-apps" in uwsgi.opt:  # the worker has just begun to import the app
    reload()
elif "FIRST" in os.environ:  # before the extension's own hook
    postfork(reload)

from tests.apps.kit import make_app, make_extension  # noqa: E402

app = make_app(__name__)
websocket = make_extension(app)

if "lazy-apps" not in uwsgi.opt and "FIRST" not in os.environ:
    postfork(reload)


@websocket.route("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
