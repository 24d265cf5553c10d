"""What an operator should know of a server: for ``flask websocket doctor``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from .deployment import Deployment
from .dialer import Dialer
from .errors import explain
from .url import Kind

_COMMANDS = [
    (b"INFO", b"server"),
    (b"INFO", b"memory"),
    (b"INFO", b"replication"),
    (b"CONFIG", b"GET", b"client-output-buffer-limit"),
    (b"INFO", b"cluster"),
    (b"CLUSTER", b"INFO"),
    (b"EVAL", b"return #redis.call('INFO', 'replication')", b"0"),
]
#: The part of maxmemory above which it may soon be full.
_NEARLY = 0.9
#: The first version that rooms work with: of one server, and of those of a cluster.
_VERSION, _CLUSTER_VERSION = (6, 2), (7, 0)
#: Below this, a worker that is busy for a moment is cut off by a burst of messages.
_LEAST_BUFFER = 8 << 20


async def check(deployment: Deployment, dialer: Dialer) -> list[str]:
    """Return what there is to say of all servers; never raises."""
    findings: list[str] = []
    try:
        if dialer.url.kind is Kind.SENTINEL:
            findings += await dialer.check_sentinels()
        replies = await deployment.ask(_COMMANDS)
    except Exception as error:
        return [*findings, f"{dialer.url}: {explain(error)}"]
    for name, answers in replies.items():
        findings += [
            f"{name}: {text}" for text in _check_server(answers, dialer.url.kind is Kind.CLUSTER)
        ]
    return findings


def _check_server(answers: list[Any], cluster: bool) -> Iterator[str]:
    if isinstance(answers[0], BaseException):
        yield explain(answers[0])
        return
    server, memory, replication = (_facts(answer) for answer in answers[:3])
    yield from _check_version(server, cluster)
    yield from _check_role(replication, cluster)
    yield from _check_memory(memory)
    yield from _check_buffer(answers[3])
    if isinstance(answers[6], BaseException):
        yield f"rooms cannot keep messages, nor tell who is there: {explain(answers[6])}"
    yield from _check_cluster(_facts(answers[4]), answers[5], cluster)


def _check_version(server: dict[str, str], cluster: bool) -> Iterator[str]:
    valkey = server.get("valkey_version")
    version = server.get("redis_version", "0")
    yield f"Valkey {valkey}" if valkey else f"Redis {version}"
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    least = _CLUSTER_VERSION if cluster else _VERSION
    if numbers < least and not valkey:
        yield f"too old: {'in a cluster ' if cluster else ''}rooms need Redis {least[0]}.{least[1]}"


def _check_role(replication: dict[str, str], cluster: bool) -> Iterator[str]:
    if replication.get("role") == "slave":
        yield (
            f"a replica of {replication.get('master_host')}:{replication.get('master_port')}: what "
            "is published here reaches nobody who subscribes there; name the master"
        )
    elif not cluster:
        replicas = replication.get("connected_slaves", "0")
        yield f"a master with {replicas} replica{'s' * (replicas != '1')}"


def _check_memory(memory: dict[str, str]) -> Iterator[str]:
    policy = memory.get("maxmemory_policy", "")
    if policy.startswith("allkeys-"):
        yield (
            f"maxmemory-policy is {policy}: messages pass all the same, but what rooms keep may be "
            "evicted, and who is in them, at any time; take volatile-ttl, or noeviction"
        )
    used, most = (int(memory.get(name, 0)) for name in ("used_memory", "maxmemory"))
    if most and used > _NEARLY * most:
        yield (
            f"{used / most:.0%} of maxmemory is in use: when it is full, kept rooms take no "
            "messages; raise it, or have them keep less"
        )


def _check_buffer(answer: Any) -> Iterator[str]:
    if isinstance(answer, BaseException):
        yield "CONFIG GET is not allowed here, so client-output-buffer-limit pubsub is not known"
        return
    value = answer.values() if isinstance(answer, dict) else answer[1:]
    words = b" ".join(value).decode().split()
    if "pubsub" not in words:
        return
    hard, soft, seconds = (int(word) for word in words[words.index("pubsub") + 1 :][:3])
    if 0 < hard < _LEAST_BUFFER or 0 < soft < _LEAST_BUFFER // 8:
        yield (
            f"client-output-buffer-limit pubsub is {hard} {soft} {seconds}: a worker that is busy "
            "for a moment is cut off, and misses messages; the default is 32mb 8mb 60"
        )


def _check_cluster(facts: dict[str, str], answer: Any, cluster: bool) -> Iterator[str]:
    if facts.get("cluster_enabled") != "1":
        if cluster:
            yield "not a cluster: its URL begins with redis://"
        return
    if not cluster:
        yield (
            "a node of a cluster: each message goes to all nodes, and none takes over when this "
            "one fails; a URL with redis+cluster:// does better"
        )
    if not isinstance(answer, BaseException):
        state = _facts(answer)
        if state.get("cluster_state") != "ok":
            yield f"the cluster is {state.get('cluster_state')}: see redis-cli --cluster check"


def _facts(answer: Any) -> dict[str, str]:
    """Return what INFO says; nothing where it may not be asked."""
    if not isinstance(answer, bytes):
        return {}
    lines = (line.partition(":") for line in answer.decode(errors="replace").splitlines())
    return {name: value for name, colon, value in lines if colon}
