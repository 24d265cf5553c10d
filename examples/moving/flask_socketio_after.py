from flask import Flask, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@websocket.route("/chat")
def chat(ws):
    ws.join("chat")
    for text in ws:
        websocket.to("chat").send_json({"name": request.args["name"], "text": text})


@app.post("/announce")
def announce():
    websocket.to_all().send_json({"name": "us", "text": "We close at ten"})
    return "", 204
