r"""A request that waits for the result that a coroutine sets on a Future.

Start it from the repository's root and open http://localhost:5000, which takes two seconds::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi future

The documentation's fifth example. There the coroutine is a generator with
``@asyncio.coroutine``, which Python 3.11 has removed, and the Future finds its loop by itself,
which only works where one is current. A Task has a result of its own: a Future is for results that
come from elsewhere, a callback for instance.
"""

import asyncio

import greenlet
import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare


async def sleeping(future):
    try:
        await asyncio.sleep(2)
        future.set_result(b"Hello World")
    except Exception as error:
        future.set_exception(error)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    request = greenlet.getcurrent()
    loop = asyncio.get_running_loop()
    future = loop.create_future()
    future.add_done_callback(lambda _: request.switch())
    # Enqueue the coroutine with the Future. The loop itself holds tasks weakly: keep a reference.
    task = loop.create_task(sleeping(future))
    # Suspend to the event loop.
    request.parent.switch()
    # Back from the event loop.
    del task
    return [future.result()]
