"""Shares: which of the records go to which connections, with as few sends as possible."""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Sequence

from ..connection.connection import Connection
from .envelope import withhold
from .record import KeptRecord, Record

#: Records, in their order, and those who get them all.
Share = tuple[list[Record], list[Connection]]


def by_exclusion(records: list[Record], receivers: list[Connection]) -> list[Share]:
    """Separate those who get all the records from those whom some of them exclude."""
    for record in records:
        if record.exclude:
            break
    else:
        return [(records, receivers)]
    left_out = _left_out(records)
    # An id is made when it is asked for: of those that have none yet nobody can have known it.
    rest = [
        each
        for each in receivers
        if (client := each.client) is None or client.__dict__.get("id") not in left_out
    ]
    shares: list[Share] = [(records, rest)]
    if len(records) > 1 and len(rest) < len(receivers):
        kept = set(rest)
        for connection in receivers:
            if connection not in kept:
                client = connection.client
                some = records.copy()
                for number in reversed(left_out.get(client.id, ()) if client else ()):
                    del some[number]
                if some:
                    shares.append((some, [connection]))
    return shares


def _left_out(records: list[Record]) -> dict[str, list[int]]:
    """Return which of the records exclude an id, by their numbers in the list."""
    left_out: dict[str, list[int]] = {}
    for number, record in enumerate(records):
        for one in dict.fromkeys(record.exclude):
            left_out.setdefault(one, []).append(number)
    return left_out


def merge(shares: Sequence[Share]) -> Sequence[Share]:
    """Give each connection that is in several of the shares one of its own, of all its records.

    Those with the same records share one. In the order of the shares.
    """
    if len(shares) <= 1:
        return shares
    if len({one for _, some in shares for one in some}) == sum(len(some) for _, some in shares):
        return shares
    numbers: dict[Connection, list[int]] = {}
    for number, (_, some) in enumerate(shares):
        for connection in some:
            numbers.setdefault(connection, []).append(number)
    alike: dict[tuple[int, ...], list[Connection]] = {}
    for connection, own in numbers.items():
        alike.setdefault(tuple(own), []).append(connection)
    return [
        ([record for number in own for record in shares[number][0]], some)
        for own, some in alike.items()
    ]


def withheld(
    records: list[Record], receivers: list[Connection], enveloped: Container[Connection]
) -> list[Share]:
    """Return what goes to those who are excluded, and who count the messages of a room."""
    kept = [each for each in records if each.exclude and isinstance(each, KeptRecord)]
    if not kept:
        return []
    ids = {
        client.id: one
        for one in receivers
        if one in enveloped and (client := one.client) is not None  # until it is released
    }
    return [
        ([withhold(record)], [ids[id]])
        for record in kept
        for id in dict.fromkeys(record.exclude)
        if id in ids
    ]


def by_channel(
    records: list[Record],
    receivers: list[Connection],
    members: Callable[[str], Collection[Connection]],
) -> list[tuple[tuple[str, ...], list[Connection]]]:
    """Group those who get the records by the channels that they get them by: the first they are in.

    :return: such a channel for each of the records, and those connections.
    """
    if all(len(record.channels) == 1 for record in records):
        return [(tuple([record.channels[0] for record in records]), receivers)]
    alike: dict[tuple[str, ...], list[Connection]] = {}
    for connection in receivers:
        own = [[one for one in each.channels if connection in members(one)] for each in records]
        channels = [(some or each.channels)[0] for some, each in zip(own, records, strict=True)]
        alike.setdefault(tuple(channels), []).append(connection)
    return list(alike.items())


def by_type(
    records: list[Record], receivers: list[Connection]
) -> list[tuple[bool, list[Connection]]]:
    """Separate the clients for which bytes are text, where there are any."""
    for record in records:
        if not record.text:
            break
    else:
        return [(False, receivers)]
    as_text = [each for each in receivers if getattr(each.client, "_bytes_are_text", False)]
    if not as_text:
        return [(False, receivers)]
    others = dict.fromkeys(as_text)
    return [(True, as_text), (False, [each for each in receivers if each not in others])]
