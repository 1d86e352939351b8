"""The changes of a table, as plans: who joins, parts, takes another's place, and what follows from a loss.

Pure: `plan_*` decides, `place` carries out.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cannery import Principal, Service, method
from cannery.fleet.place_types import Adoption, Change, Cut, Given, Held, PlaceRule, Report
from cannery.fleet.placement_census import Child, ChildState
from cannery.fleet.placement_migration import Migration, plan_table_migration
from cannery.fleet.placement_scale import ScaleState
from cannery.fleet.placement_table import (
    AnchorTable,
    decode_table,
    encode_table,
    make_table,
    plan_join,
    plan_part,
    plan_swap,
)


class Bucket(Service):
    """What the index orders a bucket to do."""

    @method
    def place_begin(self, migration: Migration) -> Report: ...

    @method
    def place_report(self) -> Report: ...

    @method
    def place_adopt(self, adoption: Adoption) -> Report: ...

    @method
    def place_give(self, given: Given) -> None: ...

    @method
    def place_cut(self, cut: Cut) -> Migration | None: ...


POLL_S = 2
LOOK_S = 60


@dataclass(frozen=True, slots=True)
class Planned:
    """A change, and the migration that belongs to it if groups move."""

    change: Change
    migration: Migration | None = None


def plan_first(number: int, canister: Principal, capacity: int, seed: bytes, now_ns: int) -> Planned:
    """Make the table of the first bucket."""
    table = make_table((canister,), capacity=capacity, seed=seed)
    return Planned(_change(number, "join", canister, table, now_ns))


def plan_joining(held: Held, number: int, canister: Principal, now_ns: int) -> Planned:
    """Let a bucket join: its even part moves to it from all others."""
    before = decode_table(held.table)
    return _moving(before, number, "join", canister, plan_join(before, canister), now_ns)


def plan_parting(held: Held, number: int, canister: Principal, now_ns: int) -> Planned:
    """Let a bucket part: its groups move to all others."""
    before = decode_table(held.table)
    return _moving(before, number, "part", canister, plan_part(before, canister), now_ns)


def plan_swapping(held: Held, number: int, old: Principal, new: Principal, now_ns: int) -> Planned:
    """Let a bucket's new canister take its place: its groups came with it."""
    table = plan_swap(decode_table(held.table), old, new)
    return Planned(_change(number, "swap", new, table, now_ns))


def plan_lost(held: Held, number: int, canister: Principal, now_ns: int) -> Planned | None:
    """Go on without a bucket that is gone: the others begin with its groups anew. None where it was the last
    one.
    """
    before = decode_table(held.table)
    if len(before.children) == 1:
        return None
    change = _change(number, "drop", canister, plan_part(before, canister), now_ns)
    return Planned(replace(change, is_forced=True))


def plan_given_up(held: Held, change: Change) -> Change:
    """Give a joining up because the bucket that joins is gone: the table before holds on."""
    return replace(change, kind="drop", moves=False, table=held.table, is_forced=True)


def plan_kept(change: Change, lost: Principal) -> Change:
    """Let the bucket that parts take the place of a target that is gone: what should have moved there is
    still with it, and stays.
    """
    table = decode_table(change.table)
    if change.keeps or lost not in table.children:
        return change
    return replace(change, table=encode_table(plan_swap(table, lost, change.canister)), keeps=True)


def plan_look_ns(state: ScaleState, rule: PlaceRule, now_ns: int, *, is_busy: bool) -> int:
    """Say when to look again: soon while something is under way, when a predicate has held long enough, or in
    a minute.
    """
    due_ns = now_ns + (POLL_S if is_busy else LOOK_S) * 1_000_000_000
    rests_until_ns = (state.changed_ns or 0) + rule.scale.pause_ns
    for since_ns in (state.grow_since_ns, state.shrink_since_ns):
        if since_ns is not None:
            steady_ns = max(since_ns + rule.scale.hold_ns, rests_until_ns)
            if now_ns < steady_ns < due_ns:
                due_ns = steady_ns
    return due_ns


def with_report(child: Child, report: Report) -> Child:
    """Return what is known of a bucket after its report: one that reports is not away."""
    load = report.load
    return replace(
        child,
        capacity_slots=load.capacity_slots,
        used_slots=load.used_slots,
        size_bytes=load.size_bytes,
        state=ChildState.serving() if child.state.tag == "away" else child.state,
    )


def targets_of(change: Change) -> tuple[Principal, ...]:
    """Return the buckets that groups move to."""
    if not change.moves:
        return ()
    if change.kind == "join":
        return (change.canister,)
    return tuple(child for child in decode_table(change.table).children if child != change.canister)


def _moving(
    before: AnchorTable, number: int, kind: str, canister: Principal, after: AnchorTable, now_ns: int
) -> Planned:
    migration = plan_table_migration(number, before, after)
    return Planned(replace(_change(number, kind, canister, after, now_ns), moves=True), migration)


def _change(number: int, kind: str, canister: Principal, table: AnchorTable, now_ns: int) -> Change:
    return Change(
        number,
        kind,
        canister,
        moves=False,
        table=encode_table(table),
        is_published=False,
        is_forced=False,
        keeps=False,
        began_ns=now_ns,
    )
