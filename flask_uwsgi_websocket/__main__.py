"""``python -m flask_uwsgi_websocket``: what is needed before ``flask`` knows an app."""

import click

from .commands.cli import install_uwsgi

main = click.Group(help="Flask-uWSGI-WebSocket.", commands=[install_uwsgi])

if __name__ == "__main__":
    main(prog_name="python -m flask_uwsgi_websocket")
