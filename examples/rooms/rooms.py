r"""Rooms that remember: who is here, what was said, and nothing missed while you were away.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/rooms/rooms.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --gevent 200 --chdir examples/rooms --wsgi rooms:app

Load a page again, cut its network, kill the process that it is connected to (the page tells which):
nobody is seen to leave, and every message is there once, in the order that all others see too.
http://localhost:5000/_ws/ shows it all to whoever has joined, on this machine, and
http://localhost:5000/metrics to Prometheus (``pip install prometheus-client`` first).
PORT=8080 before the first command moves the rooms to another port.
"""

import os
import time
import uuid

from flask import Flask, abort, redirect, render_template, request, session, url_for

from flask_uwsgi_websocket import GeventWebSocket, Room

ROOMS = {"lobby": "Lobby", "kitchen": "Tea kitchen", "workshop": "Workshop", "garden": "Garden"}

app = Flask(__name__)
app.secret_key = os.environ.get("SECRET_KEY", "only for this example")
websocket = GeventWebSocket(app)
websocket.room(
    "chat/*",
    history=Room.history(count=200, seconds=3600),
    presence=Room.presence(grace=5),
    announce=True,
)
app.add_url_rule("/rooms.js", view_func=websocket.client_js)


@websocket.identify
def visitor():
    return session.get("id")


def is_here():
    """Tell whether a request comes from this machine. By its name, too: others may lead here."""
    return request.remote_addr == "127.0.0.1" and request.host.startswith("localhost:")


def operator():
    """Tell who may see the admin page: here who is at this machine. An app asks for accounts."""
    return is_here() and "name" in session


websocket.admin(allowed=operator, who=lambda: session["name"])


@app.get("/metrics")
def metrics():
    return websocket.metrics_view() if is_here() else abort(403)


@app.get("/")
def index():
    if "id" not in session:
        return render_template("join.html")
    return redirect(url_for("room", name="lobby"))


@app.post("/")
def join():
    session["id"] = session.get("id") or uuid.uuid4().hex
    session["name"] = " ".join(request.form.get("name", "").split())[:24] or "Anonymous"
    return redirect(url_for("room", name="lobby"))


@app.get("/<name>")
def room(name):
    if name not in ROOMS:
        abort(404)
    if "id" not in session:
        return redirect(url_for("index"))
    past = websocket.history(f"chat/{name}", limit=200)
    said = [app.json.loads(message.data) for message in past.messages]
    # The page's socket goes on from the position, so that nothing is missing in between.
    return render_template("room.html", name=name, rooms=ROOMS, position=past.position, said=said)


@websocket.route("/<name>", resume=True, max_message_size=4096)
def chat(ws, name):
    if name not in ROOMS or ws.user is None:
        ws.close(4404, "there is no such room, or you have no name yet")
        return
    here = f"chat/{name}"
    ws.join(here, info={"name": session["name"]})
    ws.join("doors")
    members = [{"user": member.user, "info": member.info} for member in websocket.who(here)]
    ws.send_json({"process": os.getpid(), "members": members, "counts": counts()})
    for text in ws:
        said = {"user": ws.user, "name": session["name"], "text": text, "time": time.time()}
        websocket.to(here).send_json(said)


@websocket.on_join("chat/*")
@websocket.on_leave("chat/*")
def count_again(room, member):
    """Tell the pages in all rooms how many are in this one; once, whatever the processes."""
    name = room.removeprefix("chat/")
    websocket.to("doors").send_json({name: len(websocket.who(room))})


def counts():
    return {name: len(websocket.who(f"chat/{name}")) for name in ROOMS}


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), gevent=200, processes=2)
