"""What the pages in a room are told of who came and left."""

from __future__ import annotations

from functools import partial

from ...exceptions import RoomError
from ..channels import room_channel
from ..envelope import encode_presence
from ..exchange import Exchange
from ..record import Kind, Record
from .asking import occupants_of
from .members import Member

#: Seconds for which news are collected: many come at once, as after a reload.
COLLECTED = 0.2
#: Members above which pages are told how many there are, and not who: n who come to n others are
#: n squared messages.
MOST_NAMED = 200
#: Bytes of a record besides what pages are told.
LEFT_FREE = 1000


class Announcements:
    """Tells the members of rooms, on all workers, what happened in 200 ms. On the loop.

    Only to clients that have envelopes, by which they know it from other messages.
    """

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._news: dict[str, dict[str, Member | None]] = {}  # by room and user

    def add(self, room: str, member: Member, has_left: bool) -> None:
        """Tell soon that somebody came or left; of a user's news only the latest."""
        if room not in self._news:
            self._news[room] = {}
            self._exchange.run_soon(partial(self._tell, room), COLLECTED)
        self._news[room][member.user] = None if has_left else member

    async def _tell(self, room: str) -> None:
        news = self._news.pop(room)
        try:
            occupants, _ = await occupants_of(self._exchange, room)
        except RoomError:
            return  # the members are not reached either
        number = len({each.user for each in occupants})
        text = encode_presence(room, number).encode()
        if max(number, len(news)) <= MOST_NAMED:  # also of those who came and left at once
            came = [{"user": who.user, "info": who.info} for who in news.values() if who]
            left = [{"user": user} for user, who in news.items() if who is None]
            named = encode_presence(room, number, came, left).encode()
            if len(named) <= self._exchange.options.max_size - LEFT_FREE:
                text = named
        self._exchange.send_nowait(Record(Kind.PRESENCE, (room_channel(room),), text))
