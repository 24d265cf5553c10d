"""An app that finds no devices, as in a chroot that has none."""

import os
import sys

from tests.apps.kit import make_app, make_extension


def deny_devices(event, arguments):
    if event == "open" and str(arguments[0]).startswith("/dev/"):
        raise FileNotFoundError(2, os.strerror(2), arguments[0])


sys.addaudithook(deny_devices)
app = make_app(__name__)
websocket = make_extension(app)


@websocket.route("/echo")
async def echo(ws):
    async for msg in ws:
        await ws.send(msg)
