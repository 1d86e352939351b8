"""Reading a canister's log for the command line: since when, from which line, traps alone, following it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime

from cannery.cli.output import format_time
from cannery.cli.problem import Problem
from cannery.replica.management import types as mt

INDEX_MAX = 2**64 - 1
_NS_PER_S = 1_000_000_000
_UNITS_S = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
_AGO = re.compile(r"(\d{1,9})([smhd])")

Fetch = Callable[[mt.LogFilter], list[mt.LogRecord]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which lines: not before a time, not before a number, traps alone or all."""

    since_ns: int = 0
    first: int = 0
    traps_only: bool = False

    def filter(self) -> mt.LogFilter:
        """Give what the node is asked for; `picks` sees to the rest."""
        if self.first or not self.since_ns:
            return mt.LogFilter.by_idx(mt.LogRange(self.first, INDEX_MAX))
        return mt.LogFilter.by_timestamp_nanos(mt.LogRange(self.since_ns, INDEX_MAX))

    def picks(self, line: mt.LogRecord) -> bool:
        """Say whether a line is wanted."""
        is_old = line.timestamp_nanos < self.since_ns or line.idx < self.first
        return not is_old and (line.is_trap or not self.traps_only)


def read_since(text: str, now_ns: int) -> int:
    """Read `10m`, `2h`, `3d` (ago), or a time such as `2026-01-31T08:00:00Z`, as nanoseconds since 1970."""
    ago = _AGO.fullmatch(text)
    if ago is not None:
        return max(0, now_ns - int(ago[1]) * _UNITS_S[ago[2]] * _NS_PER_S)
    try:
        found = datetime.fromisoformat(text)
        with_zone = found if found.tzinfo is not None else found.replace(tzinfo=UTC)
        return min(max(0, round(with_zone.timestamp())) * _NS_PER_S, INDEX_MAX)
    except (ValueError, OverflowError):
        raise Problem(
            f"{text!r} is no time: say how long ago (90s, 10m, 2h, 3d) or when (2026-01-31T08:00:00Z)"
        ) from None


def read_lines(fetch: Fetch, wanted: Wanted) -> list[mt.LogRecord]:
    """Give the lines that are there."""
    return [line for line in fetch(wanted.filter()) if wanted.picks(line)]


def follow_lines(fetch: Fetch, wanted: Wanted, pause: Callable[[], None]) -> Iterator[mt.LogRecord]:
    """Give the lines that are there, then each new one, for ever; `pause` waits between two looks."""
    while True:
        lines = fetch(wanted.filter())
        yield from (line for line in lines if wanted.picks(line))
        if lines:
            wanted = Wanted(wanted.since_ns, lines[-1].idx + 1, wanted.traps_only)
        pause()


def show_line(line: mt.LogRecord) -> str:
    """Give a line for people: number, time, a mark for a trap, text."""
    mark = "TRAP " if line.is_trap else ""
    text = line.content.decode("utf-8", "replace")
    return f"{line.idx:>6}  {format_time(line.timestamp_nanos)}  {mark}{text}"


def line_fields(line: mt.LogRecord) -> dict[str, object]:
    """Give a line for programs."""
    return {
        "index": line.idx,
        "time_ns": line.timestamp_nanos,
        "is_trap": line.is_trap,
        "text": line.content.decode("utf-8", "replace"),
    }


def show_lines(lines: Iterable[mt.LogRecord]) -> list[str]:
    """Give lines for people."""
    return [show_line(line) for line in lines]
