from flask import Flask, render_template

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@app.route("/")
def page():
    return render_template("chat.html")


@websocket.route("/chat")
def chat(ws):
    for message in ws:
        ws.send(message)


if __name__ == "__main__":
    app.run(gevent=100)
