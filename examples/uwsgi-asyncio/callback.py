r"""A callback that the loop calls two seconds after the response has gone out.

Start it from the repository's root, open http://localhost:5000 and look at uWSGI's log::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi callback

The first example of uWSGI's asyncio documentation. As it stands there it starts on Python 3.11
and older only: see ``worker.py``. ``asyncio.get_event_loop()`` is ``get_running_loop()`` today.
"""

import asyncio

import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare


def two_seconds_elapsed():
    print("Hello 2 seconds elapsed", flush=True)


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    asyncio.get_running_loop().call_later(2, two_seconds_elapsed)
    return [b"Hello World"]
