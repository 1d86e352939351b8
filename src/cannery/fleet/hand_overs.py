"""Children of a local index that is gone or dismissed, handed over to another one, each by an operator.

The root finds the child in its map, sets who controls it, lets the other local index list it, and keeps its
entry anew. Each step may be repeated: what fails midway is ordered again. The child itself is not touched,
and may be on any subnet: the node knows local indexes on all of them.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import Context, Outcome, Pending, Principal, continuation, nat32, record, update
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import CanisterSettings, Management, UpdateSettingsArgs
from cannery.fleet.locals import Locals
from cannery.fleet.orphans import AdoptResult
from cannery.fleet.owner_map import OwnerMap
from cannery.fleet.rights import require_operator
from cannery.fleet.shards_types import (
    AddResult,
    Entry,
    FindResult,
    KeepResult,
    MapEntry,
    PartDoor,
    ShardDoor,
)

FORMER = ("gone", "dismissed")


@record
class HandOver:
    """A child on its way to another local index, and the part that has its entry (None: the root)."""

    owner: Principal
    kind: str
    canister: Principal | None
    number: nat32
    part: Principal | None


class HandOvers(Component, prefix="fleet.hand_overs"):
    """Hand children over."""

    locals = Uses(Locals)
    map = Uses(OwnerMap)

    @update
    def fleet_local_hand_over(
        self, ctx: Context, kind: str, owner: Principal, to: Principal
    ) -> AddResult | Pending[AddResult]:
        """Let a local index look after an owner's child whose own one is gone or dismissed."""
        require_operator(ctx)
        local = self.locals.of(to)
        if local is None or local.state.tag not in ("serving", "resting"):
            return AddResult.err(f"{to} is no local index that looks after children")
        order = HandOver(owner, kind, None, local.number, None)
        known, part = self.map.here(ctx, kind, owner), self.map.part_of(owner)
        if known is not None:
            return self._begin(ctx, order, known)
        if part is None:
            return AddResult.err(f"{owner} has no {kind}")
        order = replace(order, part=part)
        return ctx.call(PartDoor(part).map_find(owner, kind), then=self.located, saved=order)

    @continuation
    def located(
        self, ctx: Context, outcome: Outcome[FindResult], saved: HandOver
    ) -> AddResult | Pending[AddResult]:
        """Go on with the entry that a map part has."""
        if not outcome.ok:
            return AddResult.err(f"the map part does not answer: {outcome.reject_message}")
        if outcome.value.tag == "found":
            return self._begin(ctx, saved, outcome.value.found)
        is_moving = outcome.value.tag == "moved"
        return AddResult.err("the map is moving: order it again" if is_moving else "there is no such child")

    def _begin(self, ctx: Context, order: HandOver, entry: Entry) -> AddResult | Pending[AddResult]:
        former, local = self.locals.of(entry.index), self.locals.known[order.number]
        assert local.canister is not None, "one that serves has a canister"
        is_there = former is not None and former.number == order.number
        if not is_there and (former is None or former.state.tag not in FORMER):
            return AddResult.err(f"{entry.canister} is looked after by {entry.index}: dismiss that one first")
        settings = CanisterSettings(controllers=[local.canister, ctx.id])
        call = Management().update_settings(UpdateSettingsArgs(entry.canister, settings))
        return ctx.call(call, then=self.controlled, saved=replace(order, canister=entry.canister))

    @continuation
    def controlled(
        self, ctx: Context, outcome: Outcome[None], saved: HandOver
    ) -> AddResult | Pending[AddResult]:
        """Let the other local index list the child that it controls now."""
        local = self.locals.known[saved.number]
        if not outcome.ok or local.canister is None or saved.canister is None:
            return AddResult.err(f"the child's controllers are as they were: {outcome.reject_message}")
        call = ShardDoor(local.canister).shard_adopt(saved.canister, saved.owner)
        return ctx.call(call, then=self.listed, saved=saved)

    @continuation
    def listed(
        self, ctx: Context, outcome: Outcome[AdoptResult], saved: HandOver
    ) -> AddResult | Pending[AddResult]:
        """Keep the child's entry anew."""
        local = self.locals.known[saved.number]
        if not outcome.ok:
            return AddResult.err(f"{local.canister} does not answer: {outcome.reject_message}")
        if outcome.value.tag == "err":
            return AddResult.err(outcome.value.err)
        assert local.canister is not None, "it has answered"
        assert saved.canister is not None, "it has been listed"
        entry = Entry(saved.canister, local.canister)
        if saved.part is None:
            self.map.keep(saved.kind, saved.owner, entry)
            return AddResult.ok(saved.number)
        call = PartDoor(saved.part).map_keep(MapEntry(saved.owner, saved.kind, entry))
        return ctx.call(call, then=self.kept, saved=saved)

    @continuation
    def kept(self, ctx: Context, outcome: Outcome[KeepResult], saved: HandOver) -> AddResult:
        """Answer the operator."""
        if outcome.ok and outcome.value.tag == "ok":
            return AddResult.ok(saved.number)
        ctx.log(f"the entry of {saved.owner} names its former local index: {outcome.reject_message}")
        return AddResult.err("the map is moving: order it again")
