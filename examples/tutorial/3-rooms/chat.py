from flask import Flask, redirect, render_template, request, url_for

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)


@app.route("/")
def index():
    return render_template("index.html")


@app.route("/go")
def go():
    return redirect(url_for("room_page", name=request.args["room"]))


@app.route("/rooms/<name>")
def room_page(name):
    return render_template("room.html", name=name)


@websocket.route("/rooms/<name>", max_message_size=4096)
def room(ws, name):
    ws.join(f"room/{name}")
    for text in ws:
        websocket.to(f"room/{name}").send_json({"text": text})


if __name__ == "__main__":
    app.run(gevent=100, processes=2)
