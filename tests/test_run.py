"""``app.run`` of each extension: which uWSGI options it adds by itself."""

import pytest
from flask import Flask
from werkzeug.debug import DebuggedApplication

import flask_uwsgi_websocket as package
from flask_uwsgi_websocket.extension import extension
from flask_uwsgi_websocket.launch import defaults


@pytest.fixture
def options(monkeypatch):
    """The options of the last run; becoming uWSGI itself is test_runner.py's."""
    seen = {}

    def run_uwsgi(app, debug, host, port, uwsgi_binary, **kwargs):
        seen.clear()
        seen.update(kwargs, debug=debug)

    monkeypatch.setattr(extension, "run_uwsgi", run_uwsgi)
    return seen


@pytest.mark.parametrize(
    ("extension", "added"),
    [
        ("WebSocket", {}),
        ("GeventWebSocket", {"gevent": 100}),
        ("AsyncioWebSocket", {"asyncio": 100, "greenlet": True}),
        ("AsyncWebSocket", {"async": 100, "greenlet": True}),
    ],
)
def test_the_engine_is_the_extension_s_own(options, extension, added):
    app = Flask(__name__)
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    getattr(package, extension)(app)
    app.run(port=8080)
    assert options == {"debug": False, **added}


@pytest.mark.parametrize("name", sorted(defaults.CONFIGURATIONS))
def test_a_file_that_may_name_an_engine(options, name):
    app = Flask(__name__)
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    package.GeventWebSocket(app)
    app.run(**{name: "a-file"})
    assert options == {"debug": False, name: "a-file"}
    # Nor does the runner add anything of its own.
    assert "threads" not in defaults.complete({name: "a-file"})


@pytest.mark.parametrize("given", [{"async_": 7}, {"async": 7}])
def test_an_engine_in_each_spelling(options, given):
    app = Flask(__name__)
    package.AsyncWebSocket(app)
    app.run(**given)
    assert options == {"debug": False, **given}


def test_what_the_caller_names_is_not_overruled(options):
    app = Flask(__name__)
    app.config["UWSGI_WEBSOCKET_AGGRESSIVE_PATCH"] = False
    package.GeventWebSocket(app)
    app.run(gevent=7)
    assert options == {"debug": False, "gevent": 7}


def test_debug_is_the_app_s_unless_given(options):
    app = Flask(__name__)
    package.WebSocket(app)
    app.debug = True
    app.run()
    assert options["debug"] is True


def test_debug_false_is_not_overruled(options):
    app = Flask(__name__)
    package.WebSocket(app)
    app.debug = True
    app.run(debug=False)
    assert options["debug"] is False


@pytest.mark.parametrize(
    ("value", "on"),
    [("1", True), ("true", True), ("0", False), ("false", False), ("No", False), ("", False)],
)
def test_the_debugger_s_variable_is_read_as_flask_s(monkeypatch, options, value, on):
    monkeypatch.setenv("FLASK_UWSGI_DEBUG", value)
    app = Flask(__name__)
    package.WebSocket(app)
    assert app.debug is on
    assert isinstance(app.wsgi_app.wsgi_app, DebuggedApplication) is on
    app.run()
    assert options["debug"] is on
    package.WebSocket(app).run("module:app")
    assert options["debug"] is on


@pytest.mark.parametrize(("value", "refused"), [("", False), ("1", False), ("No", True)])
def test_uvloop_is_refused_as_the_debugger_is(monkeypatch, value, refused):
    from flask_uwsgi_websocket.engines.asyncio_loop import make_loop

    monkeypatch.setenv("FLASK_UWSGI_UVLOOP", value)
    loop = make_loop()
    loop.close()
    assert ("uvloop" not in type(loop).__module__) is refused
