"""What is true of a backplane's names: of channels, and the prefixes that keep apps apart."""

from __future__ import annotations

from functools import partial

from ..channels import ALL, MAX_NAME, room_channel, user_channel
from .bench import Bench, promise

#: What servers, file systems and patterns give a meaning of their own.
_ODD = [
    " ",
    "*",
    "?",
    "[a]",
    "{a}",
    "{}",
    "a.*",
    "a.>",
    "#",
    "/",
    "../..",
    "a:b",
    "\\",
    "'\"",
    "%s",
    "$1",
    ";--",
    "é",
    "e\u0301",
    "日本",
    "😀",
    "\u202e",
    "A",
    "a",
    "x" * MAX_NAME,
    "x" * (MAX_NAME - 1),
    "é" * (MAX_NAME // 2),
    "é" * (MAX_NAME // 2 - 1),
]


class Names:
    """The promises of :class:`~.backplane.Backplane` that are about names."""

    @promise()
    async def test_any_name(self, bench: Bench) -> None:
        """Each names itself and no other, whatever characters are in it."""
        channels = [kind(name) for name in _ODD for kind in (room_channel, user_channel)]
        publisher = await bench.worker()
        listeners = [(channel, await bench.worker(channel)) for channel in [*channels[::3], ALL]]
        for channel in [*channels, ALL]:
            await publisher.send(channel, channel.encode())
        for channel, listener in listeners:
            heard = listener.inbox.records
            await listener.inbox.until(partial(bool, heard), f"a record for {channel!a}")
        await listeners[-1][1].settle(publisher)
        for channel, listener in listeners:
            assert listener.got == [channel.encode()]

    @promise()
    async def test_prefixes_never_mix(self, bench: Bench) -> None:
        """Whatever an app is called, and whatever its rooms are."""
        inner, outer = room_channel("a"), room_channel("shop:room:a")
        apps = [
            ("shop", inner),
            ("blog", inner),
            ("", inner),
            ("shop:", inner),
            ("*", inner),
            ("shop", outer),
            ("shop:room:shop", inner),
            ("日本 ☃", inner),
        ]
        workers = [await bench.worker(channel, prefix=prefix) for prefix, channel in apps]
        for worker, app in zip(workers, apps, strict=True):
            await worker.send(app[1], repr(app).encode())
        for worker in workers:
            await worker.settle(worker)
        assert [worker.got for worker in workers] == [[repr(app).encode()] for app in apps]

    @promise()
    async def test_workers_of_other_prefixes_are_not_counted(self, bench: Bench) -> None:
        """Nor asked, for they are another app's."""
        worker = await bench.worker(ALL, prefix="shop")
        await bench.worker(ALL, prefix="blog")
        assert await worker.backplane.workers() in (1, None)
