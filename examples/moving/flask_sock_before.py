from flask import Flask, json, request
from flask_sock import Sock
from simple_websocket import ConnectionClosed

app = Flask(__name__)
app.config["SOCK_SERVER_OPTIONS"] = {"ping_interval": 25, "max_message_size": 4096}
sock = Sock(app)
clients = set()


@sock.route("/chat")
def chat(ws):
    clients.add(ws)
    try:
        while True:
            text = ws.receive()
            for client in list(clients):
                try:
                    client.send(json.dumps({"name": request.args["name"], "text": text}))
                except ConnectionClosed:
                    clients.discard(client)
    finally:
        clients.discard(ws)
