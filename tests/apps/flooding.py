"""Greenlets that publish, in a process that gevent patched before anything else, and that lets
threads take turns a hundred times as often as others do."""

from gevent.monkey import patch_all

patch_all()

# ruff: noqa: E402
import sys

import gevent
from gevent._hub_local import get_hub_if_exists

from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions
from flask_uwsgi_websocket.rooms.channels import room_channel
from flask_uwsgi_websocket.rooms.exchange import Exchange, worker_name
from flask_uwsgi_websocket.rooms.record import Kind, Record
from flask_uwsgi_websocket.servers.sockets import plain_engine

sys.setswitchinterval(5e-5)
engine = plain_engine("gevent", True)
exchange = Exchange("memory://", BackplaneOptions("", worker_name()), engine.async_loop)
done = []


async def hub_of_loop():
    return get_hub_if_exists()


def publish(count):
    for number in range(count):
        sent = exchange.send(Record(Kind.MESSAGE, (room_channel("a"),), b"x"))
        sent.add_done_callback(done.append)
        if number % 100 == 0:
            gevent.sleep(0)


def main():
    gevent.joinall([gevent.spawn(publish, 1000) for _ in range(20)], raise_error=True)
    engine.run_async(exchange.flush())
    assert len(done) == 20000
    hub = "no hub" if engine.run_async(hub_of_loop()) is None else "a hub"
    print(
        f"published {exchange.metrics.of(room_channel('a')).published}, {hub} in the loop's thread"
    )


gevent.spawn(main).get()
