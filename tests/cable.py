"""A cable between browsers and a server, for tests to cut."""

from __future__ import annotations

import asyncio
import threading
from contextlib import suppress

from tests.server import PATIENCE, free_port


class Cable:
    """Passes connections on to a port of this machine, in a thread of its own.

    :param to: the port.
    """

    def __init__(self, to: int) -> None:
        self.port = free_port()
        self._to = to
        self._is_cut = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Cable:
        self._listening = threading.Event()
        self._thread.start()
        assert self._listening.wait(PATIENCE)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._cut, True)
        self._loop.call_soon_threadsafe(self._ended.set)
        self._thread.join(PATIENCE)
        self._loop.close()

    def cut(self) -> None:
        """Reset what is open, and all that comes."""
        self._loop.call_soon_threadsafe(self._cut, True)

    def mend(self) -> None:
        self._loop.call_soon_threadsafe(self._cut, False)

    def _cut(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        for end in self._ends if is_cut else ():
            end.transport.abort()

    def _run(self) -> None:
        self._loop.run_until_complete(self._serve())

    async def _serve(self) -> None:
        self._ended = asyncio.Event()
        server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self._listening.set()
        await self._ended.wait()
        server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._is_cut:
            writer.transport.abort()
            return
        ends = {writer}
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._to)
            ends.add(back)
            self._ends |= ends
            await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
        except OSError:
            pass
        finally:
            self._ends -= ends
            for end in ends:
                end.transport.abort()

    async def _pass_on(self, source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            target.write(data)
            await target.drain()
        with suppress(OSError):
            target.write_eof()
