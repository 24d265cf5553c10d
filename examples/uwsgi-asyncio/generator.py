r"""A generator that yields twice and waits two seconds before each: the response comes in parts.

Start it from the repository's root::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi generator

and watch the parts come with ``curl -N http://localhost:5000``.

The documentation's third example; as it stands there it starts on Python 3.11 and older only: see
``worker.py``.
"""

import asyncio

import greenlet
import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare


def two_seconds_elapsed(request):
    print("Hello 2 seconds elapsed", flush=True)
    request.switch()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    request = greenlet.getcurrent()
    loop = asyncio.get_running_loop()
    loop.call_later(2, two_seconds_elapsed, request)
    request.parent.switch()
    yield b"One"
    loop.call_later(2, two_seconds_elapsed, request)
    request.parent.switch()
    yield b"Two"
