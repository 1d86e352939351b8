"""What `cannery fleet top` knows: the children seen so far with their figures, sorted for a frame.

A frame looks at one page of children more, round and round, so that its cost does not grow with the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from cannery.cdk.management import CanisterReport
from cannery.cli.fleet_lines import NS_PER_S, format_span
from cannery.cli.output import format_size
from cannery.cli.problem import Problem
from cannery.fleet.directory_types import Child
from cannery.protocol.principal import Principal

SORTS = ("cycles", "memory", "messages", "active")
HEADINGS = (
    "canister",
    "kind",
    "version",
    "state",
    "cycles",
    "memory",
    "messages",
    "per s",
    "traps",
    "active",
)
NUMBER_COLUMNS = frozenset({"version", "cycles", "memory", "messages", "per s", "traps", "active"})


@dataclass(frozen=True, slots=True)
class Order:
    """By which column rows are sorted; `reverse` turns round what the column has first by itself."""

    column: str
    reverse: bool = False


@dataclass(frozen=True, slots=True)
class Seen:
    """A child with its figures, when they were read, and the messages per second since the look before."""

    child: Child
    figures: CanisterReport
    at_ns: int
    per_s: float | None = None


_KEYS: Mapping[str, Callable[[Seen], int]] = {
    "cycles": lambda seen: seen.figures.cycles,
    "memory": lambda seen: -seen.figures.memory_size,
    "messages": lambda seen: -seen.figures.messages,
    "active": lambda seen: -seen.figures.active_ns,
}


def read_sort(text: str) -> Order:
    """Read a column's name."""
    if text not in SORTS:
        raise Problem(f"sort by {', '.join(SORTS[:-1])} or {SORTS[-1]}, not by {text!r}")
    return Order(text)


class Board:
    """Children seen so far."""

    def __init__(self) -> None:
        self._seen: dict[Principal, Seen] = {}

    def __len__(self) -> int:
        return len(self._seen)

    def take(
        self, children: Iterable[Child], figures: Mapping[Principal, CanisterReport], now_ns: int
    ) -> None:
        """Note a page of children."""
        for child in children:
            found, before = figures.get(child.canister), self._seen.get(child.canister)
            if found is not None:
                self._seen[child.canister] = Seen(child, found, now_ns, _rate(before, found, now_ns))

    def forget_before(self, at_ns: int) -> None:
        """Drop children that a whole round of looks has not met: they are gone."""
        self._seen = {canister: seen for canister, seen in self._seen.items() if seen.at_ns >= at_ns}

    def rows(self, order: Order, limit: int) -> list[Seen]:
        """Give the first rows of a frame."""
        chosen = sorted(self._seen.values(), key=lambda seen: seen.child.number)
        return sorted(chosen, key=_KEYS[order.column], reverse=order.reverse)[:limit]


def _rate(before: Seen | None, found: CanisterReport, now_ns: int) -> float | None:
    if before is None or now_ns <= before.at_ns:
        return None
    return max(0, found.messages - before.figures.messages) * NS_PER_S / (now_ns - before.at_ns)


def cells(rows: Sequence[Seen], now_ns: int) -> list[tuple[str, ...]]:
    """Write the cells of rows."""
    return [
        (
            str(seen.child.canister),
            seen.child.kind,
            str(seen.child.version),
            _state(seen),
            f"{seen.figures.cycles:,}",
            format_size(seen.figures.memory_size),
            f"{seen.figures.messages:,}",
            "" if seen.per_s is None else f"{seen.per_s:.1f}",
            f"{seen.figures.traps:,}",
            _active(seen.figures.active_ns, now_ns),
        )
        for seen in rows
    ]


def _state(seen: Seen) -> str:
    if seen.child.state.tag != "active":
        return seen.child.state.tag
    return "frozen" if seen.figures.frozen else seen.figures.running.tag


def _active(active_ns: int, now_ns: int) -> str:
    return f"{format_span(max(0, now_ns - active_ns))} ago" if active_ns else "never"
