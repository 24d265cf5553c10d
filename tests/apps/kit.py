"""What a handler takes from its engine: the extension, and how to sleep, queue and run beside."""

from __future__ import annotations

import asyncio
import json
import os
import queue
import threading
import time

from flask import Flask, jsonify

import flask_uwsgi_websocket

ENGINE = os.environ["TEST_ENGINE"]
ASYNC = ENGINE.startswith("asyncio")

Extension = {
    "threads": "WebSocket",
    "single": "WebSocket",
    "gevent": "GeventWebSocket",
    "asyncio": "AsyncioWebSocket",
    "asyncio-uvloop": "AsyncioWebSocket",
    "async": "AsyncWebSocket",
}[ENGINE]


def make_app(name):
    """An app with the test's configuration, and with the views that tests ask for facts."""
    app = Flask(name)
    app.secret_key = "for tests"
    app.config.update(json.loads(os.environ.get("TEST_CONFIG", "{}")))

    @app.get("/ready")
    def ready():
        return "ready"

    @app.get("/records/<token>")
    def show_records(token):
        return jsonify(records.get(token, []))

    return app


def loop_kind():
    """The module of the event loop's class: `uvloop`, or where asyncio has its own."""
    kinds = [kind.__module__ for kind in type(asyncio.get_event_loop()).__mro__]
    return "uvloop" if "uvloop" in kinds else kinds[0]


def make_extension(app=None):
    timeout = app.config.get("TEST_TIMEOUT", 5) if app else 5
    return getattr(flask_uwsgi_websocket, Extension)(app, timeout=timeout)


#: token -> what handlers have recorded under it, for the test to ask for over HTTP.
records = {}


def record(token, **facts):
    records.setdefault(token, []).append(facts)


if ASYNC:
    _tasks = set()

    sleep = asyncio.sleep
    Queue = asyncio.Queue

    def spawn(function, *args):
        task = asyncio.ensure_future(function(*args))
        _tasks.add(task)
        task.add_done_callback(_tasks.discard)
        return task

    async def join(tasks):
        await asyncio.gather(*tasks)

else:
    # Looked up when called: GeventWebSocket patches these modules after this import.
    Queue = queue.Queue

    def sleep(seconds):
        time.sleep(seconds)

    def spawn(function, *args):
        thread = threading.Thread(target=function, args=args, daemon=True)
        thread.start()
        return thread

    def join(threads):
        for thread in threads:
            thread.join()


def os_thread(function, *args):
    """Run `function` in a thread of the operating system, whatever the engine."""
    if ENGINE == "gevent":
        import gevent

        return gevent.get_hub().threadpool.spawn(function, *args)
    thread = threading.Thread(target=function, args=args, daemon=True)
    thread.start()
    return thread
