"""A run as text: tables that are reStructuredText as well."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from benchmarks import bars
from benchmarks.peers import BY_NAME, OURS
from benchmarks.results import Results
from benchmarks.works import GROWTH, MEMORY, WORKS, Work

NONE = "-"


def number(value: float | None, digits: int = 3) -> str:
    """With so many digits that mean something."""
    if value is None:
        return NONE
    if abs(value) >= 10 ** (digits - 1):
        return f"{value:,.0f}"
    return f"{value:.{digits}g}" if abs(value) < 1 else f"{value:#.{digits}g}".rstrip(".")


def heading(text: str) -> list[str]:
    return [text, "~" * len(text), ""]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A simple table; numbers stand on the right."""
    lines = [list(header), *map(list, rows)]
    columns = list(zip(*lines, strict=True))
    widths = [max(map(len, column)) for column in columns]
    numeric = [any(cell[:1].isdigit() for cell in column[1:]) for column in columns]
    numeric[0] = False
    rule = "  ".join("=" * width for width in widths)
    printed = [
        "  ".join(
            cell.rjust(width) if right else cell.ljust(width)
            for cell, width, right in zip(line, widths, numeric, strict=True)
        ).rstrip()
        for line in lines
    ]
    return [rule, printed[0], rule, *printed[1:], rule, ""]


def report(results: Results) -> Iterator[str]:
    """All of it."""
    yield from bars_table(results)
    for work in WORKS:
        if work not in GROWTH and work.action != "memory":
            yield from work_table(results, work)
    yield from cpu_table(results)
    yield from memory_table(results)
    yield from growth_table(results)
    yield from failures(results)
    yield from left_out(results)
    yield from surroundings(results)


def bars_table(results: Results, chosen: tuple[bars.Bar, ...] = bars.BARS) -> Iterator[str]:
    yield from heading("Bars")
    yield "The ratio of ours to the other's, of messages, time or memory as the work has it."
    yield ""
    rows, unknown = [], 0
    for verdict in bars.judge(results, chosen):
        bar = verdict.bar
        if verdict.measured is None and not verdict.failed:
            unknown += 1
            continue
        limit = f"at {'most' if bar.less else 'least'} {bar.limit:g}"
        measured = NONE if verdict.measured is None else f"{verdict.measured:.2f}"
        rows.append(
            (bar.label, *map(bars.label, (bar.ours, verdict.peer)), limit, measured, verdict.word)
        )
    yield from table(("Work", "Ours", "against", "needed", "measured", "verdict"), rows)
    if unknown:
        yield f"Not measured in this run: {unknown} of {len(chosen)} bars."
        yield ""


def work_table(results: Results, work: Work) -> Iterator[str]:
    measured = results.measured(work.name)
    failed = [peer for peer in results.peers if results.failed(work.name, peer)]
    if not measured and not failed:
        return

    def value(peer: str) -> float:
        return results.median(work.name, peer, work.figure) or 0.0

    yield from heading(work.label[0].upper() + work.label[1:])
    extras = {"latency": ["99 % within, µs"], "ticks": ["half have it, ms"]}.get(work.action, [])
    rows = []
    for peer in sorted(measured, key=value, reverse=not work.less):
        figures = {
            name: results.median(work.name, peer, name)
            for name in (
                "p50_us",
                "p99_us",
                "half_ms",
                "cpu_us",
            )
        }
        extra = {"latency": "p99_us", "ticks": "half_ms"}.get(work.action)
        rows.append(
            (
                BY_NAME[peer].label + (" (failed later)" if peer in failed else ""),
                number(value(peer) * work.scale),
                *([number(figures[extra])] if extra else []),
                _against(results, work, peer),
                number(figures["cpu_us"]),
                _of_limit(results, work, figures["cpu_us"]),
                *shares(results, work, peer),
            )
        )
    for peer in failed:
        if peer not in measured:
            rows.append((BY_NAME[peer].label, "FAILED", *[NONE] * (6 + bool(extras))))
    each = {"connect": "connection", "fan-out": "delivery"}.get(work.action, "message")
    header = (
        *("Server", work.unit, *extras, "ours / theirs"),
        *(f"CPU µs for a {each}", "of C's", "server CPU", "client CPU", "others"),
    )
    yield from table(header, rows)
    yield from warnings(results, work, measured)


def warnings(results: Results, work: Work, measured: Sequence[str]) -> Iterator[str]:
    """What the marks mean, where there are any."""
    if any(results.is_busy(work.name, peer) for peer in measured):
        yield "!: the client was at its limit, the server may be able to do more."
        yield ""
    if any(results.is_disturbed(work.name, peer) for peer in measured):
        yield "?: other processes of the machine took a good part of it, trust the CPU time more."
        yield ""


def _against(results: Results, work: Work, peer: str) -> str:
    """Ours of the same kind against a peer."""
    ours = "ours-gevent" if work.peers else OURS[BY_NAME[peer].kind]
    if ours == peer:
        return ""
    ratio = results.ratio(work.name, work.figure, ours, peer)
    return NONE if ratio is None else f"{ratio:.2f}"


def _of_limit(results: Results, work: Work, cpu: float | None) -> str:
    """CPU time as a multiple of what the loop in C takes."""
    limit = results.median(work.name, "c", "cpu_us")
    return NONE if not limit or cpu is None else f"{cpu / limit:.1f}"


def share(value: float | None) -> str:
    return NONE if value is None else f"{value:.0%}".replace("%", " %")


def shares(results: Results, work: Work, peer: str) -> tuple[str, str, str]:
    """What server, client and the rest of the machine took of a core, with marks."""
    server, client, other = (
        share(results.median(work.name, peer, f"{who}_cpu"))
        for who in ("server", "client", "other")
    )
    busy = " !" if results.is_busy(work.name, peer) else ""
    disturbed = " ?" if results.is_disturbed(work.name, peer) else ""
    return server, client + busy, other + disturbed


def cpu_table(results: Results) -> Iterator[str]:
    """Server CPU for each 10,000 messages."""
    columns = {
        "echo-32": "32 B",
        "pipelined": "32 B x 16",
        "echo-4k": "4 KiB",
        "deflate": "4 KiB deflated",
        "echo-256k": "256 KiB",
        "echo-1m": "1 MiB",
    }
    yield from matrix(
        results,
        "Server CPU for 10,000 messages, in ms",
        [(label, name, "cpu_us", 10.0) for name, label in columns.items()],
    )


def memory_table(results: Results) -> Iterator[str]:
    yield from matrix(
        results,
        "Memory of the server for each idle connection, in KiB",
        [(f"{work.connections:,}", work.name, "bytes", work.scale) for work in MEMORY],
    )


def growth_table(results: Results) -> Iterator[str]:
    yield from matrix(
        results,
        "CPU µs for a message of 32 B, by the number of connections",
        [(f"{work.connections:,}", work.name, "cpu_us", 1.0) for work in GROWTH],
    )


def matrix(
    results: Results,
    title: str,
    columns: Sequence[tuple[str, str, str, float]],
    less: bool = True,
) -> Iterator[str]:
    """Peers by columns of label, work, figure and scale, the best first."""
    rows = {}
    for peer in results.peers:
        values = [
            (value * scale if value is not None else None)
            for value, scale in (
                (results.median(work, peer, figure), scale) for _, work, figure, scale in columns
            )
        ]
        if any(value is not None for value in values):
            rows[peer] = values
    if not rows:
        return
    yield from heading(title)
    worst = float("inf") if less else 0.0
    order = sorted(
        rows, key=lambda peer: [value or worst for value in rows[peer]], reverse=not less
    )
    yield from table(
        ("Server", *(label for label, *_ in columns)),
        [(bars.label(peer), *map(number, rows[peer])) for peer in order],
    )


def failures(results: Results) -> Iterator[str]:
    if not results.failures:
        return
    yield from heading("Failures")
    for each in results.failures:
        yield (
            f"{bars.label(each['peer'])}, {bars.WORKS[each['work']].label}, "
            f"round {each['round']}: {each['reason']}"
        )
        if each["log"]:
            yield from ["", "::", "", *(f"    {line}" for line in each["log"].splitlines())]
        yield ""


def left_out(results: Results) -> Iterator[str]:
    if not results.missing and not results.skipped:
        return
    yield from heading("Left out")
    for peer, reason in results.missing.items():
        stands_in = bars.STAND_INS.get(peer)
        instead = f"; {bars.label(stands_in)}, stands in for it" if stands_in else ""
        yield f"- {bars.label(peer)}: {reason}{instead}"
    reasons: dict[tuple[str, str], list[str]] = {}
    for each in results.skipped:
        reasons.setdefault((each["work"], each["reason"]), []).append(each["peer"])
    for (work, reason), names in reasons.items():
        labels = "; ".join(bars.label(name) for name in names)
        yield f"- {bars.WORKS[work].label}: {labels}: {reason}"
    yield ""


def surroundings(results: Results) -> Iterator[str]:
    yield from heading("Machine and versions")
    settings = results.settings
    yield (
        f"Rounds: {settings['rounds']}, of {settings['seconds']:g} s for each measurement"
        + (", interrupted" if settings.get("interrupted") else "")
        + "."
    )
    yield ""
    yield from table(
        ("Machine", "Value"), [(name, str(value)) for name, value in results.machine.items()]
    )
    yield from table(
        ("Server", "Versions"),
        [
            (bars.label(name), ", ".join(f"{n} {v}" for n, v in peer["versions"].items()))
            for name, peer in results.peers.items()
        ],
    )
