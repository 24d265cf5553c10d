"""The mesh keeps what every backplane promises."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from flask_uwsgi_websocket.process.server_process import started_at
from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions
from flask_uwsgi_websocket.rooms.local.mesh import LocalBackplane
from flask_uwsgi_websocket.testing import BackplaneConformance

pytestmark = pytest.mark.slow


class TestPlace(BackplaneConformance):
    """In a directory that somebody has named; its fault is that something else is in its place."""

    features = LocalBackplane.features

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.path = tmp_path / "rooms"
        self.url = f"local://{self.path}"

    def backplane(self, options: BackplaneOptions) -> Backplane:
        return LocalBackplane(self.url, options)

    def fail(self) -> None:
        shutil.rmtree(self.path, ignore_errors=True)
        self.path.touch()

    def recover(self) -> None:
        self.path.unlink()


class TestInstance(BackplaneConformance):
    """In the directory of an instance, of which nothing is left."""

    url = "local://"
    features = LocalBackplane.features
    instance = (os.getpid(), started_at(os.getpid()))

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path, monkeypatch) -> Iterator[None]:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        yield
        assert not list(tmp_path.iterdir())

    def backplane(self, options: BackplaneOptions) -> Backplane:
        return LocalBackplane(self.url, replace(options, ends_for_good=lambda: True))
