from flask import Blueprint, Flask, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)
talk = Blueprint("talk", __name__)


@talk.route("/chat")
def chat(ws):
    ws.join("chat")
    for text in ws:
        websocket.to("chat").send_json({"name": request.args["name"], "text": text})


websocket.register_blueprint(talk)
