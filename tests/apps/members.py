"""Flask-Login, Flask-SQLAlchemy with a pool of two, and Flask-Session, around WebSockets."""

import os
import tempfile

from flask import abort, g, jsonify, request, session
from flask_login import (
    LoginManager,
    UserMixin,
    current_user,
    login_required,
    login_user,
)
from flask_sqlalchemy import SQLAlchemy
from sqlalchemy.pool import QueuePool

from tests.apps.kit import make_app, make_extension, record, sleep

app = make_app(__name__)
place = os.environ.get("TEST_PLACE") or tempfile.mkdtemp()
app.config.update(
    SQLALCHEMY_DATABASE_URI=f"sqlite:///{place}/members.db",
    SQLALCHEMY_ENGINE_OPTIONS={
        "poolclass": QueuePool,
        "pool_size": 2,
        "max_overflow": 0,
        "pool_timeout": 5,
        "connect_args": {"check_same_thread": False},
    },
)
db = SQLAlchemy(app)
websocket = make_extension(app)
manager = LoginManager(app)


class User(UserMixin, db.Model):
    id = db.Column(db.Integer, primary_key=True)
    name = db.Column(db.String)


with app.app_context():
    db.create_all()
    if db.session.get(User, 1) is None:
        db.session.add(User(id=1, name="ann"))
        db.session.commit()
    db.session.remove()
    db.engine.dispose()


@manager.user_loader
def load(key):
    return db.session.get(User, int(key))


@app.after_request
def after(response):
    response.headers["X-After"] = str(response.status_code)
    return response


@app.get("/login")
def login():
    login_user(db.session.get(User, 1))
    return "ok"


@app.get("/pool")
def pool():
    db.session.remove()
    return jsonify(out=db.engine.pool.checkedout(), size=db.engine.pool.size())


@websocket.route("/members")
@login_required
async def members(ws):
    await ws.send(f"{current_user.name} {request.path}")
    async for msg in ws:
        await ws.send(msg)


@login_required
@websocket.route("/over")
async def over(ws):
    await ws.send("nobody asked")


@websocket.route("/refuse", lazy=True)
async def refuse(ws):
    if "abort" in request.args:
        abort(418, "a teapot")
    if "respond" in request.args:
        return "responded", 409, {"X-Own": "1"}
    if "fail" in request.args:
        raise ValueError("before the handshake, on purpose")
    session["lazy"] = "stored"
    if "nothing" in request.args:
        return None
    if "accept" in request.args:
        ws.accept()
        await sleep(0.2)
    await ws.send("accepted")
    await ws.receive()
    return "ignored"


@websocket.route("/refuse-late", lazy=True)
async def refuse_late(ws):
    await sleep(2)
    return "too late", 409


@websocket.route("/work")
async def work(ws):
    """A query for each message; the connection of the database goes back in between."""
    while (msg := await ws.receive()) is not None:
        with ws.app_context():
            g.mine = msg
            name = db.session.get(User, 1).name
        await ws.send(f"{name} {msg} {g.get('mine')}")


@websocket.route("/release")
async def release(ws):
    while (msg := await ws.receive()) is not None:
        name = db.session.get(User, 1).name
        ws.release_resources()
        await ws.send(f"{name} {msg}")


@websocket.route("/hold/<token>")
async def hold(ws, token):
    """A long connection whose login has used the database before the handshake."""
    assert current_user.name == "ann"
    ws.release_resources()
    await ws.send(current_user.name)
    record(token, out=db.engine.pool.checkedout())
    await ws.receive()
