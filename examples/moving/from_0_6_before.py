from flask import Flask, json, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)
users = {}


@websocket.route("/chat")
def chat(ws):
    with app.request_context(ws.environ):
        name = request.args["name"]
    users[ws.id] = ws
    while ws.connected:
        msg = ws.receive()
        if not msg:
            continue
        for id in list(users):
            users[id].send(json.dumps({"name": name, "text": msg.decode()}))
    del users[ws.id]


if __name__ == "__main__":
    app.run(gevent=100)
