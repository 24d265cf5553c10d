"""An app whose lines of the log go into a file, beside those of its server."""

import json
import logging
import threading

from flask import abort, request

from tests.apps.kit import make_app, make_extension


class Lines:
    """A file of JSON, whose lines come whole whichever thread or worker writes them."""

    def __init__(self, path):
        self.path = path
        self._lock = threading.Lock()

    def write(self, **line):
        with self._lock, open(self.path, "a") as file:
            file.write(f"{json.dumps(line)}\n")


class FileHandler(logging.Handler):
    def __init__(self, lines):
        super().__init__()
        self._lines = lines

    def emit(self, record):
        fields = {name: value for name, value in vars(record).items() if "websocket_" in name}
        self._lines.write(level=record.levelname, text=record.getMessage(), **fields)


logger = logging.getLogger("flask_uwsgi_websocket.connection")
logger.addHandler(FileHandler(Lines("lines.jsonl")))
logger.setLevel(logging.DEBUG)
logger.propagate = False

app = make_app(__name__)
websocket = make_extension(app)


@app.before_request
def deny():
    if "deny" in request.args:
        abort(int(request.args["deny"]))


@websocket.route("/echo/<name>")
async def echo(ws, name):
    while (message := await ws.receive()) is not None:
        await ws.send(message)
