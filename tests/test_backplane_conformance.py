"""All backplanes keep their promises, and the tests of that notice one that does not."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.process.server_process import started_at
from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions
from flask_uwsgi_websocket.rooms.backplanes import GROUP
from flask_uwsgi_websocket.rooms.local.mesh import LocalBackplane
from flask_uwsgi_websocket.rooms.memory import MemoryBackplane, faults_of
from flask_uwsgi_websocket.testing import BackplaneConformance
from tests import sample_backplane
from tests.sample_backplane import Loft, PigeonBackplane
from tests.wrong_backplanes import WRONG as WRONG_BACKPLANES
from tests.wrong_logs import WRONG as WRONG_LOGS
from tests.wrong_presences import WRONG as WRONG_PRESENCES

URL = "pigeon://loft"
WRONG = WRONG_BACKPLANES | WRONG_LOGS | WRONG_PRESENCES


class PigeonSuite(BackplaneConformance):
    """With all faults; ``kind`` may be a wrong one."""

    url = URL
    timeout = 0.3
    features = PigeonBackplane.features
    kind: type[Backplane] = PigeonBackplane

    def backplane(self, options: BackplaneOptions) -> Backplane:
        return self.kind(self.url, options)

    def fail(self) -> None:
        sample_backplane.LOFTS[URL].fail()

    def pause(self) -> None:
        sample_backplane.LOFTS[URL].pause()

    def lose(self) -> None:
        sample_backplane.LOFTS[URL].lose()

    def recover(self) -> None:
        sample_backplane.LOFTS[URL].recover()


@pytest.fixture(autouse=True)
def _loft() -> Iterator[None]:
    sample_backplane.LOFTS[URL] = Loft()
    yield
    sample_backplane.LOFTS.clear()


class TestPigeon(PigeonSuite):
    """A third party's."""


class TestMemory(BackplaneConformance):
    """Of one process; it does not hang, it fails."""

    url = "memory://conformance"
    features = MemoryBackplane.features

    @pytest.fixture(autouse=True)
    def _faults(self) -> None:
        self.faults = faults_of(self.url)

    def fail(self) -> None:
        self.faults.fail()

    def lose(self) -> None:
        self.faults.lose()

    def recover(self) -> None:
        self.faults.recover()


class TestLocal(BackplaneConformance):
    """Of one machine, in a directory that somebody has named."""

    features = LocalBackplane.features

    @pytest.fixture(autouse=True)
    def _directory(self, tmp_path: Path) -> None:
        self.url = f"local://{tmp_path}/rooms"


class TestLocalInstance(BackplaneConformance):
    """Of one machine, in the directory of an instance."""

    url = "local://"
    features = LocalBackplane.features

    @pytest.fixture(autouse=True)
    def _instance(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
        self.instance = os.getpid(), started_at(os.getpid())


class TestFoundByItsScheme(PigeonSuite):
    """A third party's, which a distribution that is installed registers."""

    @pytest.fixture(autouse=True)
    def _distribution(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        info = tmp_path / "pigeons-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            f"[{GROUP}]\npigeon = tests.sample_backplane:PigeonBackplane\n"
        )
        monkeypatch.syspath_prepend(tmp_path)

    backplane = BackplaneConformance.backplane


def test_tests_of_faults_that_cannot_be_made_are_not_collected() -> None:
    assert TestLocal.test_a_dead_server is None
    assert PigeonSuite.test_a_dead_server is not None

    class Mended(TestLocal):
        def fail(self) -> None: ...

        def recover(self) -> None: ...

    assert Mended.test_a_dead_server is PigeonSuite.test_a_dead_server
    assert Mended.test_a_server_that_hangs is None


class _Impatient(PigeonSuite):
    timeout = 0.1
    patience = 0.5


ALL_TESTS = [name for name in dir(PigeonSuite) if name.startswith("test_")]


def test_each_test_has_a_backplane_that_fails_it() -> None:
    assert sorted(WRONG) == ALL_TESTS


@pytest.mark.parametrize(
    ("name", "kind"),
    [pytest.param(name, kind, id=kind.__name__) for name in WRONG for kind in WRONG[name]],
)
def test_a_wrong_backplane_is_noticed(name: str, kind: type[Backplane]) -> None:
    suite = _Impatient()
    suite.kind = kind
    with pytest.raises((AssertionError, TypeError, KeyError, BackplaneUnavailable)) as noticed:
        getattr(suite, name)()
    print(f"{kind.__name__}: {noticed.value!s:.200}")
