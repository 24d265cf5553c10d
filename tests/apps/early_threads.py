"""An app that starts a thread while it is imported, before the extension: as dashboards do."""

import threading
import time

from tests.apps.kit import make_app, make_extension


def feed():
    while True:
        time.sleep(0.1)


threading.Thread(target=feed, name="dashboard", daemon=True).start()
app = make_app(__name__)
websocket = make_extension(app)


@websocket.route("/echo")
async def echo(ws):
    async for msg in ws:
        await ws.send(msg)
