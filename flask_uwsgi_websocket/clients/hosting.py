"""The rooms of the clients that an extension, or a middleware, has."""

from __future__ import annotations

from typing import Any

from ..connection.connection import Connection
from ..engines.base import Engine
from ..helpers.engines import ENGINES
from ..rooms.live import Host, RoomSettings
from ..rooms.options import RoomPatterns
from ..servers import uwsgi
from ..servers.find import engine_here
from .open_clients import Clients


class ClientsHost(Host):
    """Whatever has clients, as their rooms see it.

    :param engine_name: of the engine that runs handlers.
    """

    def __init__(self, engine_name: str, clients: Clients, patterns: RoomPatterns) -> None:
        self._engine_name = engine_name
        self._clients = clients
        self.patterns = patterns
        self.asynchronous = ENGINES[engine_name].asynchronous

    def engine(self) -> Engine:
        for engine in self._clients.engines:
            if not uwsgi.inside() or engine.process.worker_id():
                return engine
        return engine_here(self._engine_name)

    def instance(self) -> tuple[int, int] | None:
        if uwsgi.inside():  # also in a mule, where another engine waits
            return uwsgi.engine(self._engine_name).process.instance()
        engines = self._clients.engines
        if not engines and not self._serves():
            return None  # a script
        engine = engines[0] if engines else engine_here(self._engine_name)
        return engine.process.instance()

    def _serves(self) -> bool:
        """Return whether a request is running."""
        return False

    def connections(self) -> list[Connection]:
        return [client._connection for client in self._clients]


def settings_for(url: str | None, owner: object, **settings: Any) -> RoomSettings:
    """Make settings with the backplane of a URL; or with that which there is without one.

    :param owner: whose memory it is then, outside of uWSGI. It must live as long as the rooms.
    """
    url = url or ("local://" if uwsgi.inside() else "memory://")
    is_private = url == "memory://"
    return RoomSettings(f"memory://{id(owner):x}" if is_private else url, is_private, **settings)
