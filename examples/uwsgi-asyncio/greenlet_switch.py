r"""A request that waits for a callback: its greenlet switches to the loop's, and is switched to.

Start it from the repository's root and open http://localhost:5000, which takes two seconds::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi greenlet_switch

Each switch away takes exactly one switch back. A second one would find the greenlet where uWSGI
itself has parked it, to write the response, and crash the worker.

The documentation's second example; as it stands there it starts on Python 3.11 and older only: see
``worker.py``.
"""

import asyncio

import greenlet
import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare


def two_seconds_elapsed(request):
    print("Hello 2 seconds elapsed", flush=True)
    # Back to the WSGI callable.
    request.switch()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    request = greenlet.getcurrent()
    asyncio.get_running_loop().call_later(2, two_seconds_elapsed, request)
    # Back to the event loop.
    request.parent.switch()
    return [b"Hello World"]
