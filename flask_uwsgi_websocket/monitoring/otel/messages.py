"""Clients some of whose messages have spans."""

from __future__ import annotations

from collections.abc import Awaitable
from contextlib import AbstractContextManager, nullcontext
from random import random
from typing import Any, TypeVar

from opentelemetry import context, trace
from opentelemetry.context import Context

from ...clients.base import BaseClient, Data
from ...clients.client import AsyncioWebSocketClient, WebSocketClient
from ...clients.deriving import derived_class
from ...connection.base import Message
from .tracing import KEY, ConnectionSpan, tracing

M = TypeVar("M", Message, Message | None)


def traced_class(client_class: type[Any]) -> type[Any]:
    """Derive the class whose clients make spans of their messages."""
    return derived_class(client_class, _TracedBlockingClient, _TracedAsyncioClient)


class _TracedClient(BaseClient[Any]):
    """The members that the blocking and the asyncio clients have in common.

    What a handler does with a message is one span, from ``receive()`` to the next; sending is
    another. Both are in that which is current, and else in that of the connection.

    All messages go through here, and few are chosen: what each method does first is for the others.
    """

    def _handled(self) -> ConnectionSpan | None:
        """End the span of the last message: its handler asks for another one.

        :return: the span of the connection.
        """
        ours: ConnectionSpan | None = self.environ.get(KEY)
        if ours is not None and ours.message is not None:
            ours.end_message()
        return ours

    def _chosen(self) -> ConnectionSpan | None:
        """Return the span of the connection if a message that is about to go is to have one."""
        ours: ConnectionSpan | None = self.environ.get(KEY)
        return None if ours is None or random() >= ours.rate else ours

    def recv_nb(self) -> Message | None:
        """Receive as without spans."""
        return _received(self._handled(), super().recv_nb())

    def send_nb(self, msg: Data, binary: bool | None = None) -> None:
        """Send as without spans."""
        ours = self._chosen()
        with _NOTHING if ours is None else _sending(ours, msg):
            super().send_nb(msg, binary)


class _TracedBlockingClient(_TracedClient, WebSocketClient):
    def receive(self, timeout: float | None = None) -> Message | None:
        return _received(self._handled(), super().receive(timeout))

    recv = receive

    def send(self, msg: Data, binary: bool | None = None) -> None:
        ours = self._chosen()
        with _NOTHING if ours is None else _sending(ours, msg):
            super().send(msg, binary)


class _TracedAsyncioClient(_TracedClient, AsyncioWebSocketClient):
    async def receive(self, timeout: float | None = None) -> Message | None:
        return _received(self._handled(), await super().receive(timeout))

    recv = a_recv = receive

    async def send(self, msg: Data, binary: bool | None = None) -> None:
        ours = self._chosen()
        with _NOTHING if ours is None else _sending(ours, msg):
            await super().send(msg, binary)

    a_send = send

    def __anext__(self) -> Awaitable[Message]:
        return self._next()

    async def _next(self) -> Message:
        return _received(self._handled(), await super().__anext__())


_NOTHING = nullcontext()


def _received(ours: ConnectionSpan | None, message: M) -> M:
    """Begin the span of a message, perhaps."""
    if ours is not None and message and random() < ours.rate:
        before = context.get_current()
        span = tracing().tracer.start_span(
            f"receive {ours.route}", _parent(ours), attributes=_attributes(message)
        )
        ours.message = span, trace.set_span_in_context(span, _parent(ours)), before
        context.attach(ours.message[1])
    return message


def _sending(ours: ConnectionSpan, msg: Data) -> AbstractContextManager[Any]:
    """Surround the sending of a message with its span."""
    return tracing().tracer.start_as_current_span(
        f"send {ours.route}", _parent(ours), attributes=_attributes(msg)
    )


def _parent(ours: ConnectionSpan) -> Context:
    """Return what is current; in a thread or task that the connection's did not start, that."""
    current = context.get_current()
    return current if trace.get_current_span(current).get_span_context().is_valid else ours.context


def _attributes(message: Data) -> dict[str, Any]:
    if not isinstance(message, str):
        return {"websocket.message.type": "binary", "websocket.message.size": len(message)}
    size = len(message) if message.isascii() else len(message.encode(errors="replace"))
    return {"websocket.message.type": "text", "websocket.message.size": size}
