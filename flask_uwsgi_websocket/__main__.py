"""``python -m flask_uwsgi_websocket``: what needs no app."""

import click

from .commands.cli import install_uwsgi
from .commands.rooms import history, publish, rooms, tail, who
from .commands.stats import stats, top

main = click.Group(
    help="Flask-uWSGI-WebSocket.",
    commands=[install_uwsgi, stats, top, rooms, who, history, publish, tail],
)

if __name__ == "__main__":
    main(prog_name="python -m flask_uwsgi_websocket")
