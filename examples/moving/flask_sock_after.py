from flask import Flask, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
app.config["UWSGI_WEBSOCKET_PING_INTERVAL"] = 25
app.config["UWSGI_WEBSOCKET_MAX_MESSAGE_SIZE"] = 4096
websocket = GeventWebSocket(app)


@websocket.route("/chat")
def chat(ws):
    ws.join("chat")
    for text in ws:
        websocket.to("chat").send_json({"name": request.args["name"], "text": text})
