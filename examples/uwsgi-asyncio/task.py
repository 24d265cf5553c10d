r"""A request that waits for a coroutine, which runs as a Task.

Start it from the repository's root and open http://localhost:5000, which takes two seconds::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi task

The documentation's fourth example. There the coroutine is a generator with
``@asyncio.coroutine`` and ``yield from``, which Python 3.11 has removed; and it switches back in
its last line, which an exception before that would skip: the request would wait for ever. A done
callback comes in any case.
"""

import asyncio

import greenlet
import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare


async def sleeping():
    await asyncio.sleep(2)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    request = greenlet.getcurrent()
    # Enqueue the coroutine; back to the WSGI callable when it is through.
    task = asyncio.get_running_loop().create_task(sleeping())
    task.add_done_callback(lambda _: request.switch())
    # Suspend to the event loop.
    request.parent.switch()
    # Back from the event loop: raise what the coroutine raised.
    task.result()
    return [b"Hello World"]
