"""Waiting for many descriptors in one thread: epoll, or select where there is none.

Both forget a descriptor's events once they have told them, until it is watched again.
"""

from __future__ import annotations

import os
import select
import socket
from contextlib import suppress
from typing import Protocol

_HAS_EPOLL = hasattr(select, "epoll") and hasattr(os, "eventfd")

#: Events to watch for. What is told may have more bits: errors, hangups.
READ: int = select.EPOLLIN | select.EPOLLRDHUP if _HAS_EPOLL else 1
WRITE: int = select.EPOLLOUT if _HAS_EPOLL else 4


class Poller(Protocol):
    def add(self, fd: int, events: int) -> None:
        """Watch a descriptor."""

    def change(self, fd: int, events: int) -> None:
        """Watch one, that was added, for other events or again."""

    def remove(self, fd: int) -> None:
        """Forget a descriptor, before it is closed."""

    def wake(self) -> None:
        """Let :meth:`wait` return; from any thread."""

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        """Descriptors and their events, after at most ``timeout`` seconds."""


class EpollPoller:
    """Linux."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._alarm, select.EPOLLIN)

    def add(self, fd: int, events: int) -> None:
        self._epoll.register(fd, events | select.EPOLLONESHOT)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events | select.EPOLLONESHOT)

    def remove(self, fd: int) -> None:
        self._epoll.unregister(fd)

    def wake(self) -> None:
        os.eventfd_write(self._alarm, 1)

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        told = self._epoll.poll(timeout)
        for event in told:
            if event[0] == self._alarm:
                os.eventfd_read(self._alarm)
                told.remove(event)
                break
        return told


class SelectPoller:
    """Everywhere else: for developing on macOS and Windows, with few connections."""

    def __init__(self) -> None:
        self._watched: dict[int, int] = {}
        self._alarm, self._bell = socket.socketpair()
        self._alarm.setblocking(False)
        self._bell.setblocking(False)

    def add(self, fd: int, events: int) -> None:
        self._watched[fd] = events
        self.wake()  # select waits for those that it was called with

    change = add

    def remove(self, fd: int) -> None:
        self._watched.pop(fd, None)
        self.wake()

    def wake(self) -> None:
        with suppress(BlockingIOError):  # it rings already
            self._bell.send(b"!")

    def wait(self, timeout: float) -> list[tuple[int, int]]:
        watched = dict(self._watched)
        readers = [fd for fd, events in watched.items() if events & READ]
        writers = [fd for fd, events in watched.items() if events & WRITE]
        try:
            readable, writable, _ = select.select(
                [self._alarm.fileno(), *readers], writers, [], timeout
            )
        except (OSError, ValueError):  # one was closed meanwhile
            return []
        with suppress(BlockingIOError):
            self._alarm.recv(4096)
        told: dict[int, int] = {}
        for ready, event in ((readable, READ), (writable, WRITE)):
            for fd in ready:
                if fd in watched:
                    told[fd] = told.get(fd, 0) | event
        for fd in told:
            if self._watched.get(fd) == watched[fd]:
                self._watched[fd] = 0
        return list(told.items())


def make_poller() -> Poller:
    return EpollPoller() if _HAS_EPOLL else SelectPoller()


def wait_readable(fd: int, timeout: float | None) -> bool:
    """Wait for one descriptor; False after ``timeout`` seconds."""
    if hasattr(select, "poll"):  # which, unlike select, takes descriptors above 1,023
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(None if timeout is None else timeout * 1000))
    return bool(select.select([fd], [], [], timeout)[0])
