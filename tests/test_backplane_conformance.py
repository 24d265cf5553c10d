"""All backplanes keep their promises, and the tests of that notice one that does not."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from flask_uwsgi_websocket.exceptions import BackplaneUnavailable
from flask_uwsgi_websocket.rooms.backplane import Backplane, BackplaneOptions
from flask_uwsgi_websocket.testing import BackplaneConformance
from tests import sample_backplane
from tests.sample_backplane import Loft, PigeonBackplane
from tests.wrong_backplanes import WRONG

URL = "pigeon://loft"


class PigeonSuite(BackplaneConformance):
    """With all faults; ``kind`` may be a wrong one."""

    url = URL
    timeout = 0.3
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
