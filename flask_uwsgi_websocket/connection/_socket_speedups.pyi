from _socket import socket as Socket
from collections.abc import Sequence
from typing import Literal, TypeVar

T = TypeVar("T")

Received = str | bytes | tuple[bytes] | None

def receive(sock: Socket, size: int, limit: int) -> Received: ...
def wait_and_receive(sock: Socket, size: int, limit: int) -> Received: ...
def send(
    sock: Socket, message: object, below: int
) -> bytes | memoryview | Literal[False] | None: ...
def send_to_idle(frame: bytes, connections: Sequence[T]) -> list[T]: ...
