"""RSGI, granian's own interface: its Rust does the protocol."""

from __future__ import annotations

from typing import Any

TEXT = 2

listening: set[Any] = set()


async def app(scope: Any, protocol: Any) -> None:
    transport = await protocol.accept()
    if scope.path == "/all":
        listening.add(transport)
    try:
        while (message := await transport.receive()).kind == TEXT:
            if scope.path == "/echo":
                await transport.send_str(message.data)
            else:
                for each in list(listening):
                    await each.send_str(message.data)
    finally:
        listening.discard(transport)
