"""An app with an admin page, for whoever has the cookie, and rooms of every kind."""

from flask import redirect, request

from tests.apps.kit import make_app, make_extension

app = make_app("admin_page")
websocket = make_extension(app)
websocket.room("kept/*", history=True, presence=True)


@websocket.identify
def who_is_it():
    return request.args.get("user")


@websocket.route("/rooms/<path:names>")
async def member(ws, names):
    """Join some rooms, by the names that the query has, and say in each what the client says."""
    for room in request.args.getlist("room"):
        await ws.join(room, info="<img src=x onerror=document.body.remove()>")
    await ws.send("here")
    async for text in ws:
        for room in request.args.getlist("room"):
            await websocket.to(room).send(text)


@app.get("/login")
def login():
    answer = redirect(request.args.get("to", "/_ws/"))
    answer.set_cookie("admin", request.args.get("user", "ann"))
    return answer


websocket.admin(allowed=lambda: "admin" in request.cookies, who=lambda: request.cookies["admin"])
