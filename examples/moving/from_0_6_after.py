from flask import Flask, json, request

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@websocket.route("/chat")
def chat(ws):
    name = request.args["name"]
    for msg in ws:
        websocket.send_to_all(json.dumps({"name": name, "text": msg}))


if __name__ == "__main__":
    app.run(gevent=100, processes=4)
