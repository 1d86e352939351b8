"""Which backups stay, and what of a repository goes with the others. It decides; `prune` does.

Of each series (the same node and scope) the newest stay by count, and the newest of each day and week for as
many days and weeks that have one, in UTC. The newest of a series always stays. A pack goes when no backup
that stays has a chunk in it; one of which little is needed is written anew without the rest. A backup that
stays and is a difference to one that goes is written anew as a whole one first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import UTC, datetime

from cannery.node.backup.format.manifest import BackupHead

_NS_PER_S = 1_000_000_000


@dataclass(frozen=True, slots=True)
class KeepRule:
    """How many of the last backups stay, and for how many days and weeks one of each."""

    last: int = 0
    daily: int = 0
    weekly: int = 0

    @property
    def keeps_something(self) -> bool:
        return max(self.last, self.daily, self.weekly) > 0


@dataclass(frozen=True, slots=True)
class PackUse:
    """How much of a pack is needed: bytes of chunks before compression, needed and in all."""

    name: str
    needed_bytes: int
    all_bytes: int


@dataclass(frozen=True, slots=True)
class PackPlan:
    """What becomes of packs: deleted, or written anew with what is needed of them."""

    delete: tuple[str, ...]
    rewrite: tuple[str, ...]


def plan_keep(heads: Iterable[BackupHead], rule: KeepRule) -> frozenset[int]:
    """Give the numbers of the backups that stay; the newest has the highest one, whatever the clock was."""
    series: dict[object, list[BackupHead]] = {}
    for head in sorted(heads, key=lambda head: head.number, reverse=True):
        series.setdefault(head.series, []).append(head)
    kept: set[int] = set()
    for found in series.values():
        kept.update(head.number for head in found[: max(1, rule.last)])
        kept |= _newest_of_each(found, rule.daily, _day)
        kept |= _newest_of_each(found, rule.weekly, _week)
    return frozenset(kept)


def _newest_of_each(
    newest_first: Sequence[BackupHead], count: int, period: Callable[[BackupHead], object]
) -> set[int]:
    chosen: dict[object, int] = {}
    for head in newest_first:
        if len(chosen) >= count:
            break
        chosen.setdefault(period(head), head.number)
    return set(chosen.values())


def _day(head: BackupHead) -> object:
    return datetime.fromtimestamp(head.made_ns // _NS_PER_S, UTC).date()


def _week(head: BackupHead) -> object:
    return datetime.fromtimestamp(head.made_ns // _NS_PER_S, UTC).isocalendar()[:2]


def plan_whole(heads: Iterable[BackupHead], kept: Set[int]) -> tuple[int, ...]:
    """Give the numbers of kept backups that must be written anew as whole ones."""
    return tuple(
        sorted(
            head.number
            for head in heads
            if head.number in kept and head.base is not None and head.base.number not in kept
        )
    )


def plan_packs(uses: Iterable[PackUse]) -> PackPlan:
    """Decide which packs go and which are written anew: those of which less than half is needed."""
    delete: list[str] = []
    rewrite: list[str] = []
    for use in uses:
        if not use.needed_bytes:
            delete.append(use.name)
        elif 2 * use.needed_bytes < use.all_bytes:
            rewrite.append(use.name)
    return PackPlan(tuple(sorted(delete)), tuple(sorted(rewrite)))


def measure_packs(packs: Mapping[str, Mapping[bytes, int]], needed: Set[bytes]) -> list[PackUse]:
    """Measure each pack, given the sizes of its chunks. What several packs have counts in the first."""
    seen: set[bytes] = set()
    uses: list[PackUse] = []
    for name in sorted(packs):
        chunks = packs[name]
        needed_bytes = sum(size for chunk, size in chunks.items() if chunk in needed and chunk not in seen)
        seen.update(chunks)
        uses.append(PackUse(name, needed_bytes, sum(chunks.values())))
    return uses
