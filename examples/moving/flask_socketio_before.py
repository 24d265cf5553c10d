from flask import Flask, request
from flask_socketio import SocketIO, emit, join_room

app = Flask(__name__)
socketio = SocketIO(app)


@socketio.on("connect")
def connect():
    join_room("chat")


@socketio.on("message")
def message(text):
    emit("message", {"name": request.args["name"], "text": text}, to="chat")


@app.post("/announce")
def announce():
    socketio.emit("message", {"name": "us", "text": "We close at ten"})
    return "", 204
