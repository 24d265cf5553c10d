"""Flask's routing, for WebSockets: URLs both ways, blueprints, hosts, factories, several apps."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from flask import Blueprint, Flask, g, render_template_string, request, url_for
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.middleware.proxy_fix import ProxyFix
from werkzeug.routing import BaseConverter, BuildError

from flask_uwsgi_websocket import AsyncioWebSocket, GeventWebSocket, WebSocket
from flask_uwsgi_websocket.testing import HandshakeRejected
from flask_uwsgi_websocket.uwasp import Server


def make_app(**config: Any) -> Flask:
    app = Flask("under test", subdomain_matching="subdomains" in config)
    config.pop("subdomains", None)
    app.config.update(TESTING=True, UWSGI_WEBSOCKET_AGGRESSIVE_PATCH=False, **config)
    return app


def where(ws: Any, **values: Any) -> None:
    """A handler that tells how it was reached."""
    ws.send_json({"endpoint": request.endpoint, "blueprint": request.blueprint, "values": values})


def reach(websocket: WebSocket, path: str, app: Flask | None = None, **kwargs: Any) -> Any:
    with websocket.test_client(app).connect(path, **kwargs) as conn:
        return conn.receive_json()


def refused(websocket: WebSocket, path: str, app: Flask | None = None, **kwargs: Any) -> Any:
    with pytest.raises(HandshakeRejected) as caught:
        websocket.test_client(app).connect(path, **kwargs)
    return caught.value.response


# Rules


def test_several_rules_and_values() -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule("/", "room", where, defaults={"name": "lobby"})
    websocket.add_url_rule("/<name>/<int:page>", "room", where)
    assert reach(websocket, "/")["values"] == {"name": "lobby"}
    assert reach(websocket, "/a/3")["values"] == {"name": "a", "page": 3}
    assert refused(websocket, "/a/b").status_code == 404


def test_two_routes_over_one_handler() -> None:
    websocket = WebSocket(make_app())

    @websocket.route("/one")
    @websocket.route("/two", endpoint="second")
    def first(ws: Any) -> None:
        where(ws)

    assert reach(websocket, "/one")["endpoint"] == "first"
    assert reach(websocket, "/two")["endpoint"] == "second"


def test_converters_of_the_app_registered_later() -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/<up:name>", "where", where)

    class Upper(BaseConverter):
        def to_python(self, value: str) -> str:
            return value.upper()

    app.url_map.converters["up"] = Upper
    assert reach(websocket, "/abc")["values"] == {"name": "ABC"}


@pytest.mark.parametrize(
    ("base", "location"),
    [
        ("http://localhost/", "http://localhost/room/?a=1"),
        ("https://localhost/", "https://localhost/room/?a=1"),
    ],
)
def test_a_missing_slash_is_redirected_by_http(base: str, location: str) -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule("/room/", "room", where)
    websocket.add_url_rule("/loose/", "loose", where, strict_slashes=False)
    answer = refused(websocket, "/room?a=1", base_url=base)
    assert answer.status_code in (301, 307, 308)
    assert answer.location == location
    assert reach(websocket, "/loose")["endpoint"] == "loose"


def test_redirect_to() -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule("/old", "old", where, redirect_to="/new")
    answer = refused(websocket, "/old")
    assert answer.status_code in (301, 308)
    assert answer.location == "http://localhost/new"


# Hosts


def test_subdomains() -> None:
    app = make_app(SERVER_NAME="example.com", subdomains=True)
    websocket = WebSocket(app)
    websocket.add_url_rule("/", "room", where, subdomain="<name>")
    websocket.add_url_rule("/", "main", where)
    assert reach(websocket, "/", subdomain="chat")["values"] == {"name": "chat"}
    assert reach(websocket, "/")["endpoint"] == "main"
    with app.app_context():
        assert websocket.url_for("room", name="chat") == "ws://chat.example.com/"
        assert url_for("room", name="chat") == "ws://chat.example.com/"


def test_hosts() -> None:
    app = Flask("under test", host_matching=True, static_host="static.example")
    app.testing = True
    websocket = WebSocket(app)
    websocket.add_url_rule("/", "chat", where, host="chat.example")
    websocket.add_url_rule("/", "other", where, host="<name>.other.example")
    assert reach(websocket, "/", base_url="http://chat.example")["endpoint"] == "chat"
    answer = reach(websocket, "/", base_url="http://a.other.example")
    assert answer["values"] == {"name": "a"}
    assert refused(websocket, "/", base_url="http://nowhere.example").status_code == 404


# Blueprints


def make_blueprints() -> Blueprint:
    child = Blueprint("child", __name__, url_prefix="/child")
    parent = Blueprint("parent", __name__, url_prefix="/parent")
    child.add_url_rule("/room", "room", where)
    parent.add_url_rule("/room", "room", where)

    @child.route("/urls")
    def urls(ws: Any) -> None:
        ws.send_json([url_for(".room"), websocket_of(request).url_for(".room")])

    @child.before_request
    def before() -> Any:
        g.child = True
        return ("no entry", 403) if "deny" in request.args else None

    parent.register_blueprint(child)
    return parent


def websocket_of(request: Any) -> WebSocket:
    from flask import current_app

    return current_app.extensions["uwsgi_websocket"][0]


def test_nested_blueprints() -> None:
    websocket = WebSocket(make_app())
    websocket.register_blueprint(make_blueprints(), url_prefix="/api")
    assert reach(websocket, "/api/room")["blueprint"] == "parent"
    assert reach(websocket, "/api/child/room")["endpoint"] == "parent.child.room"
    assert refused(websocket, "/api/child/room?deny=1").text == "no entry"
    assert reach(websocket, "/api/room?deny=1")["blueprint"] == "parent"
    url = "ws://localhost/api/child/room"
    assert reach(websocket, "/api/child/urls") == [url, url]


def test_one_blueprint_under_two_names() -> None:
    websocket = WebSocket(make_app())
    websocket.register_blueprint(make_blueprints(), name="one", url_prefix="/one")
    websocket.register_blueprint(make_blueprints(), name="two", url_prefix="/two")
    assert reach(websocket, "/one/room")["endpoint"] == "one.room"
    assert reach(websocket, "/two/child/room")["endpoint"] == "two.child.room"
    assert refused(websocket, "/two/child/room?deny=1").status_code == 403


def test_url_defaults() -> None:
    app = make_app()
    websocket = WebSocket(app)
    blueprint = Blueprint("i18n", __name__, url_prefix="/<lang>")
    blueprint.add_url_rule("/room", "room", where)

    @blueprint.url_defaults
    def add(endpoint: str, values: dict[str, Any]) -> None:
        values.setdefault("lang", g.get("lang", "en"))

    @blueprint.url_value_preprocessor
    def take(endpoint: str | None, values: dict[str, Any] | None) -> None:
        assert values is not None
        g.lang = values.pop("lang")

    websocket.register_blueprint(blueprint)
    assert reach(websocket, "/de/room")["values"] == {}
    with app.test_request_context():
        g.lang = "de"
        assert websocket.url_for("i18n.room") == "ws://localhost/de/room"
        assert url_for("i18n.room") == "ws://localhost/de/room"
        assert websocket.url_for("i18n.room", lang="fr") == "ws://localhost/fr/room"


# Building URLs


@pytest.mark.parametrize(("base", "scheme"), [("http://a.example", "ws"), ("https://b", "wss")])
def test_urls_in_a_request(base: str, scheme: str) -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/room/<name>", "room", where)
    host = base.partition("://")[2]
    with app.test_request_context(base_url=base):
        expected = f"{scheme}://{host}/room/a%20b?q=1"
        assert websocket.url_for("room", name="a b", q=1) == expected
        assert url_for("room", name="a b", q=1) == expected
        assert url_for("room", name="a b", q=1, _external=True) == expected
        template = "{{ url_for('room', name='a b', q=1) }}"
        assert render_template_string(template) == expected


def test_urls_of_a_mounted_app() -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/room", "room", where)
    with app.test_request_context(base_url="http://localhost/mounted"):
        assert url_for("room") == "ws://localhost/mounted/room"


def test_an_app_mounted_in_another() -> None:
    inner, outer = make_app(), make_app()
    WebSocket(inner).add_url_rule("/room", "of_inner", where)
    outer.wsgi_app = DispatcherMiddleware(  # type: ignore[method-assign]
        outer.wsgi_app, {"/inner": inner}
    )
    websocket = WebSocket(outer)
    websocket.add_url_rule("/room", "of_outer", where)
    websocket.add_url_rule("/hall", "hall", where)
    assert reach(websocket, "/room")["endpoint"] == "of_outer"
    assert reach(websocket, "/inner/room")["endpoint"] == "of_inner"
    assert refused(websocket, "/inner/hall").status_code == 404


def test_urls_outside_of_a_request() -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/room", "room", where)
    with app.app_context(), pytest.raises(RuntimeError, match="SERVER_NAME"):
        websocket.url_for("room")
    app.config.update(SERVER_NAME="example.com", PREFERRED_URL_SCHEME="https")
    with app.app_context():
        assert websocket.url_for("room") == url_for("room") == "wss://example.com/room"
    with pytest.raises(RuntimeError, match="needs an app"):
        WebSocket().url_for("room")


def test_endpoints_that_nobody_knows() -> None:
    app = make_app()
    websocket = WebSocket(app)
    websocket.add_url_rule("/room/<name>", "room", where)
    with app.test_request_context():
        for build in (url_for, websocket.url_for):
            with pytest.raises(BuildError):
                build("nowhere")
            with pytest.raises(BuildError):
                build("room")


def test_a_page_and_a_handler_of_one_name() -> None:
    app = make_app()
    websocket = WebSocket(app)
    app.add_url_rule("/room", "room", lambda: "page")
    websocket.add_url_rule("/room", "room", where)
    with app.test_request_context():
        assert url_for("room") == "/room"
        assert websocket.url_for("room") == "ws://localhost/room"
    assert app.test_client().get("/room").text == "page"
    assert reach(websocket, "/room")["endpoint"] == "room"


# Apps and extensions


def test_an_application_factory() -> None:
    websocket = WebSocket()
    blueprint = Blueprint("chat", __name__)
    blueprint.add_url_rule("/room", "room", where)
    websocket.register_blueprint(blueprint, url_prefix="/chat")

    def create_app(name: str) -> Flask:
        app = make_app(SERVER_NAME=f"{name}.example")
        websocket.init_app(app)
        return app

    one, two = create_app("one"), create_app("two")
    for app in (one, two, one):
        assert reach(websocket, "/chat/room", app)["endpoint"] == "chat.room"
    for app, name in ((one, "one"), (two, "two")):
        with app.app_context():
            assert websocket.url_for("chat.room") == f"ws://{name}.example/chat/room"
            assert url_for("chat.room") == f"ws://{name}.example/chat/room"


rooms = Blueprint("rooms", __name__, url_prefix="/rooms")
rooms.add_url_rule("/<name>", "room", where)


@rooms.before_request
def count_requests() -> None:
    g.requests = g.get("requests", 0) + 1


def test_a_factory_that_registers_again_for_each_app() -> None:
    """As tests do whose fixture makes an app for each of them."""
    websocket = WebSocket()

    def create_app(word: str) -> Flask:
        app = make_app()
        websocket.init_app(app)
        websocket.register_blueprint(rooms)
        websocket.add_url_rule("/where", "where", where)

        @websocket.route("/word")
        def say(ws: Any) -> None:
            ws.send_json([word, g.get("requests")])

        @websocket.server("/chat")
        class Chat(Server):
            def on_open(self) -> None:
                self.ws.send(f'"{word}"')

        return app

    apps = {word: create_app(word) for word in ("one", "two", "three")}
    for word, app in apps.items():
        assert reach(websocket, "/word", app) == [word, None]
        assert reach(websocket, "/chat", app) == word
        assert reach(websocket, "/rooms/a", app)["endpoint"] == "rooms.room"
        assert reach(websocket, "/where", app)["endpoint"] == "where"
        assert app.before_request_funcs["rooms"] == [count_requests]
    assert len(list(websocket.url_map.iter_rules())) == 4


def test_another_function_for_an_endpoint_is_an_error_as_in_flask() -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule("/one", "one", where)
    with pytest.raises(AssertionError, match="endpoint function: one"):
        websocket.add_url_rule("/one", "one", lambda ws: None)
    websocket.register_blueprint(rooms)
    with pytest.raises(ValueError, match="'rooms' is already registered"):
        websocket.register_blueprint(Blueprint("rooms", __name__))
    with pytest.raises(ValueError, match="'rooms' is already registered"):
        websocket.register_blueprint(rooms, url_prefix="/elsewhere")


def test_wrappers_of_one_code_are_not_one_handler() -> None:
    websocket = WebSocket(make_app())

    def wrapped(function: Any) -> Any:
        def wrapper(ws: Any) -> None:
            function(ws)

        return wrapper

    websocket.route("/one")(wrapped(where))
    with pytest.raises(AssertionError, match="endpoint function: wrapper"):
        websocket.route("/two")(wrapped(where))


def test_the_extension_before_and_after_the_routes() -> None:
    app, websocket = make_app(), WebSocket()
    websocket.add_url_rule("/before", "before", where)
    websocket.init_app(app)
    websocket.add_url_rule("/after", "after", where)
    late = Blueprint("late", __name__)
    late.add_url_rule("/late", "room", where)
    late.before_request(lambda: ("late", 403) if "deny" in request.args else None)
    websocket.register_blueprint(late)
    for path in ("/before", "/after", "/late"):
        assert reach(websocket, path)["endpoint"]
    assert refused(websocket, "/late?deny=1").text == "late"


def test_several_extensions_on_one_app() -> None:
    app = make_app()
    first, second, asynchronous = WebSocket(app), GeventWebSocket(app), AsyncioWebSocket(app)
    first.add_url_rule("/one", "one", where)
    second.add_url_rule("/two", "two", where)

    @asynchronous.route("/three")
    async def three(ws: Any) -> None:
        await ws.send_json({"endpoint": request.endpoint})

    for name in ("one", "two", "three"):
        assert reach(first, f"/{name}")["endpoint"] == name
    assert refused(first, "/four").status_code == 404
    with app.test_request_context():
        assert [url_for(name) for name in ("one", "two", "three")] == [
            f"ws://localhost/{name}" for name in ("one", "two", "three")
        ]


def test_an_exception_names_its_request(caplog: pytest.LogCaptureFixture) -> None:
    app = make_app(PROPAGATE_EXCEPTIONS=False)
    websocket = WebSocket(app)

    @websocket.route("/raise")
    def raise_(ws: Any) -> None:
        raise ValueError("on purpose")

    with caplog.at_level(logging.ERROR), websocket.test_client().connect("/raise") as conn:
        assert conn.receive() is None
    assert "/raise" in caplog.text


# Subprotocols


def test_a_required_subprotocol() -> None:
    websocket = WebSocket(make_app())
    websocket.add_url_rule(
        "/", "mqtt", where, subprotocols=["mqtt", "mqttv3.1"], require_subprotocol=True
    )
    with websocket.test_client().connect("/", subprotocols=["x", "mqttv3.1"]) as conn:
        assert conn.subprotocol == "mqttv3.1"
    for offer in ([], ["x", "MQTT"]):
        response = refused(websocket, "/", subprotocols=offer)
        assert response.status_code == 400
        assert "mqtt, mqttv3.1" in response.text


def test_a_required_subprotocol_must_have_a_name() -> None:
    with pytest.raises(ValueError, match="needs subprotocols="):
        WebSocket().route("/", require_subprotocol=True)(where)


def test_a_required_subprotocol_of_a_blueprint() -> None:
    websocket = WebSocket(make_app())
    blueprint = Blueprint("blueprint", __name__)
    blueprint.add_url_rule("/", "b", where, subprotocols=["mqtt"], require_subprotocol=True)
    websocket.register_blueprint(blueprint, url_prefix="/b")
    assert refused(websocket, "/b/").status_code == 400


def test_a_required_subprotocol_of_a_class() -> None:
    websocket = WebSocket(make_app())

    @websocket.server("/required")
    @websocket.server("/optional", endpoint="optional", require_subprotocol=False)
    class Mqtt(Server):
        PROTOCOL_NAME = "mqtt"
        PROTOCOL_REQUIRED = True

    assert refused(websocket, "/required").status_code == 400
    for path, offer in (("/required", ["mqtt"]), ("/optional", [])):
        with websocket.test_client().connect(path, subprotocols=offer) as conn:
            assert conn.subprotocol == (offer[0] if offer else None)

    class Nameless(Server):
        PROTOCOL_REQUIRED = True

    with pytest.raises(ValueError, match=r"Nameless.PROTOCOL_REQUIRED needs a PROTOCOL_NAME"):
        websocket.server("/nameless")(Nameless)


@pytest.mark.parametrize("order", ["before", "after"])
@pytest.mark.parametrize(("forwarded", "secure"), [("wss", True), ("https", True), ("ws", False)])
def test_schemes_that_proxies_name(order: str, forwarded: str, secure: bool) -> None:
    # Traefik says wss for the requests of WebSockets.
    app = Flask(__name__)
    websocket = WebSocket()
    if order == "before":
        websocket.init_app(app)
    app.wsgi_app = ProxyFix(app.wsgi_app, x_proto=1, x_host=1)  # type: ignore[method-assign]
    if order == "after":
        websocket.init_app(app)

    @app.get("/page")
    def page() -> str:
        return ""

    @websocket.route("/facts/")
    def facts(ws: Any) -> None:
        ws.send_json([request.scheme, request.is_secure, url_for("page", _external=True)])
        ws.send(url_for("facts"))

    headers = {"X-Forwarded-Proto": forwarded, "X-Forwarded-Host": "example.org"}
    http, ws = ("https", "wss") if secure else ("http", "ws")
    with websocket.test_client(app).connect("/facts/", headers=headers) as connection:
        assert json.loads(connection.receive()) == [http, secure, f"{http}://example.org/page"]
        assert connection.receive() == f"{ws}://example.org/facts/"
