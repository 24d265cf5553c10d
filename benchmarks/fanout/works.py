"""What the servers are made to do with rooms."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.works import Work

#: Worker processes of a server, and as many ports: a client chooses its worker by the port.
WORKERS = 4


@dataclass(frozen=True)
class RoomWork(Work):
    """Members of rooms, to whom messages are said.

    :param connections: the members of all rooms together; each room has as many in each worker.
    :param depth: messages under way in each room: the next is said when all have one.
    :param burst: say so many at a time instead, the next ones when all have all.
    :param rooms: how many; each member is in one.
    """

    burst: int = 0
    rooms: int = 1


def _work(
    name: str,
    label: str,
    connections: int = 1000,
    depth: int = 8,
    burst: int = 0,
    rooms: int = 1,
    grows: bool = False,
) -> RoomWork:
    return RoomWork(
        name=name,
        label=f"{connections:,} members, {label}",
        action="fan-out",
        session=name if grows else "rooms",
        unit="deliveries/s",
        connections=connections,
        size=200,
        depth=depth,
        most_rounds=1 if grows else None,
        burst=burst,
        rooms=rooms,
    )


FLIGHTS = (
    _work("flight-1", "1 room, 1 message of 200 B under way", depth=1),
    _work("flight-8", "1 room, 8 messages of 200 B under way"),
    _work("burst-50", "1 room, bursts of 50 messages of 200 B", burst=50),
)
SOCKETS = tuple(
    _work(f"members-{number}", "1 room, 8 messages under way", number, grows=True)
    for number in (10, 100, 5000)
)
ROOMS = tuple(
    _work(
        f"rooms-{number}",
        f"{number:,} rooms, 1 message under way in each",
        depth=1,
        rooms=number,
        grows=True,
    )
    for number in (10, 100, 1000)
)
WORKS = (*FLIGHTS, *SOCKETS, *ROOMS)

BY_NAME = {work.name: work for work in WORKS}
