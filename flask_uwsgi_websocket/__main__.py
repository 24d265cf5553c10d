"""``python -m flask_uwsgi_websocket``: what is needed before ``flask`` knows an app."""

import click

from .commands.cli import install_uwsgi


@click.group()
def main() -> None:
    """Flask-uWSGI-WebSocket."""


main.add_command(install_uwsgi)

if __name__ == "__main__":
    main(prog_name="python -m flask_uwsgi_websocket")
