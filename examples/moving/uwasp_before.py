import json
from urllib.parse import parse_qs

from uwasp import GeventHandler, Server, WebSocketMiddleware

clients = set()


class Chat(Server):
    def on_open(self):
        clients.add(self.ws)

    def on_message(self, message):
        name = parse_qs(self.ws.environ["QUERY_STRING"])["name"][0]
        for ws in list(clients):
            ws.send(json.dumps({"name": name, "text": message}))

    def on_close(self):
        clients.discard(self.ws)


def pages(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"a page"]


app = WebSocketMiddleware(pages, handler_class=GeventHandler, servers=[("/chat", Chat)])
