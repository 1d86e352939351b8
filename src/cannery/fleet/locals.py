"""The local indexes of a spread fleet, as the root has them: added, told, in rotation or out of it.

Adding one is a job of steps that may each be repeated: it is made as a child of the root, appointed by the
node, told its settings, and serves. Settings are compared with what each was told last, by their digest, so
that whatever an operator changes at the root reaches all of them. Rollouts go through them by `relays`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
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
    encode_args,
    nat32,
    nat64,
    record,
)
from cannery.cdk.component import Component, Uses, canister_of
from cannery.cdk.management import Management, SubnetChoice
from cannery.fleet.directory_types import Child
from cannery.fleet.index import Index
from cannery.fleet.nursery import AlreadyMade
from cannery.fleet.shards_types import (
    AddResult,
    Local,
    LocalOrder,
    LocalState,
    LocalStatus,
    Settings,
    ShardDoor,
    Sharder,
    ShardRule,
)

LOST_NS: Final = 600 * 1_000_000_000
AWAY_NS: Final = 60 * 1_000_000_000
USED: Final = ("serving", "resting")
NOT_APPOINTED: Final = "IC0406"


@record
class Step:
    """A step that was sent to or about a local index."""

    number: nat32
    digest: bytes


@dataclass(frozen=True, slots=True)
class Wanted:
    """The settings that hold now, and their digest."""

    settings: Settings
    digest: bytes


class Locals(Component, prefix="fleet.locals"):
    """Keep local indexes."""

    fleet = Uses(Index)
    known = StableMap(nat32, Local, counted=True)
    by_canister = StableMap(Principal, nat32)
    asked = StableMap(nat32, nat64)
    away = StableMap(nat32, nat64)
    next_number = StableCell(nat32, 1)

    def rule(self, ctx: Context) -> ShardRule:
        """Return what the author decides."""
        canister = canister_of(self)
        if not isinstance(canister, Sharder):
            raise TypeError(
                f"{type(canister).__name__} has Shards and lacks shard_rule of shards_types.Sharder"
            )
        return canister.shard_rule(ctx)

    # rotation

    def choose(self, ctx: Context) -> Local | None:
        """Return the local index with the fewest children, of those that have room and answer."""
        rule = self.rule(ctx)
        found = [each for each in self.known.values() if self._takes(ctx, rule, each)]
        return min(found, key=lambda each: (each.children, each.number), default=None)

    def _takes(self, ctx: Context, rule: ShardRule, local: Local) -> bool:
        is_away = self.away.get(local.number, 0) > ctx.now_ns
        return local.state.tag == "serving" and local.children < rule.children_max and not is_away

    def of(self, canister: Principal) -> Local | None:
        """Return a local index by its canister."""
        number = self.by_canister.get(canister)
        return None if number is None else self.known.get(number)

    def count_on(self, number: int) -> None:
        """Count a child that is being made."""
        local = self.known[number]
        self.known.put(number, replace(local, children=local.children + 1))

    def note_children(self, number: int, children: int) -> None:
        """Note how many children a local index says that it has."""
        local = self.known.get(number)
        if local is not None:
            self.known.put(number, replace(local, children=children))
            self.away.delete(number)

    def note_away(self, ctx: Context, number: int) -> None:
        """Leave a local index out of rotation for a while: it does not answer, or says that it is full."""
        self.away.put(number, ctx.now_ns + AWAY_NS)

    # orders

    def add(self, ctx: Context, subnet: SubnetChoice | None) -> AddResult:
        """Begin to add a local index; while one is being added, that is the one."""
        adding, rule = self._adding(), self.rule(ctx)
        if adding is not None:
            self.drive(ctx, adding.number)
            return AddResult.ok(adding.number)
        if self.fleet.registry.current(rule.local_kind) is None:
            return AddResult.err(f"there is no release of {rule.local_kind}: add it with fleet_release_add")
        if sum(each.state.tag in USED for each in self.known.values()) >= rule.locals_max:
            return AddResult.err(f"there are {rule.locals_max} local indexes, as many as there may be")
        number = self.next_number.get()
        self.next_number.set(number + 1)
        local = Local(number, None, subnet, LocalState.adding(), False, 0, b"", ctx.now_ns)
        self.known.put(number, local)
        self.drive(ctx, number)
        return AddResult.ok(number)

    def _adding(self) -> Local | None:
        return next((each for each in self.known.values() if each.state.tag == "adding"), None)

    def set_state(self, local: Local, state: LocalState) -> None:
        """Note where a local index stands."""
        self.known.put(local.number, replace(local, state=state))

    def order(self, ctx: Context, local: Local, order: LocalOrder) -> AddResult | Pending[AddResult]:
        """Do what an operator wants with a local index."""
        tag = local.state.tag
        if order.tag == "dismiss" and local.canister is not None:
            self.known.put(local.number, replace(local, state=LocalState.dismissed(), appointed=False))
            call = Management().cannery_fleet_dismiss(local.canister)
            return ctx.call(call, then=self.dismissed, saved=Step(local.number, b""))
        if order.tag == "reinstate":
            again = replace(local, state=LocalState.adding(), appointed=False, told=b"")
            self.known.put(local.number, again)
            self.asked.delete(local.number)
            self.drive(ctx, local.number)
            return AddResult.ok(local.number)
        if tag not in USED:
            return AddResult.err(f"local index {local.number} is {tag}: reinstate it first")
        self.set_state(local, LocalState.serving() if order.tag == "serve" else LocalState.resting())
        return AddResult.ok(local.number)

    @continuation
    def dismissed(self, ctx: Context, outcome: Outcome[None], saved: Step) -> AddResult:
        """Answer once the node knows; it had forgotten one that was emptied already."""
        if not outcome.ok and outcome.error_code != NOT_APPOINTED:
            ctx.log(f"local index {saved.number} is dismissed here, and not for the node yet")
            return AddResult.err(f"the node was not told, order it again: {outcome.reject_message}")
        return AddResult.ok(saved.number)

    # steps

    def look(self, ctx: Context) -> None:
        """Do what is due: steps of adding, settings, another local index."""
        wanted = self.wanted(ctx)
        for local in list(self.known.values()):
            self._find_gone(local)
            self.drive(ctx, local.number, wanted)
        self.grow(ctx)

    def grow(self, ctx: Context) -> None:
        """Begin to add a local index where there is too little room, and one may be added."""
        rule = self.rule(ctx)
        if not rule.spare_min or self._adding() is not None:
            return
        serving = [each for each in self.known.values() if each.state.tag == "serving"]
        room = sum(max(0, rule.children_max - each.children) for each in serving)
        if room < rule.spare_min:
            self.add(ctx, SubnetChoice.any())

    def drive(self, ctx: Context, number: int, wanted: Wanted | None = None) -> None:
        """Send the step that is due for a local index, unless its answer is awaited."""
        local, asked_ns = self.known[number], self.asked.get(number, 0)
        if local.state.tag in ("dismissed", "gone") or (asked_ns and ctx.now_ns - asked_ns < LOST_NS):
            return
        if local.canister is None:
            self._make(ctx, local)
            return
        wanted = wanted or self.wanted(ctx)
        if not local.appointed:
            call, then = Management().cannery_fleet_appoint(local.canister), self.appointed
        elif local.told != wanted.digest:
            call, then = ShardDoor(local.canister).shard_set(wanted.settings), self.told
        else:
            if local.state.tag == "adding":
                self.set_state(local, LocalState.serving())
            return
        try:
            ctx.call(call, then=then, saved=Step(number, wanted.digest))
        except Reject as reject:
            ctx.log(f"local index {number} waits: {reject.message}")
            return
        self.asked.put(number, ctx.now_ns)

    def _make(self, ctx: Context, local: Local) -> None:
        owner, kind = owner_of(local.number), self.rule(ctx).local_kind
        child = self.fleet.directory.find(kind, owner)
        if child is not None:
            self._note_canister(local, child.canister)
            self.drive(ctx, local.number)
            return
        try:
            self.fleet.create(
                ctx,
                kind,
                owner,
                encode_args(),
                then=self.made,
                saved=Step(local.number, b""),
                subnet=local.subnet,
            )
        except (LookupError, AlreadyMade, Reject) as error:
            text = error.message if isinstance(error, Reject) else str(error)
            ctx.log(f"local index {local.number} is not made now: {text}")
            return
        self.asked.put(local.number, ctx.now_ns)

    def _note_canister(self, local: Local, canister: Principal) -> None:
        self.known.put(local.number, replace(local, canister=canister))
        self.by_canister.put(canister, local.number)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[Child], saved: Step) -> None:
        """Note the canister of a new local index, and go on."""
        self.asked.delete(saved.number)
        local = self.known.get(saved.number)
        if local is None or not outcome.ok:
            ctx.log(f"local index {saved.number} was not made: {outcome.reject_message}")
        elif local.canister is None:
            self._note_canister(local, outcome.value.canister)
            self.drive(ctx, saved.number)

    @continuation
    def appointed(self, ctx: Context, outcome: Outcome[None], saved: Step) -> None:
        """Note that a local index is one for the node, too."""
        self.asked.delete(saved.number)
        local = self.known.get(saved.number)
        if local is None or not outcome.ok:
            ctx.log(f"local index {saved.number} was not appointed: {outcome.reject_message}")
        elif local.state.tag != "dismissed":
            self.known.put(saved.number, replace(local, appointed=True))
            self.drive(ctx, saved.number)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[None], saved: Step) -> None:
        """Note that a local index has its settings."""
        self.asked.delete(saved.number)
        local = self.known.get(saved.number)
        if local is None or not outcome.ok:
            ctx.log(f"local index {saved.number} has no settings yet: {outcome.reject_message}")
        else:
            self.known.put(saved.number, replace(local, told=saved.digest))
            self.away.delete(saved.number)
            self.drive(ctx, saved.number)

    def _find_gone(self, local: Local) -> None:
        child = None if local.canister is None else self.fleet.directory.get(local.canister)
        if local.canister is not None and (child is None or child.state.tag != "active"):
            self.set_state(local, LocalState.gone())

    def wanted(self, ctx: Context) -> Wanted:
        """Return what all local indexes are to go by."""
        fleet, rule = self.fleet, self.rule(ctx)
        treasury, own = fleet.treasury, (rule.local_kind, rule.part_kind)
        settings = Settings(
            rule.children_max,
            [each for each in fleet.registry.entries(None) if each.kind not in own],
            [each for each in fleet.nursery.births.items() if each[0] not in own],
            [each for each in treasury.rules.items() if each[0] not in own],
            [each for each in treasury.kind_quotas.items() if each[0] not in own],
        )
        return Wanted(settings, sha256(encode_args(settings)).digest())

    def status(self, ctx: Context) -> list[LocalStatus]:
        """Return all local indexes, for people."""
        rule, digest = self.rule(ctx), self.wanted(ctx).digest
        return [
            LocalStatus(
                each.number,
                each.canister,
                each.state,
                _step_of(each, digest),
                each.children,
                rule.children_max,
                each.children >= rule.children_max,
                each.told == digest,
                self.away.get(each.number, 0),
            )
            for each in self.known.values()
        ]


def owner_of(number: int) -> Principal:
    """Return whose child a local index is: nobody's but its number's."""
    return Principal.opaque(b"local" + number.to_bytes(4, "big"))


def _step_of(local: Local, digest: bytes) -> str:
    if local.canister is None:
        return "to be made"
    if not local.appointed:
        return "to be appointed"
    return "" if local.told == digest else "to be told its settings"
