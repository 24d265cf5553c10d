"""The tests that every backplane passes, ours and those of third parties.

::

    from flask_uwsgi_websocket.testing import BackplaneConformance

    class TestCarrierPigeon(BackplaneConformance):
        url = "pigeon://loft"
        features = CarrierPigeonBackplane.features

        @pytest.fixture(autouse=True)
        def server(self):
            self.loft = Loft()
            yield
            self.loft.close()

        def fail(self):
            self.loft.close()

        def recover(self):
            self.loft = Loft()

They need pytest, but no plugin of it: each test runs a loop of its own. Those about a fault that a
subclass cannot make, or a feature that it does not name, are not collected.
"""

from __future__ import annotations

from collections.abc import Awaitable

from ..backplane import Backplane, BackplaneOptions, Feature
from ..backplanes import make_backplane
from .faults import Faults
from .logs import Logs
from .names import Names
from .presences import Presences
from .promises import Promises


class BackplaneConformance(Promises, Names, Logs, Presences, Faults):
    """What a backplane promises, as a pytest class; a subclass says how to make one.

    :cvar url: of the backplane under test.
    :cvar timeout: seconds that :class:`BackplaneOptions` gives it.
    :cvar patience: seconds within which what must come comes.
    :cvar instance: of :class:`BackplaneOptions`.
    :cvar features: those of :class:`.Backplane` that it has.
    """

    url: str
    timeout: float = 1.0
    patience: float = 10.0
    instance: tuple[int, int] | None = None
    features: frozenset[Feature] = frozenset()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        own = {name for name in FAULTS if getattr(cls, name) is not FAULTS[name]}
        for name in dir(BackplaneConformance):
            test = getattr(BackplaneConformance, name)
            faults: frozenset[str] = getattr(test, "faults", frozenset())
            features: frozenset[Feature] = getattr(test, "features", frozenset())
            if not (faults <= own and features <= cls.features):
                setattr(cls, name, None)
            elif (faults or features) and getattr(cls, name) is None:
                setattr(cls, name, test)

    def backplane(self, options: BackplaneOptions) -> Backplane:
        """Make a backplane of the kind that is tested: by default, the one that ``url`` names."""
        return make_backplane(self.url, options)

    def fail(self) -> Awaitable[None] | None:
        """End the server, so that nobody can connect to it. Like the following, may be async."""
        raise NotImplementedError

    def pause(self) -> Awaitable[None] | None:
        """Have the server answer nothing any more, while its connections stay open."""
        raise NotImplementedError

    def lose(self) -> Awaitable[None] | None:
        """Cut the connections that the server has, while it accepts new ones."""
        raise NotImplementedError

    def recover(self) -> Awaitable[None] | None:
        """Undo :meth:`fail` and :meth:`pause`."""
        raise NotImplementedError


FAULTS = {
    name: getattr(BackplaneConformance, name) for name in ("fail", "pause", "lose", "recover")
}
