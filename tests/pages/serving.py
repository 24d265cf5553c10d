"""Apps of the pages on a server of their own, for as long as a test speaks to them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.server import PATIENCE, ROOT, eventually

UWSGI = ["--master", "--need-app", "--disable-logging", "--gevent", "20"]
if sys.prefix != sys.base_prefix:
    UWSGI += ["--virtualenv", sys.prefix]


@contextmanager
def serving(command: list[str], port: int, folder: Path, path: str = "/") -> Iterator[str]:
    """Start a server in a folder, and return its address once it answers, be it with 404."""
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, "XDG_RUNTIME_DIR": str(folder), "PYTHONPATH": str(ROOT)},
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )

    def answers() -> bool:
        assert process.poll() is None, (folder / "log").read_text()
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    try:
        eventually(answers, f"{command} to answer", interval=0.1)
        yield f"127.0.0.1:{port}"
    finally:
        # How it stops is the matter of other tests.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE)
        print((folder / "log").read_text(errors="replace"))
