from flask import Flask

from flask_uwsgi_websocket import GeventWebSocket

app = Flask(__name__)
websocket = GeventWebSocket(app)

PAGE = """<!doctype html>
<title>Hello</title>
<h1 id="status">Connecting...</h1>
<form><input autofocus aria-label="Message"><button>Send</button></form>
<ul></ul>
<script>
  const socket = new WebSocket(`ws://${location.host}/echo`);
  socket.onopen = () => document.querySelector("h1").textContent = "Connected";
  socket.onclose = () => document.querySelector("h1").textContent = "Closed";
  socket.onmessage = (event) => {
    const line = document.createElement("li");
    line.textContent = event.data;
    document.querySelector("ul").append(line);
  };
  document.querySelector("form").onsubmit = (event) => {
    event.preventDefault();
    socket.send(document.querySelector("input").value);
  };
</script>
"""


@app.route("/")
def page():
    return PAGE


@websocket.route("/echo")
def echo(ws):
    for message in ws:
        ws.send(f"You said: {message}")


if __name__ == "__main__":
    app.run(gevent=100)
