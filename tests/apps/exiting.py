"""A process that ends while Tasks of its loop wait, and a child of it that does so: `kind` says how
its handlers would wait."""

import asyncio
import os
import sys

kind = sys.argv[1]
if kind == "gevent":
    from gevent.monkey import patch_all

    patch_all()

from flask_uwsgi_websocket.servers.sockets import plain_engine  # noqa: E402

engine = plain_engine("asyncio" if kind == "asyncio" else "threads", kind.startswith("gevent"))


async def hang():
    try:
        await asyncio.Event().wait()
    finally:
        os.write(1, f"{name} finally\n".encode())


async def begin(tasks):
    tasks += [asyncio.create_task(hang())]  # somebody knows it
    asyncio.create_task(hang())  # noqa: RUF006  # nobody does
    await asyncio.sleep(0)
    return name


def main():
    global name
    name = "parent"
    assert engine.run_async(begin([])) == name
    child = os.fork()
    if not child:
        name = "child"
        assert engine.run_async(begin([])) == name
        sys.exit()
    os.waitpid(child, 0)


if kind.startswith("gevent"):
    import gevent

    gevent.spawn(main).join()
else:
    main()
