r"""A request that fetches a page with aiohttp while others are served.

Give it a page to fetch::

    python -m http.server --bind localhost 8000

then start it from the repository's root and open http://localhost:5000::

    uwsgi --http-socket localhost:5000 --asyncio 10 --greenlet \
        --chdir examples/uwsgi-asyncio --wsgi aiohttp_client

PAGE=http://localhost:8080/ before the command fetches another page.

The documentation's last example. It fails with every aiohttp since 0.x: ``aiohttp.request()`` is no
coroutine any more but a context manager, and ``read_and_close()`` is gone. On Python 3.10 the
exception ends the coroutine before it has switched back, and the request hangs.
"""

import asyncio
import os

import aiohttp
import greenlet
import uwsgi
from worker import prepare

uwsgi.post_fork_hook = prepare

PAGE = os.environ.get("PAGE", "http://localhost:8000/")


async def fetch(url):
    async with aiohttp.ClientSession() as session, session.get(url) as response:
        return await response.read()


def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    request = greenlet.getcurrent()
    task = asyncio.get_running_loop().create_task(fetch(PAGE))
    task.add_done_callback(lambda _: request.switch())
    request.parent.switch()
    # This time a yield, just for fun.
    yield task.result()
