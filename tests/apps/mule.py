"""What a mule runs: publishes what it is told."""

import os

import uwsgi

from flask_uwsgi_websocket import Publisher

rooms = Publisher(prefix=os.environ["PREFIX"])
while True:
    rooms.to("lobby").send("mule " + uwsgi.mule_get_msg().decode())
