"""The question who is in a room, for workers and for publishers."""

from __future__ import annotations

from collections.abc import Sequence

from ..channels import room_channel
from ..exchange import Exchange
from .members import Occupant

#: And whether these are all.
Occupants = tuple[Sequence[Occupant], bool]


async def occupants_of(exchange: Exchange, room: str) -> Occupants:
    """Ask who is in a room, and whether these are all."""
    channel = room_channel(room)
    return await exchange.call("presence", lambda backplane: backplane.occupants(channel))
