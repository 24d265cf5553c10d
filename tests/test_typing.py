"""`mypy --strict` on an app that uses the package, and on mistakes that it must see."""

from __future__ import annotations

from pathlib import Path

import pytest
from mypy import api

APP = Path(__file__).parent / "typing" / "app.py"

MISTAKES = """
from flask_uwsgi_websocket import AsyncioWebSocketClient, GeventWebSocket, GeventWebSocketClient

def blocking(ws: GeventWebSocketClient) -> None:
    ws.send(1)
    ws.recieve()

async def forgotten(ws: AsyncioWebSocketClient) -> str:
    ws.send_json({})
    return ws.receive()
"""


def mypy(path: Path) -> tuple[str, int]:
    output, _, status = api.run(
        ["--strict", "--no-incremental", "--follow-imports=silent", "--config-file=", str(path)]
    )
    return output, status


@pytest.mark.slow
def test_an_app() -> None:
    assert mypy(APP) == ("Success: no issues found in 1 source file\n", 0)


@pytest.mark.slow
def test_mistakes(tmp_path: Path) -> None:
    (tmp_path / "mistakes.py").write_text(MISTAKES)
    output, status = mypy(tmp_path / "mistakes.py")
    assert status == 1
    assert output.count("error:") == 4, output
    assert '"recieve"' in output
