"""An app behind a front, which tells what it sees of its clients."""

import hashlib

from flask import abort, jsonify, request, session
from werkzeug.middleware.proxy_fix import ProxyFix

from tests.apps.kit import make_app, make_extension, record

app = make_app(__name__)
websocket = make_extension(app)

if app.config["TEST_PROXY_FIX"]:
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=1)


@app.before_request
def guard():
    if "status" in request.args:
        abort(request.args.get("status", type=int))
    if "login" in request.args:
        session["user"] = request.args["login"]


@websocket.route("/echo")
async def echo(ws):
    while (message := await ws.receive()) is not None:
        await ws.send(message)


@websocket.route("/end/<token>")
async def end(ws, token):
    """Tell how the connection ended."""
    async for message in ws:
        await ws.send(message)
    record(token, code=ws.close_code)


def sight():
    return {
        "address": request.remote_addr,
        "secure": request.is_secure,
        "page": request.url_root.rstrip("/"),
        "websocket": websocket.url_for("echo"),
        "user": session.get("user"),
    }


@websocket.route("/sight")
async def tell_sight(ws):
    await ws.send_json(sight())
    await ws.receive()


@app.get("/sight")
def show_sight():
    return jsonify(sight())


@app.post("/upload")
def upload():
    return hashlib.sha256(request.get_data()).hexdigest()


@app.post("/config/<name>/<float:seconds>")
def configure(name, seconds):
    """Change what later connections get."""
    app.config[f"UWSGI_WEBSOCKET_{name}"] = seconds
    return ""


@app.after_request
def for_no_cache(response):
    response.headers["Cache-Control"] = "no-store"
    return response
