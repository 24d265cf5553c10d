"""A look into one room: who is there, and what it keeps."""

from __future__ import annotations

import json
from typing import Any

from ...rooms.channels import room_channel
from ...rooms.counting import Count
from ...rooms.live import LiveRooms
from ...rooms.past import Message, past_of
from ...rooms.presence.members import Member
from .rows import cut

#: Members and messages that are shown, and characters of a message.
MOST_MEMBERS, MOST_MESSAGES, LONGEST_MESSAGE = 100, 20, 4096


async def look(live: LiveRooms, room: str, payloads: bool) -> dict[str, Any]:
    """Ask for what is known of a room.

    :param payloads: whether what its clients have sent and said of themselves is shown.
    :raises RoomError: where it cannot be known.
    :raises ValueError: for a name that no room can have.
    """
    room_channel(room)
    options = live.patterns.of(room)
    counted: Count = await live.count(room)
    seen: dict[str, Any] = {
        "done": "looked",
        "room": room,
        **counted._asdict(),
        "presence": None,
        "presence_total": 0,
        "history": None,
    }
    if options.presence is not None:
        members = await live.who(room)
        seen["presence"] = [_member(each, payloads) for each in members[:MOST_MEMBERS]]
        seen["presence_total"] = len(members)
    if options.history is not None:
        past = await past_of(live.exchange, live.patterns, room, limit=MOST_MESSAGES)
        messages = [_message(each, payloads) for each in past.messages]
        seen["history"] = {
            "position": past.position,
            "complete": past.complete,
            "messages": messages,
        }
    return seen


def _member(member: Member, payloads: bool) -> dict[str, Any]:
    shown = {"user": cut(member.user), "connections": member.connections, "since": member.since}
    if payloads:
        shown["info"] = json.dumps(member.info, ensure_ascii=False)[:LONGEST_MESSAGE]
    return shown


def _message(message: Message, payloads: bool) -> dict[str, Any]:
    data, is_text = message.data, isinstance(message.data, str)
    size = len(data.encode() if isinstance(data, str) else data)
    shown = {"position": message.position, "time": message.time, "text": is_text, "size": size}
    if payloads:
        text = data if isinstance(data, str) else data[: LONGEST_MESSAGE // 2].hex()
        shown["data"] = text[:LONGEST_MESSAGE]
    return shown
