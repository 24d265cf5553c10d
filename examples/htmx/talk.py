r"""Talks in rooms, with htmx: HTML from templates over a WebSocket, and no JavaScript of our own.

Start it from the repository's root and open http://localhost:5000 in two windows::

    python examples/htmx/talk.py

or let uWSGI start it itself, as you would in production::

    uwsgi --master --http localhost:5000 --http-websockets --http-buffer-size 32768 \
        --processes 2 --gevent 100 --chdir examples/htmx --wsgi talk:app

A room keeps what was said in it last, for whoever comes, or comes back. Each element that the
server sends goes to the place with the same id: templates/fragments.html has them all.
"""

import os

from flask import Flask, get_template_attribute, redirect, render_template, request, url_for

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)
websocket.room("talk/*", history=True)
websocket.room("here/*", presence=True)


@app.get("/")
def index():
    return render_template("index.html", rooms=["Garden", "Kitchen", "Library"])


@app.get("/enter")
def enter():
    return redirect(url_for("talk", **request.args.to_dict()))


@app.get("/in/<room>")
def talk(room):
    return render_template("talk.html", room=room, name=name_of_visitor())


@websocket.route("/in/<room>/live", max_message_size=4096)
def live(ws, room):
    name = name_of_visitor()
    ws.send(fragment("welcome", process=os.getpid()))  # an empty log: what follows is all of it
    ws.join(f"talk/{room}", replay=50)
    ws.join(f"here/{room}", info=name)
    ws.send(who_is_here(room))
    while True:
        text = ws.receive_json()["text"].strip()[:1000]
        if text:
            websocket.to(f"talk/{room}").send(fragment("line", name=name, text=text))


@websocket.on_join("here/*")
@websocket.on_leave("here/*")
def tell_who_is_here(here, member):
    room = here.removeprefix("here/")
    websocket.to(here).send(who_is_here(room))


def who_is_here(room):
    members = websocket.who(f"here/{room}")
    return fragment("here", names=[member.info for member in members])


def fragment(name, /, **values):
    """Make one of the elements in fragments.html."""
    return get_template_attribute("fragments.html", name)(**values)


def name_of_visitor():
    return request.args.get("name", "").strip()[:24] or "Anonymous"


if __name__ == "__main__":
    app.run(port=int(os.environ.get("PORT", "5000")), gevent=100, processes=2)
