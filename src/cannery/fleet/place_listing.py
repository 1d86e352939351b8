"""Placement by a list: plans for where the index has written down who has which group.

For the policies that choose freely (`FillFirst`, `BalancedLoad`, `LastNode`): changes of who is there, and
how a bucket divides its groups. Pure; the list itself is `place`'s.
"""

from __future__ import annotations

from dataclasses import replace

from cannery.fleet.place_types import LISTED, Change, Cut
from cannery.fleet.placement_census import Census, free_slots
from cannery.fleet.placement_migration import Group, Leg, Migration, plan_drain, plan_spill
from cannery.fleet.placement_policy import BalancedLoad, FillFirst, LastNode
from cannery.protocol.principal import Principal

Listing = FillFirst | BalancedLoad | LastNode
LISTINGS: dict[str, Listing] = {
    type(policy).__name__: policy for policy in (FillFirst(), BalancedLoad(), LastNode())
}


def plan_listed(number: int, kind: str, canister: Principal, now_ns: int, *, moves: bool = False) -> Change:
    """Plan a change: who joins, takes another's place or is lost, and with `moves` who gives groups away:
    all of them (`part`), what is too much (`spill`), or one (`move`).
    """
    return Change(
        number,
        kind,
        canister,
        moves=moves,
        table=LISTED,
        is_published=False,
        is_forced=kind == "drop",
        keeps=False,
        began_ns=now_ns,
    )


def plan_listed_loss(change: Change, lost: Principal, *, is_cut: bool) -> Change:
    """Go on with a change without a bucket that is gone. What the source has not given to a lost target stays
    with it; where the source is gone before it has said what goes where, nothing moves.
    """
    if lost != change.canister:
        return replace(change, is_forced=True, keeps=True)
    if is_cut:
        return replace(change, is_forced=True)
    return replace(change, kind="drop", moves=False, is_forced=True)


def plan_move(number: int, source: Principal, target: Principal, group: bytes) -> Migration:
    """Plan the move of one group that has outgrown its home."""
    return Migration(number, LISTED, LISTED, [Leg(number, source, target, group, group + b"\x00")])


def plan_cut(cut: Cut, me: Principal, groups: list[Group]) -> Migration | None:
    """Divide a bucket's groups as the index orders; None where the others lack the room."""
    if cut.target is not None:
        planned: Migration | None = plan_spill(cut.number, me, cut.target, groups, cut.keep_slots)
    else:
        planned = plan_drain(cut.number, LISTINGS[cut.policy], Census(tuple(cut.children)), me, groups)
    return None if planned is None else replace(planned, before=LISTED, after=LISTED)


def plan_overflow(policy: Listing, census: Census) -> Principal | None:
    """Return the bucket that is to give what is too much to the last one: with LastNode the last but one,
    where it has got more than it takes.
    """
    serving = [child for child in census if child.state.tag == "serving"]
    if not isinstance(policy, LastNode) or len(serving) < 2 or serving[-1] != census.children[-1]:
        return None
    over = serving[-2]
    surplus = over.used_slots - over.capacity_slots
    return over.id if 0 < surplus <= free_slots(serving[-1]) else None
