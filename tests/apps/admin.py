"""An app with an admin page, for whoever sends its name in a header field."""

import os

from flask import request

from tests.apps.kit import make_app, make_extension

app = make_app("admin")
websocket = make_extension(app)
websocket.room("kept/*", history=True, presence=True)
websocket.identify(lambda: request.args.get("user"))
websocket.admin(
    allowed=lambda: "X-Admin" in request.headers, who=lambda: request.headers["X-Admin"]
)


@websocket.route("/chat/<path:room>")
async def chat(ws, room):
    await ws.join(room, info={"secret": "info"})
    await ws.send(f"joined {os.getpid()}")
    async for text in ws:
        if text.startswith("to "):
            await websocket.to(room).send(text)
        else:
            await ws.send(text)
