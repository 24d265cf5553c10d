"""Publish to rooms from outside: a Celery task, a cron job, a script, another service.

::

    from flask_uwsgi_websocket import Publisher

    with Publisher("redis://localhost", prefix="shop") as rooms:
        rooms.to("news").send("hi")
        rooms.to_user(7).send_json({"paid": True})

It needs neither Flask nor uWSGI, nor a connection of its own for each thread: all threads share it,
and a process that is forked begins anew.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from ..exceptions import BackplaneUnavailable
from ..helpers.log import RateLimit, logger
from .access import Access
from .channels import room_channel
from .counting import Count, count_of, count_question, counts_of, rooms_question
from .described import Described
from .exchange import Exchange
from .loop_calls import start, wait_for
from .options import RoomPatterns
from .past import Past, forget, past_of, position_of
from .positions import Position
from .presence.asking import Occupants, occupants_of
from .presence.members import Members, members_of
from .questions import Answers
from .record import Record
from .targets import Done, Sender, Targets

_T = TypeVar("_T")
_Self = TypeVar("_Self", bound="_Publisher[Any]")

#: Where an app's configuration has what a publisher needs.
_KEYS = "UWSGI_WEBSOCKET_"
#: Seconds beyond the timeout that others who send may cost.
_PATIENCE = 3.0


class _Publisher(Targets[Done]):
    """What both publishers have: where to, and how.

    :param url: of the app's backplane, as ``UWSGI_WEBSOCKET_BACKPLANE``. None, or ``local://``:
        that of the only uWSGI of this user on this machine, which is looked for until it is there.
    :param prefix: the app's ``UWSGI_WEBSOCKET_PREFIX``, which by default is ``app.name``. None, for
        which ``url`` must be None too: that of the only app there.
    :param timeout: seconds within which a call succeeds or raises
        :exc:`~.exceptions.BackplaneUnavailable`.
    :param max_size: the app's ``UWSGI_WEBSOCKET_ROOM_MESSAGE_SIZE``.
    :param dumps: makes JSON: ``app.json.dumps`` for the types that the app knows.
    :raises ValueError: for a URL that is wrong, or one without a prefix.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        prefix: str | None = None,
        timeout: float = 2.0,
        max_size: int = 1 << 20,
        dumps: Callable[[Any], str] = json.dumps,
    ) -> None:
        self.max_size = max_size
        self._access = Access(url, prefix, timeout, max_size)
        self._dumps = dumps
        self._latest: Described | None = None
        self._warning = RateLimit()

    @classmethod
    def from_config(cls: type[_Self], config: Mapping[str, Any], **options: Any) -> _Self:
        """Make one that publishes to the app of this configuration.

        :param config: ``app.config``, or what the app is configured from.
        :param options: what the configuration does not tell, as ``prefix`` if it is not set there.
        """
        options.setdefault("prefix", config.get(f"{_KEYS}PREFIX"))
        options.setdefault("max_size", config.get(f"{_KEYS}ROOM_MESSAGE_SIZE", 1 << 20))
        return cls(config.get(f"{_KEYS}BACKPLANE"), **options)

    def dumps(self, value: Any) -> str:
        """Return the JSON for a value."""
        return self._dumps(value)

    def send_nowait(self, record: Record) -> None:
        """Queue a record; see :meth:`.Target.send_nowait`."""
        try:
            described = self._described()
        except BackplaneUnavailable as error:
            if self._warning.passes():
                logger.warning("a message to rooms was not sent: %s", error)
            return
        if described is None:
            self._nobody_there()
        else:
            described.send_nowait(record)

    def is_alone(self) -> bool:
        """Return whether there is no uWSGI to publish to, of those that are looked for."""
        return self._access.exchange() is None

    def _send(self, record: Record) -> Future[Position | None] | None:
        described = self._described()
        if described is None:
            self._nobody_there()
            return None
        return described.send(record)

    def _described(self) -> Described | None:
        """Return the exchange, with the options of the app's rooms; None where no instance runs."""
        exchange = self._access.exchange()
        if exchange is None:
            return None
        described = self._latest
        if described is None or described.exchange is not exchange:
            described = self._latest = Described(exchange)
        return described

    def _kept(
        self, ask: Callable[[Exchange, RoomPatterns, str], Awaitable[_T]], room: str
    ) -> Future[_T]:
        """Ask for something of a kept room."""
        room_channel(room)
        described = self._described()
        if described is None:
            raise BackplaneUnavailable("no uWSGI of this user has rooms that could be asked for")
        return start(described.ask(ask, room))

    def _ask(self, question: dict[str, Any]) -> Future[Answers] | None:
        exchange = self._access.exchange()
        if exchange is None:
            return None
        return start(exchange.ask(question))

    def _who(self, room: str) -> Future[Occupants] | None:
        room_channel(room)  # checks the name
        exchange = self._access.exchange()
        return None if exchange is None else start(occupants_of(exchange, room))

    def _nobody_there(self) -> None:
        # No error: as with any other backplane, there may just be no clients.
        if self._warning.passes():
            logger.warning(
                "a message to rooms reached nobody: no uWSGI of this user has clients, or its "
                "backplane is elsewhere (UWSGI_WEBSOCKET_BACKPLANE), which the URL would name"
            )

    def __del__(self) -> None:
        access: Access | None = self.__dict__.get("_access")
        if access is not None:
            with suppress(RuntimeError):  # the process ends
                access.start_closing()


_NONE = Answers([], True)


def _told(position: Position | None) -> str | None:
    return None if position is None else str(position)


class Publisher(_Publisher[str | None]):
    """Publishes to an app's rooms, users and clients; waits as threads do, or greenlets."""

    def _sender(self) -> Sender[str | None]:
        return self

    def send(self, record: Record) -> str | None:
        """Publish a record; see :meth:`.Target.send`."""
        sending = self._send(record)
        return None if sending is None else _told(self._wait(sending))

    def count(self, room: str) -> Count:
        """Return how many connections and users are in a room."""
        return count_of(self.ask(count_question(room)))

    def who(self, room: str) -> Members:
        """Return who is in a room with ``presence``; nobody is in one without."""
        asking = self._who(room)
        return Members() if asking is None else members_of(*self._wait(asking))

    def rooms(self) -> dict[str, Count]:
        """Return all rooms that have members."""
        return counts_of(self.ask(rooms_question()))

    def ask(self, question: dict[str, Any]) -> Answers:
        """Ask all workers."""
        asking = self._ask(question)
        return _NONE if asking is None else self._wait(asking)

    def position(self, room: str) -> str:
        """Return the position of the last message in a room with ``history``."""
        return self._wait(self._kept(position_of, room))

    def history(self, room: str, after: str | None = None, limit: int = 100) -> Past:
        """Return what a room has kept; see :meth:`.WebSocket.history`."""
        return self._wait(self._kept(partial(past_of, after=after, limit=limit), room))

    def forget(self, room: str) -> None:
        """Delete what a room has kept; see :meth:`.WebSocket.forget`."""
        self._wait(self._kept(forget, room))

    def close(self) -> None:
        """Wait until what was sent by ``send_nowait`` has gone out, and end."""
        self._access.close()

    def _wait(self, future: Future[_T]) -> _T:
        try:
            return wait_for(future, self._access.timeout + _PATIENCE)
        except TimeoutError as error:
            raise BackplaneUnavailable("the backplane does not answer in time") from error

    def __enter__(self: _Self) -> _Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class AsyncPublisher(_Publisher[Awaitable[str | None]]):
    """Does what :class:`Publisher` does in an asyncio program; what waits there is awaited here."""

    def _sender(self) -> Sender[Awaitable[str | None]]:
        return self

    async def send(self, record: Record) -> str | None:
        """Publish a record; see :meth:`.Target.send`."""
        sending = self._send(record)
        return None if sending is None else _told(await asyncio.wrap_future(sending))

    async def count(self, room: str) -> Count:
        """Return how many connections and users are in a room."""
        return count_of(await self.ask(count_question(room)))

    async def who(self, room: str) -> Members:
        """Return who is in a room with ``presence``; nobody is in one without."""
        asking = self._who(room)
        if asking is None:
            return Members()
        return members_of(*await asyncio.wrap_future(asking))

    async def rooms(self) -> dict[str, Count]:
        """Return all rooms that have members."""
        return counts_of(await self.ask(rooms_question()))

    async def ask(self, question: dict[str, Any]) -> Answers:
        """Ask all workers."""
        asking = self._ask(question)
        return _NONE if asking is None else await asyncio.wrap_future(asking)

    async def position(self, room: str) -> str:
        """Return the position of the last message in a room with ``history``."""
        return await asyncio.wrap_future(self._kept(position_of, room))

    async def history(self, room: str, after: str | None = None, limit: int = 100) -> Past:
        """Return what a room has kept; see :meth:`.WebSocket.history`."""
        asking = self._kept(partial(past_of, after=after, limit=limit), room)
        return await asyncio.wrap_future(asking)

    async def forget(self, room: str) -> None:
        """Delete what a room has kept; see :meth:`.WebSocket.forget`."""
        await asyncio.wrap_future(self._kept(forget, room))

    async def close(self) -> None:
        """Wait until what was sent by ``send_nowait`` has gone out, and end."""
        closing = self._access.start_closing()
        if closing is not None:
            await asyncio.wrap_future(closing)

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.close()
