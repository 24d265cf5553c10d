"""URLs of Redis: which are right, what is said of those that are wrong, and what is kept silent."""

from __future__ import annotations

import pytest
from redis.crc import key_slot

from flask_uwsgi_websocket.rooms.backplane import BackplaneOptions
from flask_uwsgi_websocket.rooms.backplanes import make_backplane
from flask_uwsgi_websocket.rooms.redis.backplane import RedisBackplane
from flask_uwsgi_websocket.rooms.redis.dialer import Dialer
from flask_uwsgi_websocket.rooms.redis.url import SCHEMES, Address, Kind, Login, parse

OPTIONS = BackplaneOptions("shop", "worker")


@pytest.mark.parametrize(
    ("url", "addresses", "db"),
    [
        ("redis://", [("localhost", 6379)], 0),
        ("redis://cache", [("cache", 6379)], 0),
        ("redis://cache:7000/", [("cache", 7000)], 0),
        ("redis://10.0.0.1:7000/3", [("10.0.0.1", 7000)], 3),
        ("redis://[::1]:7000/3", [("::1", 7000)], 3),
        ("redis://[::1]", [("::1", 6379)], 0),
        ("redis://cache?db=4", [("cache", 6379)], 4),
        ("valkey://cache", [("cache", 6379)], 0),
        ("unix:///run/redis.sock", [("/run/redis.sock", 0)], 0),
        ("unix:///run/my%20redis.sock?db=2", [("/run/my redis.sock", 0)], 2),
        ("redis+sentinel://a,b:7001/main", [("a", 26379), ("b", 7001)], 0),
        ("redis+sentinel://a/main/5", [("a", 26379)], 5),
        ("redis+cluster://a,[::2]:7001", [("a", 6379), ("::2", 7001)], 0),
    ],
)
def test_where_a_server_is(url: str, addresses: list[tuple[str, int]], db: int) -> None:
    parsed = parse(url)
    assert parsed.addresses == tuple(Address(*address) for address in addresses)
    assert parsed.db == db
    assert parsed.tls is None


@pytest.mark.parametrize(
    ("url", "username", "password"),
    [
        ("redis://a", None, None),
        ("redis://:p%40s%2Fs@a", None, "p@s/s"),
        ("redis://us%3Aer:p:w@a:1/0", "us:er", "p:w"),
        ("unix://:pw@/run/redis.sock", None, "pw"),
        ("redis+sentinel://u:pw@a,b/main", "u", "pw"),
        ("valkeys+cluster://u:pw@a,b", "u", "pw"),
    ],
)
def test_a_login(url: str, username: str | None, password: str | None) -> None:
    assert parse(url).login == Login(username, password)


def test_each_scheme_is_a_backplane() -> None:
    for scheme in sorted(SCHEMES):
        where = "/run/redis.sock" if scheme == "unix" else "host/main"
        url = f"{scheme}://{where if 'cluster' not in scheme else 'host'}"
        if scheme in ("redis", "rediss", "valkey", "valkeys"):
            url = f"{scheme}://host/1"
        assert isinstance(make_backplane(url, OPTIONS), RedisBackplane)
        assert (parse(url).tls is not None) == ("ss" in scheme or "ys" in scheme)


def test_options() -> None:
    url = parse("rediss+sentinel://a/main?ca=/ca&cert=/c&key=/k&verify=ca&protocol=3")
    assert (url.kind, url.master, url.protocol) == (Kind.SENTINEL, "main", 3)
    assert url.tls == {"ca": "/ca", "cert": "/c", "key": "/k", "verify": "ca"}
    url = parse("redis+sentinel://a/main?sentinel_username=u&sentinel_password=p%20w")
    assert (url.sentinel_login, url.login) == (Login("u", "p w"), Login())


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("", "right is redis://"),
        ("localhost:6379", "right is redis://"),
        ("http://localhost", "right is redis://"),
        ("redis://a:pörtchen", "port is no number"),
        ("redis://a:0", "port is no number"),
        ("redis://a:70000", "port is no number"),
        ("redis://a,b", "redis+cluster://host,host"),
        ("redis://a/zero", "the number of a database, as /0"),
        ("redis://a/1?db=2", "the number of a database, as /0"),
        ("redis://a/-1", "the number of a database, as /0"),
        ("redis://secret@a", "user:password@ or :password@"),
        ("redis://@a", "user:password@ or :password@"),
        ("redis://:sec/ret@a", "write / as %2F"),
        ("redis://:sec#ret@a", "# as %23"),
        ("redis://:sec?ret@a", "? as %3F"),
        ("redis://:sec@ret@a", "@ as %40"),
        ("redis://:sec[ret@a", "write / as %2F"),
        ("redis://:secret\u2100@a", "write / as %2F"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix://", "three slashes"),
        ("redis+sentinel://a", "names the master"),
        ("redis+sentinel://a/main/x", "the number of a database"),
        ("redis+cluster://a/1", "has one database only"),
        ("redis://a?ca=/ca", "begin with rediss://"),
        ("rediss://a?ssl_ca_certs=/ca", "ca: the file of the authority"),
        ("redis://a?password=secret", "protocol: 2 or 3"),
        ("redis://a?protocol=4", "2 or 3"),
        ("rediss://a?verify=maybe", "full, ca or none"),
        ("redis://a?sentinel_password=secret", "an option that is none"),
    ],
)
def test_a_wrong_url_is_told_without_its_password(url: str, said: str) -> None:
    with pytest.raises(ValueError) as told:  # noqa: PT011
        parse(url)
    error: BaseException | None = told.value
    assert said in str(error)
    while error is not None and not error.__suppress_context__:
        assert not any(part in str(error) for part in ("secret", "sec/", "ret@"))
        error = error.__context__


def test_a_url_without_a_scheme_is_not_quoted() -> None:
    with pytest.raises(ValueError, match="one begins with") as told:
        make_backplane("redis:/:secret@host", OPTIONS)
    assert "secret" not in str(told.value)


def test_a_password_is_nowhere_to_be_seen() -> None:
    url = "rediss+sentinel://user:secret@a,b/main?sentinel_password=secret2&ca=/ca"
    backplane = make_backplane(url, OPTIONS)
    dialer = Dialer(parse(url), OPTIONS)
    connection = dialer._connection(Address("a", 1), parse(url).login, 0)
    for thing in (backplane, parse(url), parse(url).login, vars(parse(url)), connection):
        assert "secret" not in f"{thing!s} {thing!r}", thing
    assert backplane.url == "rediss+sentinel://a:26379,b:26379/main"


@pytest.mark.parametrize("prefix", ["{}", "shop{}", "a{}{b}"])
def test_a_prefix_that_takes_a_room_apart_in_a_cluster_is_refused(prefix: str) -> None:
    options = BackplaneOptions(prefix, "worker")
    with pytest.raises(ValueError, match="choose one without braces"):
        make_backplane("redis+cluster://a", options)
    make_backplane("redis://a", options)


@pytest.mark.parametrize("prefix", ["shop", "{a}{}", "a{", "a}{b", "{a}"])
def test_names_of_one_room_have_one_slot(prefix: str) -> None:
    backplane = make_backplane("redis+cluster://a", BackplaneOptions(prefix, "worker"))
    assert isinstance(backplane, RedisBackplane)
    name = backplane._name("room:a")
    assert key_slot(name) == key_slot(name + b":log") == key_slot(name + b":key:b")
