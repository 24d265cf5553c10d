import json
from urllib.parse import parse_qs

from flask_uwsgi_websocket.uwasp import GeventHandler, Server, WebSocketMiddleware


class Chat(Server):
    def on_open(self):
        self.ws.join("chat")

    def on_message(self, message):
        name = parse_qs(self.ws.environ["QUERY_STRING"])["name"][0]
        app.to("chat").send(json.dumps({"name": name, "text": message}))


def pages(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a page"]


app = WebSocketMiddleware(pages, handler_class=GeventHandler, servers=[("/chat", Chat)])
