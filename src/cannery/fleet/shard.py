"""A local index's part in a spread fleet, as one component: `shard = Shard()`, beside `fleet = Index()`.

It makes children when the root says so, goes by the root's releases, rules and rollouts, and tells the root
of children that are gone or have moved to another canister. Orders come from the index of the fleet alone, as
stamped by the node. All of them may be repeated. The root's side is `shards`'.
"""

from __future__ import annotations

from typing import Final

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    index,
    nat32,
    nat64,
    record,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.fleet.directory_types import Child
from cannery.fleet.funding_types import QuotaScope
from cannery.fleet.index import Index
from cannery.fleet.nursery import AlreadyMade
from cannery.fleet.orphans import AdoptResult
from cannery.fleet.rollout_types import RolloutArgs, StartResult
from cannery.fleet.shards_types import EntryChange, Made, MakeResult, RootDoor, Settings
from cannery.fleet.top_up import TopUpRule
from cannery.fleet.top_up_quota import Quota
from cannery.limits import SHARD_TOLD_COUNT_MAX

TELL_S: Final = 30
LOST_NS: Final = 600 * 1_000_000_000


@record
class Making:
    """A child that is being made."""

    kind: str
    owner: Principal


@record
class Telling:
    """Changes on their way to the root; the number rises."""

    number: nat64
    changes: list[EntryChange]


class Shard(Component, prefix="fleet.shard"):
    """Serve the root index."""

    fleet = Uses(Index)
    children_max = StableCell(nat64, 0)
    rolls = StableMap(nat64, nat64)
    telling = StableCell(tuple[nat64, nat64], (0, 0))
    is_ticking = StableCell(bool, False)

    # orders of the root

    @update(only=index)
    def shard_make(
        self, ctx: Context, kind: str, owner: Principal, arg: bytes
    ) -> MakeResult | Pending[MakeResult]:
        """Make an owner's child of a kind; the one that is there, where there is one."""
        self._tell(ctx)
        known = self.fleet.directory.find(kind, owner)
        if known is not None:
            return self._made(known.canister)
        if self.fleet.is_making(ctx, kind, owner):
            return MakeResult.busy()
        count = self._count()
        if count >= self.children_max.get():
            return MakeResult.full(count)
        saved = Making(kind, owner)
        try:
            return self.fleet.create(ctx, kind, owner, arg, then=self.made, saved=saved)
        except (LookupError, AlreadyMade, Reject) as error:
            return MakeResult.err(error.message if isinstance(error, Reject) else str(error))

    @continuation
    def made(self, ctx: Context, outcome: Outcome[Child], saved: Making) -> MakeResult:
        """Answer the root."""
        if not outcome.ok:
            ctx.log(f"no {saved.kind} for {saved.owner}: {outcome.reject_message}")
            return MakeResult.err(outcome.reject_message)
        return self._made(outcome.value.canister)

    def _made(self, canister: Principal) -> MakeResult:
        return MakeResult.ok(Made(canister, self._count()))

    def _count(self) -> int:
        counts = self.fleet.directory.counts()
        here = sum(count.count for count in counts if count.state != "replaced")
        return here + self.fleet.nursery.making_count()

    @update(only=index)
    def shard_set(self, ctx: Context, settings: Settings) -> None:
        """Go by the root's releases, births, rules and quotas; a kind's current release stays what it is here
        until a rollout changes it.
        """
        self.children_max.set(settings.children_max)
        self.fleet.directory.notes_moves.set(True)
        for release in settings.releases:
            self.fleet.registry.take_over(release)
        births = self.fleet.nursery.births
        births.clear()
        for kind, cycles in settings.births:
            births.put(kind, cycles)
        self._set_funding(ctx, settings)
        if not self.is_ticking.get():
            self.is_ticking.set(True)
            ctx.timer_set(self.tick, every_s=TELL_S)
        self._tell(ctx)

    def _set_funding(self, ctx: Context, settings: Settings) -> None:
        treasury, funding = self.fleet.treasury, self.fleet.funding
        quotas: dict[str, Quota | None] = dict.fromkeys(treasury.kind_quotas.keys())
        for kind, quota in (quotas | dict(settings.quotas)).items():
            funding.fleet_quota_set(ctx, QuotaScope.kind(kind), quota)
        known = dict(treasury.rules.items())
        rules: dict[str, TopUpRule | None] = dict.fromkeys(known)
        for kind, rule in (rules | dict(settings.rules)).items():
            if known.get(kind) != rule:
                funding.fleet_rule_set(ctx, kind, rule)

    @update(only=index)
    def shard_roll(
        self, ctx: Context, number: nat64, args: RolloutArgs
    ) -> StartResult | Pending[StartResult]:
        """Start the root's rollout here, once, however often it is ordered."""
        known = self.rolls.get(number)
        if known is not None:
            return StartResult.ok(known)
        rollouts = self.fleet.rollouts
        before = rollouts.next_id.get()
        answer = rollouts.fleet_rollout_start(ctx, args)
        if rollouts.next_id.get() > before:
            self.rolls.put(number, before)
            for old in [each for each in self.rolls if each != number]:
                self.rolls.delete(old)
        return answer

    @update(only=index)
    def shard_adopt(
        self, ctx: Context, canister: Principal, owner: Principal
    ) -> AdoptResult | Pending[AdoptResult]:
        """List a child that another local index has made, and that this one controls now."""
        known = self.fleet.directory.get(canister)
        if known is not None and known.owner == owner:
            return AdoptResult.ok(known)
        self.fleet.census.keep(ctx)
        return self.fleet.orphans.fleet_adopt(ctx, canister, owner)

    # what the root is told

    @timer
    def tick(self, ctx: Context) -> None:
        """Tell the root what is due."""
        self._tell(ctx)

    def _tell(self, ctx: Context) -> None:
        """Tell the root of owners whose child is gone or another canister now."""
        number, sent_ns = self.telling.get()
        if ctx.fleet is None or (sent_ns and ctx.now_ns - sent_ns < LOST_NS):
            return
        directory = self.fleet.directory
        changes: list[EntryChange] = []
        for was, (kind, owner) in directory.moved.items(limit=SHARD_TOLD_COUNT_MAX):
            child = directory.find(kind, owner)
            changes.append(EntryChange(owner, kind, was, None if child is None else child.canister))
        if not changes:
            return
        call = RootDoor(ctx.fleet).shard_told(changes, self._count())
        try:
            ctx.call(call, then=self.told, saved=Telling(number + 1, changes))
        except Reject as reject:
            ctx.log(f"the root is told later: {reject.message}")
            return
        self.telling.set((number + 1, ctx.now_ns))

    @continuation
    def told(self, ctx: Context, outcome: Outcome[list[nat32]], saved: Telling) -> None:
        """Forget what the root knows now; the rest is told again."""
        number, _ = self.telling.get()
        if number != saved.number:
            return
        self.telling.set((number, 0))
        if not outcome.ok:
            ctx.log(f"the root was not told: {outcome.reject_message}")
            return
        again = frozenset(outcome.value)
        for at, change in enumerate(saved.changes):
            if at not in again:
                self.fleet.directory.moved.delete(change.was)
        if not again:
            self._tell(ctx)
