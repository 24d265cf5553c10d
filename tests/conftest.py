"""Real uWSGI servers for the tests: one of each kind for a session, or one of its own for a test.

A suite takes `server` and runs on every engine. After each test its server must have all its
cores back and nothing to complain of in its log; when a test fails, the log is printed with it.
"""

from __future__ import annotations

import itertools
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadScopeScheduling

from tests.deployments.fronts import make_certificate
from tests.redis_servers import RedisServer
from tests.server import Server

# An example that takes long says how busy the machine is, no more: 200 ms are over soon.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

ENGINES = ("threads", "gevent", "asyncio")

UVLOOP = "asyncio-uvloop"
#: Suites that also run on it: those whose matter is waiting, reading, writing and ending. What
#: the codec, Flask and the handshake do is the same on both loops.
ON_UVLOOP_TOO = {
    "test_backpressure",
    "test_closing",
    "test_concurrency",
    "test_fork",
    "test_heartbeat",
    "test_hostile",
    "test_isolation",
    "test_rooms_delivery_live",
    "test_detaching",
    "test_messages",
    "test_presence_workers",
    "test_rooms_workers",
    "test_cores",
    "test_stop",
}

#: What `-m` takes, by engine.
ENGINE_MARKERS = {
    **{name: (name,) for name in (*ENGINES, "suspend")},
    UVLOOP: ("asyncio", "uvloop"),
    "async": ("suspend",),
}

#: Fixtures that start a server or a browser for one test alone, which takes a second and more.
SLOW_FIXTURES = {"serve", "start", "browser"}

ServerFactory = Callable[..., Server]

# Where it is set, as in many a container, each of some hundred servers would compile the package
# anew, and each of the processes that run the suite all tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A shell ignores it for what it runs in the background, and servers that inherit that never end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    spared = {item for item in items if _engine_of(item) == UVLOOP} - {
        item for item in items if item.path.stem in ON_UVLOOP_TOO
    }
    config.hook.pytest_deselected(items=list(spared))
    items[:] = [item for item in items if item not in spared]
    for item in items:
        _mark(item)
    _order(items)


def _mark(item: pytest.Item) -> None:
    for name in ENGINE_MARKERS.get(_engine_of(item) or "", ()):
        item.add_marker(name)
    own_server = SLOW_FIXTURES.intersection(getattr(item, "fixturenames", ()))
    if own_server or _engine_of(item) == UVLOOP:  # asyncio's own loop stands for both
        item.add_marker("slow")


class Groups(LoadScopeScheduling):
    """Share the suite out to processes (`-n 4`) by what shares servers: a file and an engine, and
    in tests/deployments a front.

    xdist's own groups are of no use: it writes them into ids that pytest 9.2 has made anew.
    """

    def _split_scope(self, nodeid: str) -> str:
        return group_of(nodeid)


def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> Groups:
    return Groups(config, log)


def group_of(nodeid: str) -> str:
    engines = f"{UVLOOP}|{'|'.join(ENGINES)}"
    engine = re.search(rf"(?<=[\[-])(?:{engines})(?::\w+)?(?=[\]-])", nodeid)
    return f"{nodeid.partition('::')[0]} {engine and engine[0]}"


def _order(items: list[pytest.Item]) -> None:
    """Put first what takes longest: the last process ought not to begin with it."""
    group = {item: group_of(item.nodeid) for item in items}
    slow = Counter(group[item] for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: (-_patience(item), -slow[group[item]], group[item]))


def _patience(item: pytest.Item) -> float:
    """Return the seconds that a test asks for beyond the usual ones."""
    marker = item.get_closest_marker("timeout")
    return float(marker.args[0]) if marker else 0


def _engine_of(item: pytest.Item) -> str | None:
    call = getattr(item, "callspec", None)  # of parametrised tests
    engine: str | None = call and call.params.get("engine")
    return engine


@pytest.fixture(params=[*ENGINES, UVLOOP])
def engine(request: pytest.FixtureRequest) -> str:
    """Each engine in turn."""
    engine: str = request.param
    return engine


class Watch:
    """The servers that a test uses, and how they must be when it ends."""

    def __init__(self) -> None:
        self.servers: list[Server] = []
        self._logged: list[int] = []

    def add(self, server: Server) -> Server:
        # What earlier tests left in the log of a shared server is not this test's.
        server.log_complaints()
        self.servers.append(server)
        self._logged.append(len(server.log()))
        return server

    def logs(self) -> str:
        """What the servers have logged since this test began."""
        parts = []
        for server, logged in zip(self.servers, self._logged, strict=True):
            parts.append(f"{server!r}\n{server.log()[logged:][-8000:]}")
            if server.front_log():
                parts.append(f"in front\n{server.front_log()[-2000:]}")
        return "\n".join(parts)

    def check(self) -> None:
        complaints: list[str] = []
        for server in self.servers:
            if server.alive and server.master and not server.stopping:
                server.wait_idle()
            complaints += server.log_complaints()
        assert not complaints, complaints


@pytest.fixture
def watch() -> Iterator[Watch]:
    watch = Watch()
    yield watch
    watch.check()


def assert_end_well(servers: Iterable[Server]) -> None:
    """Stop servers; they must end when asked to, and have nothing to say about it."""
    complaints: dict[str, list[str]] = {}
    for server in servers:
        server.stop()
        if said := server.log_complaints():
            complaints[str(server.log_path)] = said
    assert not complaints, complaints


@pytest.fixture(scope="session")
def shared_servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerFactory]:
    """The session's servers, each started when a test first asks for it."""
    servers: dict[str, Server] = {}

    def get(engine: str, front: str = "http-socket", **kwargs: Any) -> Server:
        key = repr((engine, front, kwargs))
        known = servers.get(key)
        if known is None or not known.alive:
            if known is not None:
                known.stop()
            place = tmp_path_factory.mktemp(f"{engine}-{front}")
            servers[key] = start(Server(place, engine, front, **kwargs))
        return servers[key]

    yield get
    for server in servers.values():
        server.begin_stop()
    assert_end_well(servers.values())


def start(server: Server) -> Server:
    try:
        return server.start()
    except BaseException:
        server.stop()
        print(server.log()[-8000:], server.front_log())
        raise


@pytest.fixture
def shared_server(shared_servers: ServerFactory, watch: Watch) -> ServerFactory:
    """A session server by engine, front and whatever else `Server` takes."""

    def get(engine: str, front: str = "http-socket", **kwargs: Any) -> Server:
        return watch.add(shared_servers(engine, front, **kwargs))

    return get


@pytest.fixture
def server(engine: str, shared_server: ServerFactory) -> Server:
    """The standard app on each engine, straight from uWSGI's socket."""
    return shared_server(engine)


@pytest.fixture(scope="session")
def ending_servers() -> Iterator[list[Server]]:
    """Servers of tests that are over. uWSGI takes a second to end, which nobody need wait for."""
    servers: list[Server] = []
    yield servers
    assert_end_well(servers)


@pytest.fixture
def serve(tmp_path: Path, watch: Watch, ending_servers: list[Server]) -> Iterator[ServerFactory]:
    """Start a server of the test's own: `serve(engine, front, **what Server takes)`."""
    servers: list[Server] = []

    def serve(engine: str, front: str = "http-socket", **kwargs: Any) -> Server:
        server = Server(tmp_path / str(len(servers)), engine, front, **kwargs)
        servers.append(server)
        return watch.add(start(server))

    yield serve
    try:
        watch.check()
    finally:
        for server in servers:
            server.begin_stop()
        # Earlier ones have ended by now, as a rule: none is left running behind the session.
        ending, ending_servers[:] = ending_servers[:], servers
        assert_end_well(ending)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A browser for all tests of a module."""
    from tests.browser import chromium  # which takes a second

    with chromium() as browser:
        yield browser


@pytest.fixture
def start_redis(tmp_path: Path) -> Iterator[Callable[..., RedisServer]]:
    """Starts servers of Redis for the test alone."""
    servers: list[RedisServer] = []

    def start(*mode: str, **options: Any) -> RedisServer:
        servers.append(RedisServer(tmp_path, *mode, **options))
        return servers[-1].start()

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate for localhost, signed by itself, and its key."""
    return make_certificate(tmp_path)


_serial = itertools.count()


@pytest.fixture
def token(request: pytest.FixtureRequest) -> str:
    """A name that no other test uses, for what the app records."""
    return re.sub(r"\W+", "-", f"{request.node.name}-{next(_serial)}")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Iterator[None]:
    report = yield
    watch = getattr(item, "funcargs", {}).get("watch")
    if report.failed and watch is not None:
        report.sections.append(("uWSGI", watch.logs()))
    return report
