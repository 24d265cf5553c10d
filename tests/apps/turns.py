"""Work of the helper thread that lets go of the interpreter's lock forty times."""

import time

from flask_uwsgi_websocket.servers import uwsgi
from tests.apps.kit import make_app, make_extension

app = make_app("turns")
websocket = make_extension(app)


@websocket.route("/")
def begin(ws):
    """Have it done once nothing but this handler's waiting is left."""
    path = ws.receive()

    def work():
        for _ in range(40):
            time.sleep(0.001)
        with open(path, "w"):
            pass

    uwsgi.engine("suspend").worker().call_later(1, work)
    ws.send("begun")
    ws.receive()
