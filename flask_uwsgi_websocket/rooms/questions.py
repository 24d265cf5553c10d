"""Questions to all workers, and their answers: who is in a room, everywhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping
from itertools import count
from typing import Any, NamedTuple

from ..helpers.waiting import within
from .channels import ALL, worker_channel
from .record import Kind, Record

#: Seconds for which answers are waited for.
ANSWER_TIME = 1.0


class Answers(NamedTuple):
    """What the workers answered."""

    answers: list[Any]
    #: Whether all have.
    complete: bool


class _Pending:
    """A question whose answers are still to come."""

    def __init__(self, expected: int | None) -> None:
        self.expected = expected
        self.answers: list[Any] = []
        self.ended = 0  # how many have come in full
        self.complete = asyncio.Event()

    def add(self, answer: Any, is_last: bool) -> None:
        """Take an answer, or a part of one."""
        self.answers.append(answer)
        self.ended += is_last
        if self.expected is not None and self.ended >= self.expected:
            self.complete.set()


class Questions:
    """The questions of one worker or publisher. All on the loop.

    :param publish: publishes a record.
    :param workers: see :meth:`.Backplane.workers`.
    """

    def __init__(
        self,
        publish: Callable[[Record], Awaitable[None]],
        workers: Callable[[], Awaitable[int | None]],
    ) -> None:
        self._publish = publish
        self._workers = workers
        self._pending: dict[int, _Pending] = {}
        self._numbers = count()

    async def ask(self, question: Mapping[str, Any]) -> Answers:
        """Ask all workers; wait at most :data:`ANSWER_TIME` for what they answer.

        :param question: of what JSON has.
        """
        number = next(self._numbers)
        pending = self._pending[number] = _Pending(await self._workers())
        try:
            if pending.expected != 0:
                data = json.dumps({"number": number, "question": question}).encode()
                await self._publish(Record(Kind.ASK, (ALL,), data))
                await within(ANSWER_TIME, pending.complete.wait())
            complete = True
        except asyncio.TimeoutError:
            complete = False
        finally:
            del self._pending[number]
        return Answers(pending.answers, complete)

    def take(self, record: Record) -> None:
        """Take an answer; one that comes too late is dropped."""
        message = json.loads(record.data)
        pending = self._pending.get(message["number"])
        if pending is not None:
            pending.add(message["answer"], message["last"])


def question_of(record: Record) -> Any:
    """Return the question that a record asks."""
    return json.loads(record.data)["question"]


def answers_to(record: Record, answer: Any, max_size: int) -> Iterator[Record]:
    """Make the records that answer a question: more than one where the answer is too large."""
    message = json.loads(record.data)
    channel = worker_channel(record.origin.hex())
    parts = list(_parts(answer, max_size))
    for part in parts:
        data = {"number": message["number"], "answer": part, "last": part is parts[-1]}
        yield Record(Kind.ANSWER, (channel,), json.dumps(data).encode())


def _parts(answer: Any, max_size: int) -> Iterator[Any]:
    """Cut an answer that is a dict until each part is small enough."""
    if not isinstance(answer, dict) or len(answer) < 2 or len(json.dumps(answer)) <= max_size:
        yield answer
        return
    items = list(answer.items())
    for half in (items[: len(items) // 2], items[len(items) // 2 :]):
        yield from _parts(dict(half), max_size)
