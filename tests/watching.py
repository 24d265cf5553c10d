"""Commands that watch an app's WebSockets, in a terminal and without one."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
from typing import Any

import pyte

from tests.server import PATIENCE, Server, eventually

COMMAND = [sys.executable, "-m", "flask_uwsgi_websocket"]


def run_command(server: Server, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
    """Run a command that needs no app, as the user of a server."""
    return subprocess.run(
        [*COMMAND, *words],
        env={**server.environment, **env},
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        check=False,
    )


class Terminal:
    """A terminal, 80 by 24, in which a command runs."""

    def __init__(self, server: Server, *words: str, **env: str) -> None:
        self._screen = pyte.Screen(80, 24)
        self._stream = pyte.ByteStream(self._screen)
        self._master, slave = pty.openpty()
        self._set_size(24, 80)
        self._process = subprocess.Popen(
            [*COMMAND, *words],
            # Of all that it knows pyte draws everything.
            env={**server.environment, "TERM": "linux", "LANG": "C.UTF-8", **env},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
        )
        os.close(slave)

    def _set_size(self, lines: int, columns: int) -> None:
        fcntl.ioctl(self._master, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def resize(self, lines: int, columns: int) -> None:
        """Make it another size, as a window is."""
        self._screen.resize(lines, columns)
        self._set_size(lines, columns)
        self._process.send_signal(signal.SIGWINCH)

    def press(self, keys: bytes) -> None:
        os.write(self._master, keys)

    def shows(self, *texts: str) -> list[str]:
        """The lines on it, once all texts are there."""

        def look() -> list[str] | None:
            self._read()
            lines = [line.rstrip() for line in self._screen.display]
            return lines if all(text in "\n".join(lines) for text in texts) else None

        try:
            return eventually(look, f"{texts} to be shown") or []
        except AssertionError as error:
            raise AssertionError(f"{error}:\n" + "\n".join(self._screen.display)) from None

    def _read(self) -> None:
        while select.select([self._master], [], [], 0)[0]:
            try:
                data = os.read(self._master, 1 << 16)
            except OSError:  # the command has ended
                return
            self._stream.feed(data)

    def hang_up(self) -> None:
        """Go away, as the terminal of a connection that is cut."""
        os.close(self._master)
        self._master = os.open(os.devnull, os.O_RDWR)

    def status(self) -> int:
        """How the command has ended."""

        def look() -> bool:
            if os.isatty(self._master):
                self._read()  # it may wait for that
            return self._process.poll() is not None

        eventually(look, "the command to end")
        return self._process.returncode or 0

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *error: Any) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        os.close(self._master)
