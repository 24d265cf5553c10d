"""Coroutines for blocking engines too, from whose apps the words `async` and `await` are taken."""

import asyncio
import contextvars
import socket
import ssl
import time

from flask import has_request_context

variable = contextvars.ContextVar("variable", default="none")

#: What happened to coroutines that ended early.
ends = []


async def add(left, right):
    await asyncio.sleep(0)
    return left + right


async def fail():
    await asyncio.sleep(0)
    raise KeyError("on purpose")


async def leave():
    raise SystemExit("on purpose")


async def hang():
    try:
        await asyncio.sleep(60)
    except BaseException as error:
        ends.append(type(error).__name__)
        raise


async def call_soon(worker, callback, count):
    for number in range(count):
        worker.call_soon(lambda number=number: callback(number))
    return count


async def see():
    return {"variable": variable.get(), "request": has_request_context()}


async def resolve():
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo("localhost", 80, type=socket.SOCK_STREAM)
    name, _ = await loop.getnameinfo(("127.0.0.1", 80))
    in_thread = await asyncio.to_thread(lambda: "in thread")
    return {"addresses": [address[0] for *_, address in found], "name": name, "thread": in_thread}


async def echo_over_tls(port, certificate):
    context = ssl.create_default_context(cafile=certificate)
    reader, writer = await asyncio.open_connection("localhost", port, ssl=context)
    writer.write(b"hi\n")
    answer = await reader.readline()
    writer.close()
    return answer.decode()


async def tick(seconds):
    """The longest time between two turns of the loop."""
    longest, last, end = 0, time.monotonic(), time.monotonic() + seconds
    while last < end:
        await asyncio.sleep(0.01)
        longest, last = max(longest, time.monotonic() - last), time.monotonic()
    return longest


async def call_again(engine):
    coroutine = add(1, 1)
    try:
        return engine.run_async(coroutine)
    except RuntimeError as error:
        return str(error)
