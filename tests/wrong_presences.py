"""For each promise of a backplane that knows who is in rooms one that breaks it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from flask_uwsgi_websocket.rooms.presence.members import Left, Occupant
from flask_uwsgi_websocket.rooms.presence.occupancy import Occupancy
from tests.sample_backplane import PigeonBackplane

#: By the name of the test that notices it.
WRONG: dict[str, list[type[PigeonBackplane]]] = {}

_Kind = type[PigeonBackplane]


def breaks(*tests: str) -> Callable[[_Kind], _Kind]:
    def note(kind: _Kind) -> _Kind:
        for test in tests:
            WRONG.setdefault(f"test_{test}", []).append(kind)
        return kind

    return note


@breaks("a_user_is_new_in_a_room_once")
class TakesEachConnectionForAUser(PigeonBackplane):
    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await super().enter([replace(each, user=each.connection) for each in occupants])


@breaks("a_user_is_new_in_a_room_once", "the_latest_info_counts")
class IsByItself(PigeonBackplane):
    """Each worker."""

    @property
    def occupancy(self) -> Occupancy:
        return self.loft.occupancies.setdefault(self.options.worker, Occupancy())


@breaks("a_user_leaves_once_after_the_grace")
class TellsEverybody(PigeonBackplane):
    async def sweep(self) -> Sequence[Left]:
        left = list(await super().sweep())
        self.loft.left = [*getattr(self.loft, "left", []), *left]  # type: ignore[attr-defined]
        return self.loft.left[:]  # type: ignore[attr-defined,no-any-return]


@breaks("a_user_leaves_once_after_the_grace", "who_comes_back_in_time_has_never_left")
class KnowsNoGrace(PigeonBackplane):
    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await super().enter([replace(each, grace=0.0) for each in occupants])

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        await super().leave(leaving)
        await super().sweep()


@breaks("who_comes_back_in_time_has_never_left")
class TakesTheLatestTime(PigeonBackplane):
    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        found, complete = await super().occupants(channel)
        return [replace(each, since=each.since + 1) for each in found], complete


@breaks("the_last_one_leaves_an_empty_room")
class TakesEachForTheLast(PigeonBackplane):
    async def sweep(self) -> Sequence[Left]:
        return [each._replace(room_is_empty=True) for each in await super().sweep()]


@breaks("the_last_one_leaves_an_empty_room")
class KnowsNoOrder(PigeonBackplane):
    async def sweep(self) -> Sequence[Left]:
        return sorted(await super().sweep(), key=lambda left: left.user)


@breaks("the_latest_info_counts")
class CutsInfos(PigeonBackplane):
    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await super().enter(
            [each for each in occupants if len(each.info) < 1000 and "<" not in each.info]
        )


@breaks("what_is_not_there_cannot_leave")
class LosesTheRoom(PigeonBackplane):
    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        await super().leave([(channel, "1") for channel, _ in leaving])


@breaks("a_room_has_as_many_users_as_it_may")
class HasNoLimit(PigeonBackplane):
    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await super().enter([replace(each, limit=0) for each in occupants])


@breaks("a_room_has_as_many_users_as_it_may")
class GivesSeatsAway(PigeonBackplane):
    """Of those in grace."""

    async def enter(self, occupants: Sequence[Occupant]) -> Sequence[bool | None]:
        return await super().enter([replace(each, grace=0.0) for each in occupants])

    async def leave(self, leaving: Sequence[tuple[str, str]]) -> None:
        await super().leave(leaving)
        self.occupancy.sweep()


@breaks("apps_do_not_see_each_other")
class KnowsNoPrefix(PigeonBackplane):
    @property
    def occupancy(self) -> Occupancy:
        return self.loft.occupancies.setdefault("all", Occupancy())


@breaks("a_thousand_in_a_room")
class ListsAPage(PigeonBackplane):
    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        found, complete = await super().occupants(channel)
        return found[:500], complete


@breaks("who_is_there_when_nobody_can_be_asked")
class TakesWhatItKnowsForAll(PigeonBackplane):
    async def occupants(self, channel: str) -> tuple[Sequence[Occupant], bool]:
        return (await super().occupants(channel))[0], True
