"""Who is in the rooms of a machine: what a worker writes again where that was lost."""

from __future__ import annotations

import asyncio
from pathlib import Path

from flask_uwsgi_websocket.rooms.local.directory import STORE, open_directory
from flask_uwsgi_websocket.rooms.local.residents import SLICE, TABLES, Residents
from flask_uwsgi_websocket.rooms.local.store import Store
from flask_uwsgi_websocket.rooms.presence.members import Occupant

from .server import PATIENCE

ROOM = "room:a"


def test_who_leaves_while_others_are_written_again_is_not(tmp_path: Path) -> None:
    async def test() -> None:
        directory = open_directory(str(tmp_path), ["instance"], "app")
        store = Store(directory, TABLES, PATIENCE)
        residents = Residents(store, {})
        names = [f"{number}" for number in range(SLICE + 2)]
        await residents.enter([Occupant(ROOM, each, each, "null", 1.0) for each in names], "me")
        for file in (tmp_path / "instance" / "app").glob(f"{STORE}*"):
            file.unlink()
        sweeping = asyncio.ensure_future(residents.sweep("me", lambda worker: True))
        while not await residents.occupants(ROOM):
            await asyncio.sleep(0)
        assert not sweeping.done()
        await residents.leave([(ROOM, names[-1])])
        await sweeping
        found = await residents.occupants(ROOM)
        assert sorted(each.user for each in found) == sorted(names[:-1])
        store.close()
        directory.close()

    asyncio.run(asyncio.wait_for(test(), 2 * PATIENCE))
