"""Rooms as an app uses them: who is in them is sent to, counted, closed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakSet, WeakValueDictionary

from flask import Flask, g, has_request_context, request

from ..clients.base import Data
from ..clients.hosting import ClientsHost, settings_for
from ..clients.open_clients import Clients, Excluded
from ..connection.connection import Connection
from ..engines.base import Engine
from ..helpers.log import logger
from ..metrics.observers import Observers
from ..rooms.channels import ALL, user_of
from ..rooms.counting import Count
from ..rooms.live import LiveRooms, RoomSettings
from ..rooms.options import RoomPatterns
from ..rooms.past import Past
from ..rooms.presence.members import Members
from ..rooms.presence.presence import Event, Happened
from ..rooms.record import Record
from ..rooms.rooms import Rooms
from ..rooms.targets import Sender, Target, Targets
from ..servers import uwsgi
from . import config
from .room_functions import RoomFunctions

F = TypeVar("F", bound=Callable[..., Any])

#: In ``app.extensions``: the rooms of an app, by extension.
_ROOMS = "uwsgi_websocket.rooms"
#: Apps whose prefix nobody has chosen; and who uses which backplane and prefix in this process.
_without_prefix: WeakSet[Flask] = WeakSet()
_users: WeakValueDictionary[tuple[str, str], Flask] = WeakValueDictionary()


class RoomsOfApps:
    """The rooms of the apps of one extension, and what the extension says of them.

    :param engine_name: of the engine that runs its handlers.
    :param clients: its open clients.
    :param timeout: seconds that a worker that stops leaves to what is told of rooms.
    :param observers: are notified of how long messages take.
    """

    def __init__(
        self, engine_name: str, clients: Clients, timeout: float, observers: Observers
    ) -> None:
        self._observers = observers
        self._engine_name = engine_name
        self._clients = clients
        self._apps: WeakSet[Flask] = WeakSet()
        self.patterns = RoomPatterns()
        self.functions = RoomFunctions(timeout)
        self.identify: Callable[[], Any] | None = None
        #: See :attr:`.Host.answerers`.
        self.answerers: dict[str, Callable[[LiveRooms, Any], Any]] = {}

    def add(self, app: Flask) -> None:
        """Make the rooms of an app; nothing of them starts."""
        self._apps.add(app)
        prefix = config.PREFIX + "PREFIX"
        if app.config[prefix] is None:
            app.config[prefix] = app.name
            _without_prefix.add(app)
        config.check_prefix(prefix, app.config[prefix])
        url = app.config[config.PREFIX + "BACKPLANE"]
        config.check_backplane(prefix, url, app.config[prefix])
        host = _AppWithRooms(app, self._engine_name, self._clients, self.patterns, self.functions)
        host.answerers = self.answerers
        host.observers = self._observers
        app.extensions.setdefault(_ROOMS, {})[self] = Rooms(host)

    def of(self, app: Flask) -> Rooms:
        """Return the rooms of an app."""
        rooms: Rooms = app.extensions[_ROOMS][self]
        return rooms

    def to_others(self, msg: Data, binary: bool | None, exclude: Excluded) -> list[ToOthers]:
        """Make what goes to the clients of other workers once those of this one have got it.

        :raises ValueError: for a message that is too large for other workers.
        """
        apps = map(self.of, tuple(self._apps))
        messages = [ToOthers(rooms) for rooms in apps if not _is_alone(rooms.settings)]
        for each in messages:
            Target(each, (ALL,), exclude).send_nowait(msg, binary)
        return messages

    def begin_with_workers(self, app: Flask, engine: Engine) -> None:
        """Hear in each worker of uWSGI, once that serves, who comes to rooms and leaves."""
        if uwsgi.running_engine() == engine.name:
            uwsgi.after_fork(lambda: engine.when_serving(self.of(app).begin))

    def user_of_request(self, app: Flask) -> str | None:
        """Ask who sends the request; None if nobody knows. Raises what ``identify`` does."""
        if self.identify is not None:
            user = app.ensure_sync(self.identify)()
        else:
            user = _user_of_flask_login(app)
        return None if user is None else user_of(user)


class _AppWithRooms(ClientsHost):
    """A Flask app, as its rooms see it."""

    def __init__(
        self,
        app: Flask,
        engine_name: str,
        clients: Clients,
        patterns: RoomPatterns,
        functions: RoomFunctions,
    ) -> None:
        super().__init__(engine_name, clients, patterns)
        self._app = app
        self._functions = functions

    def settings(self) -> RoomSettings:
        read = partial(config.read, self._app.config)
        return settings_for(
            read("BACKPLANE"),
            self._app,  # whichever of its extensions asks
            prefix=read("PREFIX") or "",
            message_size=read("ROOM_MESSAGE_SIZE"),
            max_rooms=read("MAX_ROOMS"),
            store_size=read("ROOMS_STORE"),
        )

    def engine(self) -> Engine:
        self._warn_if_split()
        self._warn_if_shared()
        return super().engine()

    def _warn_if_split(self) -> None:
        """Warn where each of several workers is by itself: under gunicorn that is the default."""
        is_one_of_many = has_request_context() and request.environ.get("wsgi.multiprocess")
        if is_one_of_many and self.settings().private:
            logger.warning(
                "rooms reach the clients of one worker only, of several that serve the app: set "
                "UWSGI_WEBSOCKET_BACKPLANE to %s, or redis://...",
                "local://" if uwsgi.inside() else "local:///a/directory",
            )

    def _warn_if_shared(self) -> None:
        """Warn where several apps, such as those made for each tenant, happen to be one here."""
        settings = self.settings()
        if settings.private:
            return
        other = _users.setdefault((settings.url, settings.prefix), self._app)
        if other is not self._app and self._app in _without_prefix:
            logger.warning(
                "several apps of this process have the same rooms and users, since each is called "
                "%r: set the UWSGI_WEBSOCKET_PREFIX of each, to names that differ or to one",
                settings.prefix,
            )

    def _serves(self) -> bool:
        return has_request_context()

    def tell(self, engine: Engine, event: Event) -> None:
        self._functions.tell(self._app, engine, event)

    def connections(self) -> list[Connection]:
        return [client._connection for client in self._clients if client._app is self._app]

    def dumps(self, value: Any) -> str:
        return str(self._app.json.dumps(value))


def _is_alone(settings: RoomSettings) -> bool:
    """Return whether this is the only process with clients that its backplane has."""
    is_ours = settings.url == "local://" and uwsgi.inside()
    return settings.private or (is_ours and uwsgi.is_only_worker())


def _user_of_flask_login(app: Flask) -> Any:
    manager = getattr(app, "login_manager", None)
    # One that cannot load users raises when it is asked for one.
    callbacks = (getattr(manager, f"_{kind}_callback", None) for kind in ("user", "request"))
    if not any(callbacks) or "flask_login" not in sys.modules:
        return None
    current_user = sys.modules["flask_login"].current_user
    if not hasattr(g, "_login_user"):  # it has to be loaded
        # In a context of its own, at the end of which extensions take back what that needed: the
        # request would keep a database session for as long as the connection is open.
        with app.app_context():
            if has_request_context():
                return current_user.get_id()
    return current_user.get_id()


class ToOthers:
    """A message for the clients of other workers, who get it after those of this one."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        self.max_size = rooms.max_size
        self.dumps = rooms.dumps

    def send(self, record: Record) -> None:
        """Keep a record until it is to go."""
        self._record = replace(record, served=True)

    send_nowait = send

    def go(self) -> None:
        """Send it."""
        self._rooms.send_nowait(self._record)


class RoomMethods(Targets[str | None]):
    """The methods of :class:`~.extension.WebSocket` that are about rooms.

    A room is a set of clients, on all workers of the app: whoever knows its name sends to it, and
    handlers let their clients join it. It is there while it has members.
    """

    if TYPE_CHECKING:
        _rooms: RoomsOfApps

        def _served_app(self) -> Flask: ...
        def _check_kind(self, function: Callable[..., Any], whose: str) -> None: ...

    def _sender(self) -> Sender[str | None]:
        return self._rooms.of(self._served_app())

    def room(self, pattern: str, **options: Any) -> None:
        """Give options to the rooms whose names match a pattern, such as ``"chat/*"``.

        The first pattern that matches counts. The options are those of
        :class:`~.options.RoomOptions`.

        :raises TypeError: for an unknown option.
        :raises ValueError: for another value that an option cannot have.
        :raises RuntimeError: when a room is in use already.
        """
        self._rooms.patterns.add(pattern, **options)

    def identify(self, function: F) -> F:
        """Have the decorated function tell who a client is, for ``ws.user`` and :meth:`to_user`.

        It is called at the handshake, in the context of the request, before the handler. It
        returns a str, or an int for its digits; None for somebody unknown. What it raises refuses
        the handshake as it would fail a view. Without one it is Flask-Login that tells, where the
        app has it.
        """
        self._rooms.identify = function
        return function

    def who(self, room: str) -> Members:
        """Return who is in a room, on all workers, for rooms with ``presence``.

        :return: a list of :class:`~.members.Member`; ``complete`` is False where it may miss some.
            In a coroutine, what is to be awaited for that.
        :raises RoomError: for a room without presence.
        :raises BackplaneUnavailable: when nobody can be asked.
        """
        members: Members = self._rooms.of(self._served_app()).who(room)
        return members

    def present(self, user: str | int) -> bool:
        """Return whether a user has a client now, of whichever worker; waits as :meth:`count`.

        One that does not answer within a second counts as having none.
        """
        present: bool = self._rooms.of(self._served_app()).present(user)
        return present

    def on_join(self, pattern: str) -> Callable[[F], F]:
        """Call the decorated function with a room and a member who has come to it.

        That is a user's first connection there. The function is called once, whatever the number of
        workers, in a thread, greenlet or Task of one of them, and in an app context; within a
        worker they are called one after the other, in the order of what happened. What it raises
        is logged.

        :param pattern: of the names of rooms that have ``presence``, as for :meth:`room`.
        :raises TypeError: when the function is of the wrong kind for the engine.
        """
        return self._on(Happened.JOIN, pattern)

    def on_leave(self, pattern: str) -> Callable[[F], F]:
        """Do as :meth:`on_join`, when a user has left: the grace after the last connection."""
        return self._on(Happened.LEAVE, pattern)

    def on_room_empty(self, pattern: str) -> Callable[[F], F]:
        """Do as :meth:`on_join`, with the room alone, when nobody is left in it."""
        return self._on(Happened.EMPTY, pattern)

    def _on(self, what: Happened, pattern: str) -> Callable[[F], F]:
        def decorator(function: F) -> F:
            self._check_kind(function, "functions that are told of rooms")
            self._rooms.functions.add(what, pattern, function)
            return function

        return decorator

    def position(self, room: str) -> str:
        """Return the position of the last message in a room with ``history``.

        For a page: ask for it first, then for the data, and have the page's socket join the room
        with ``since``; so nothing that happens in between is missing. Waits as :meth:`count`.

        :raises RoomError: for a room that keeps nothing.
        :raises BackplaneUnavailable: when its log cannot be read.
        """
        position: str = self._rooms.of(self._served_app()).position(room)
        return position

    def history(self, room: str, after: str | None = None, limit: int = 100) -> Past:
        """Return what a room with ``history`` has kept; waits, and raises, as :meth:`position`.

        :param after: the position after which messages are asked for; None for the last ones.
        :param limit: how many at most.
        :return: ``messages``, of which each has ``position``, ``data`` and ``time``; the
            ``position`` of the last; and whether the answer is ``complete``: False where some of
            what was asked for is gone.
        """
        past: Past = self._rooms.of(self._served_app()).history(room, after, limit)
        return past

    def forget(self, room: str) -> None:
        """Delete what a room has kept; waits, and raises, as :meth:`position`.

        Clients that resume are told that they cannot, and load anew what the page shows.
        """
        done: None = self._rooms.of(self._served_app()).forget(room)
        return done

    def count(self, room: str) -> Count:
        """Count who is in a room, on all workers; takes a second where one does not answer.

        In a room with ``presence`` it is the users that are counted, those in grace too.

        :return: ``connections``, ``users`` and ``complete``; in a coroutine, what is to be awaited
            for that.
        :raises BackplaneUnavailable: when nobody can be asked.
        """
        count: Count = self._rooms.of(self._served_app()).count(room)
        return count

    def rooms(self) -> dict[str, Count]:
        """Count who is in each room, for people and dashboards; as :meth:`count`."""
        rooms: dict[str, Count] = self._rooms.of(self._served_app()).rooms()
        return rooms
