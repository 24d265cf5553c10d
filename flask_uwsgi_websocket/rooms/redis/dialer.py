"""How a server is reached: where it is now, and how to log in."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio.connection import (
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
)
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError, ResponseError

from ...helpers.waiting import within
from ..backplane import BackplaneOptions
from .errors import Lost, NoMaster, NotAnswering, explain
from .link import Command, Link, Pushes, hang_up
from .url import Address, Kind, Login, RedisURL

#: Seconds that a sentinel has, before the next one is asked.
_SENTINEL_TIMEOUT = 0.5

_FAILURES = (RedisError, OSError, Lost, NotAnswering, asyncio.TimeoutError)


class Dialer:
    """Opens connections to the server that a URL means."""

    def __init__(self, url: RedisURL, options: BackplaneOptions) -> None:
        self.url = url
        # Less than a caller has, who is then told the reason.
        self._timeout = options.timeout * 0.8
        self._name = f"{options.prefix}:{options.worker}".translate({ord(" "): "-", ord("\n"): "-"})
        self._sentinels = list(url.addresses)

    async def dial(self, pushes: Pushes) -> Link:
        """Open a connection to the server: behind sentinels to who is the master now."""
        if self.url.kind is not Kind.SENTINEL:
            return await self.open(self.url.addresses[0], pushes)
        address = await self._master()
        link = await self.open(address, pushes)
        async with _closed_unless_well(link):
            await self._check_master(link, address)
        return link

    async def open(self, address: Address, pushes: Pushes) -> Link:
        """Open a connection to an address; raises what explain() knows to explain."""
        link = await self._open(address, self.url.login, self.url.db, pushes, self._timeout)
        async with _closed_unless_well(link):
            # Shows in CLIENT LIST whose it is; an ACL may forbid to say so.
            await within(self._timeout, link.call([(b"CLIENT", b"SETNAME", self._name)]))
        return link

    async def _open(
        self, address: Address, login: Login, db: int, pushes: Pushes, timeout: float
    ) -> Link:
        connection = self._connection(address, login, db)
        try:
            await within(timeout, connection.connect())
        except BaseException as error:
            await hang_up(connection)
            if isinstance(error, asyncio.TimeoutError):
                raise NotAnswering(self.url.tls is not None) from None
            raise
        return Link(connection, pushes)

    def _connection(self, address: Address, login: Login, db: int) -> Any:
        arguments: dict[str, Any] = {
            "db": db,
            "username": login.username,
            "password": login.password,
            "protocol": self.url.protocol,
            # We wait and retry ourselves: a PUBLISH that is repeated would be doubled.
            "retry": Retry(NoBackoff(), 0),
            "socket_timeout": None,
            "health_check_interval": 0,
        }
        if not address.port:
            return UnixDomainSocketConnection(path=address.host, **arguments)
        arguments |= {"host": address.host, "port": address.port}
        if self.url.tls is None:
            return Connection(**arguments)
        verify = self.url.tls.get("verify", "full")
        return SSLConnection(
            ssl_ca_certs=self.url.tls.get("ca"),
            ssl_certfile=self.url.tls.get("cert"),
            ssl_keyfile=self.url.tls.get("key"),
            ssl_cert_reqs="none" if verify == "none" else "required",
            ssl_check_hostname=verify == "full",
            **arguments,
        )

    async def _master(self) -> Address:
        """Ask the sentinels, the one that answered last first."""
        reasons = []
        for sentinel in list(self._sentinels):
            try:
                address = await within(_SENTINEL_TIMEOUT, self._ask(sentinel))
            except (*_FAILURES, NoMaster) as error:
                reasons.append(f"{sentinel}: {explain(error)}")
                continue
            self._sentinels.remove(sentinel)
            self._sentinels.insert(0, sentinel)
            return address
        raise NoMaster(f"no sentinel says where the master is; {'; '.join(reasons)}")

    async def _ask(self, sentinel: Address) -> Address:
        command = (b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", self.url.master)
        reply = await self._call_sentinel(sentinel, command)
        if reply is None:
            raise NoMaster(f"it watches no master of the name {self.url.master}")
        return Address(reply[0].decode(), int(reply[1]))

    async def _call_sentinel(self, sentinel: Address, command: Command) -> Any:
        link = await self._open(sentinel, self.url.sentinel_login, 0, Pushes(), _SENTINEL_TIMEOUT)
        try:
            [reply] = await link.call([command])
        finally:
            await link.close()
        if isinstance(reply, ResponseError):
            raise reply
        return reply

    async def check_sentinels(self) -> list[str]:
        """Return what there is to say of each sentinel that a URL names."""
        command = (b"SENTINEL", b"CKQUORUM", self.url.master)
        findings = []
        for sentinel in self.url.addresses:
            try:
                call = self._call_sentinel(sentinel, command)
                reply = (await within(_SENTINEL_TIMEOUT, call)).decode()
            except _FAILURES as error:
                reply = explain(error)
            findings.append(f"sentinel {sentinel}: {reply}")
        return findings

    async def _check_master(self, link: Link, address: Address) -> None:
        """Refuse a replica: what is published there reaches its own subscribers only."""
        [role] = await within(self._timeout, link.call([(b"ROLE",)]))
        if isinstance(role, list) and role[0] != b"master":
            raise NoMaster(f"the sentinels name {address}, which is no master at the moment")


@asynccontextmanager
async def _closed_unless_well(link: Link) -> AsyncIterator[None]:
    try:
        yield
    except BaseException:
        await link.close()
        raise
