from flask import Blueprint, Flask, json, request
from flask_sockets import Sockets
from geventwebsocket.exceptions import WebSocketError

app = Flask(__name__)
sockets = Sockets(app)
talk = Blueprint("talk", __name__)
clients = []


@talk.route("/chat")
def chat(ws):
    clients.append(ws)
    while not ws.closed:
        text = ws.receive()
        if text is None:
            break
        for client in clients[:]:
            try:
                client.send(json.dumps({"name": request.args["name"], "text": text}))
            except WebSocketError:
                clients.remove(client)


sockets.register_blueprint(talk)
