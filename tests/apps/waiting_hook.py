"""An app one of whose hooks waits before uWSGI serves, and is registered after the extension's."""

from uwsgidecorators import postfork

from tests.apps.kit import make_app, make_extension, sleep

app = make_app(__name__)
websocket = make_extension(app)


@postfork
def wait():
    sleep(0.1)


@websocket.route("/echo")
async def echo(ws):
    async for message in ws:
        await ws.send(message)
