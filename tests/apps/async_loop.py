"""The loop for asynchronous work, as what runs in a worker uses it."""

import os
import time
import traceback

from flask import request

from tests.apps import coroutines
from tests.apps.kit import ENGINE, make_app, make_extension, os_thread, record

app = make_app(__name__)
websocket = make_extension(app)


def engine():
    return app.wsgi_app.engine


def run(coroutine, timeout=10):
    return engine().run_async(coroutine, timeout)


def native_sleep(seconds):
    """Block the thread, whatever has been patched."""
    from flask_uwsgi_websocket.helpers.threads import unpatched

    unpatched("time", "sleep")(seconds)


def beside(function, *args):
    """Run a function in a greenlet or thread, patched or not."""
    if ENGINE == "gevent":
        import gevent

        return gevent.spawn(function, *args)
    return os_thread(function, *args)


@app.get("/add")
def add():
    return {"sum": run(coroutines.add(1, 2)), "own": engine().async_loop() is worker_loop()}


def worker_loop():
    return getattr(engine().worker(), "loop", None)


@app.get("/fail")
def fail():
    try:
        run(coroutines.fail())
    except KeyError as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        return {"error": repr(error), "at": last.name}


@app.get("/leave")
def leave():
    try:
        run(coroutines.leave())
    except SystemExit as error:
        return {"error": repr(error), "sum": run(coroutines.add(1, 2))}


@app.get("/timeout")
def timeout():
    del coroutines.ends[:]
    began = time.monotonic()
    try:
        run(coroutines.hang(), 0.1)
    except TimeoutError:
        took = time.monotonic() - began
    run(coroutines.add(1, 2))
    return {"took": took, "ends": coroutines.ends}


@app.get("/order")
def order():
    seen = []
    count = run(coroutines.call_soon(engine().worker(), seen.append, 1000))
    return {"in_order": seen == list(range(count))}


@app.get("/context")
def context():
    coroutines.variable.set("some")
    return run(coroutines.see())


@app.get("/resolve")
def resolve():
    return run(coroutines.resolve())


@app.get("/tls")
def tls():
    port, certificate = int(request.args["port"]), request.args["certificate"]
    return {"answer": run(coroutines.echo_over_tls(port, certificate))}


@app.get("/blocked")
def blocked():
    ticking = []
    os_thread(lambda: ticking.append(run(coroutines.tick(2.1))))
    end = time.monotonic() + 2
    while time.monotonic() < end:
        native_sleep(2)
    while not ticking:
        websocket.sleep(0.05)
    return {"longest": ticking[0]}


@app.get("/again")
def again():
    return {"error": run(coroutines.call_again(engine()))}


@app.get("/callback")
def callback():
    seen = []

    def call():
        try:
            run(coroutines.add(1, 2))
        except RuntimeError as error:
            seen.append(str(error))

    engine().worker().call_soon(call)
    run(coroutines.add(1, 2))
    return {"seen": seen}


@app.get("/foreign")
def foreign():
    seen = []
    os_thread(lambda: seen.append(run(coroutines.add(1, 2))))
    deadline = time.monotonic() + 10
    while not seen and time.monotonic() < deadline:
        run(coroutines.tick(0.02))
    return {"seen": seen}


@app.get("/fork")
def fork():
    run(coroutines.add(1, 2))
    child = os.fork()
    if not child:
        try:
            os._exit(run(coroutines.add(40, 2)))
        finally:
            os._exit(1)
    pid = 0
    while not pid:
        run(coroutines.tick(0.02))
        pid, status = os.waitpid(child, os.WNOHANG)
    return {"child": os.waitstatus_to_exitcode(status), "after": run(coroutines.add(1, 2))}


@app.get("/pid")
def pid():
    return str(os.getpid())


@websocket.route("/many/<token>/<int:count>")
async def many(ws, token, count):
    sums = []

    def one(number):
        sums.append(run(coroutines.add(number, 1), 60))

    for number in range(count):
        beside(one, number)
    while len(sums) < count:
        websocket.sleep(0.05)
    record(token, right=sorted(sums) == list(range(1, count + 1)))


@websocket.route("/hang")
async def hang(ws):
    await ws.send("waits")
    run(coroutines.hang(), None)


@websocket.route("/killed/<token>")
async def killed(ws, token):
    """Another greenlet breaks into one that waits."""
    import gevent

    del coroutines.ends[:]
    greenlet = gevent.spawn(run, coroutines.hang(), None)
    gevent.sleep(0.1)
    greenlet.kill()
    run(coroutines.add(1, 2))
    record(token, ends=coroutines.ends, value=repr(greenlet.value))
