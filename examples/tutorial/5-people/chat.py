from functools import wraps

import users
from flask import Flask, redirect, render_template, request, session, url_for

from flask_uwsgi_websocket import GeventWebSocket, Room

app = Flask(__name__)
app.config.update(SECRET_KEY="dev", SESSION_COOKIE_SAMESITE="Lax")
app.config.from_prefixed_env()  # FLASK_SECRET_KEY, in production
websocket = GeventWebSocket(app)
websocket.room("room/*", history=Room.history(count=50, seconds=24 * 60 * 60))
websocket.room("people/*", presence=True)


@websocket.identify
def user():
    return session.get("name")


def login_required(view):
    @wraps(view)
    def checked(*args, **kwargs):
        return view(*args, **kwargs) if user() else redirect(url_for("login"))

    return checked


@app.route("/")
@login_required
def index():
    return render_template("index.html", name=user())


@app.route("/go")
def go():
    return redirect(url_for("room_page", name=request.args["room"]))


@app.route("/rooms/<name>")
@login_required
def room_page(name):
    return render_template("room.html", name=name)


@websocket.route("/rooms/<name>", max_message_size=4096)
def room(ws, name):
    if ws.user is None:
        ws.close(4401, "log in first")
        return
    ws.join(f"people/{name}")
    ws.join(f"room/{name}", replay=50)
    ws.send_json({"here": names(f"people/{name}")})
    for text in ws:
        websocket.to(f"room/{name}").send_json({"name": ws.user, "text": text})


@websocket.on_join("people/*")
@websocket.on_leave("people/*")
def tell_who_is_here(room, member):
    websocket.to(room).send_json({"here": names(room)})


def names(room):
    return [member.user for member in websocket.who(room)]


@app.route("/login", methods=["GET", "POST"])
def login():
    error = None
    if request.method == "POST":
        name, password = request.form["name"], request.form["password"]
        if users.check(name, password) or users.add(name, password):
            session.clear()
            session["name"] = name
            return redirect(url_for("index"))
        error = "This name is taken, and has another password."
    return render_template("login.html", error=error)


@app.post("/logout")
@login_required
def logout():
    websocket.to_user(session.pop("name")).close(4401, "logged out")
    return redirect(url_for("login"))


if __name__ == "__main__":
    app.run(gevent=100, processes=2)
