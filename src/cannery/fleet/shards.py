"""A root index over local indexes, as one component: `shards = Shards()`, beside `fleet = Index()` and
`place = Place()`.

An owner's child of a kind is made by one of the local indexes, and found by everybody here: `provide` gives
it, making it where there is none; `fleet_find` tells where it is, and clients remember. One creation of a
child at a time is a job in the root's state, so that whatever is lost on the way, its local index is asked
again and no other one. Local indexes are `locals`', rollouts `relays`', the map and its parts `owner_map`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

from cannery import (
    Call,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    Service,
    StableCell,
    StableMap,
    composite_query,
    continuation,
    itself,
    method,
    nat32,
    nat64,
    query,
    record,
    same_fleet,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import SubnetChoice
from cannery.fleet.census import Totals
from cannery.fleet.hand_overs import HandOvers
from cannery.fleet.index import Index
from cannery.fleet.locals import Locals
from cannery.fleet.owner_map import OwnerMap
from cannery.fleet.place import Place
from cannery.fleet.place_types import Held, PlaceRule
from cannery.fleet.placement_scale import ScaleRule, SpawnRule, is_any_over
from cannery.fleet.relays import Relays
from cannery.fleet.rights import require_operator
from cannery.fleet.shards_types import (
    AddResult,
    Entry,
    EntryChange,
    FindResult,
    KeepResult,
    LocalOrder,
    MakeResult,
    MapEntry,
    PartDoor,
    PartStart,
    ShardDoor,
    ShardsCensus,
    ShardsStatus,
)
from cannery.limits import (
    MAP_HOP_COUNT_MAX,
    SHARD_COUNT_MAX,
    SHARD_MAKING_ARG_SIZE_BYTES_MAX,
    SHARD_MAKING_COUNT_MAX,
    SHARD_MAKING_PER_TICK_COUNT_MAX,
    SHARD_TOLD_COUNT_MAX,
)

LOOK_S: Final = 10
LOST_NS: Final = 600 * 1_000_000_000
PART_OVER_PERMILLE: Final = 800
REFUSALS: Final = frozenset({"IC0207", "IC0301", "IC0406", "IC0508", "IC0509", "IC0537", "CNRY0301"})
"""Codes of rejects after which nothing was made: out of cycles, gone, refused, stopped, empty, moved."""

Then = Callable[..., object]


@record
class Job:
    """A creation: for whom, with what, at which local index (0: not chosen), where it is made if it is, and
    whether a call is open since when (0: none is). `is_unsure`: the local index may have made it."""

    kind: str
    owner: Principal
    arg: bytes
    local: nat32
    made: Entry | None
    is_unsure: bool
    sent_ns: nat64


class OwnDoor(Service):
    """What the root asks itself, so that each job is a message of its own."""

    @method
    def shard_resume(self, kind: str, owner: Principal) -> Entry: ...


@record
class Asked:
    """A question about a job: how many places have been tried for its present step."""

    kind: str
    owner: Principal
    sent_ns: nat64
    tries: nat32


class Shards(Component, prefix="fleet.shards"):
    """Spread children over local indexes."""

    fleet = Uses(Index)
    place = Uses(Place)
    locals = Locals()
    relays = Relays()
    hand_overs = HandOvers()
    map = OwnerMap()
    jobs = StableMap(tuple[bytes, str], Job, counted=True)
    timer_number = StableCell(nat64 | None, None)

    # for the author

    def provide(self, ctx: Context, kind: str, owner: Principal, arg: bytes) -> Entry | Pending[Entry]:
        """Give an owner's child of a kind; make it where there is none, with `arg`. Return this from the
        method. Reject while it is being made, and where no local index has room.
        """
        known = self.map.here(ctx, kind, owner)
        if known is not None:
            return known
        if self.map.is_changing(kind, owner):
            ctx.reject(f"your {kind} is being replaced; ask again in a moment")
        job = self.jobs.get((owner.raw, kind))
        if job is not None and job.sent_ns and ctx.now_ns - job.sent_ns < LOST_NS:
            ctx.reject(f"your {kind} is being made; ask again in a moment")
        if job is None:
            if len(arg) > SHARD_MAKING_ARG_SIZE_BYTES_MAX:
                ctx.reject(f"a child's argument has {SHARD_MAKING_ARG_SIZE_BYTES_MAX} bytes at the most")
            if len(self.jobs) >= SHARD_MAKING_COUNT_MAX:
                ctx.reject(f"{SHARD_MAKING_COUNT_MAX} children are being made already; ask again in a moment")
            job = Job(kind, owner, arg, 0, None, False, 0)
        return self._go_on(ctx, job)

    def find(self, ctx: Context, kind: str, owner: Principal) -> Entry | None:
        """Find an owner's child of a kind, in a composite query."""
        job = self.jobs.get((owner.raw, kind))
        if job is not None and job.made is not None:
            return job.made
        return self.map.find_across(ctx, kind, owner)

    def place_rule(self, ctx: Context) -> PlaceRule:
        """Return what the canister's `place_rule` returns: map parts grow, and never shrink."""
        rule = self.locals.rule(ctx)
        scale = ScaleRule(
            grow=is_any_over(PART_OVER_PERMILLE),
            shrink=lambda _census: False,
            hold_ns=0,
            pause_ns=0,
            child_count_max=SHARD_COUNT_MAX,
        )
        spawn = SpawnRule(0, rule.part_entries, child_count_max=SHARD_COUNT_MAX)
        return PlaceRule(rule.part_kind, scale, spawn, SHARD_COUNT_MAX, SubnetChoice.any())

    def place_start(self, ctx: Context, held: Held) -> PartStart:
        """Return what a map part is installed with, for the canister's `place_arg`."""
        return PartStart(held, self.locals.rule(ctx).part_entries)

    # jobs

    def _go_on(self, ctx: Context, job: Job) -> Entry | Pending[Entry]:
        """Send the step that is due: look for the child, have it made, have its entry kept."""
        if job.made is not None:
            return self._keep(ctx, job, job.made, self.map.part_of(job.owner), 0)
        if self.place.buckets() and not job.local:
            return self._look_for(ctx, job, self.map.part_of(job.owner), 0)
        return self._make(ctx, job, 0)

    def _ask(self, ctx: Context, job: Job, call: Call[Any], then: Then, tries: int) -> Pending[Entry]:
        """Send a call of a job, which is open until the answer comes."""
        saved = Asked(job.kind, job.owner, ctx.now_ns, tries)
        pending: Pending[Entry] = ctx.call(call, then=then, saved=saved)
        self._put(replace(job, sent_ns=ctx.now_ns))
        return pending

    def _put(self, job: Job) -> None:
        self.jobs.put((job.owner.raw, job.kind), job)

    def _end(self, job: Job) -> None:
        self.jobs.delete((job.owner.raw, job.kind))

    def _take_up(self, ctx: Context, saved: Asked) -> Job:
        """Return the job that an answer is about, which is open no more; Reject where nobody waits for it."""
        job = self.jobs.get((saved.owner.raw, saved.kind))
        if job is None or job.sent_ns != saved.sent_ns:
            ctx.reject(f"the answer came too late: ask for your {saved.kind} again")
        job = replace(job, sent_ns=0)
        self._put(job)
        return job

    def _look_for(self, ctx: Context, job: Job, part: Principal | None, tries: int) -> Pending[Entry]:
        if part is None or tries > MAP_HOP_COUNT_MAX:
            self._end(job)
            ctx.reject(f"the map is moving: ask for your {job.kind} again in a moment")
        return self._ask(ctx, job, PartDoor(part).map_find(job.owner, job.kind), self.looked, tries)

    @continuation
    def looked(self, ctx: Context, outcome: Outcome[FindResult], saved: Asked) -> Entry | Pending[Entry]:
        """Answer with the child that is there, or have one made."""
        job = self._take_up(ctx, saved)
        if outcome.ok and outcome.value.tag == "moved":
            return self._look_for(ctx, job, outcome.value.moved, saved.tries + 1)
        if outcome.ok and outcome.value.tag == "absent":
            return self._make(ctx, job, 0)
        self._end(job)
        if not outcome.ok:
            ctx.reject(f"the map part does not answer: {outcome.reject_message}")
        found: Entry = outcome.value.found
        return found

    def _make(self, ctx: Context, job: Job, tries: int) -> Pending[Entry]:
        """Order the child at its local index; at the one with most room, where none was chosen yet."""
        local = self.locals.known.get(job.local) if job.local else None
        if local is None or local.state.tag in ("dismissed", "gone"):
            local = self.locals.choose(ctx)
            if local is None or tries > len(self.locals.known):
                self._end(job)
                self.locals.grow(ctx)
                ctx.reject(f"no local index has room for another {job.kind} now; ask again later")
            self.locals.count_on(local.number)
            job = replace(job, local=local.number, is_unsure=False)
        assert local.canister is not None, "one that serves has a canister"
        call = ShardDoor(local.canister).shard_make(job.kind, job.owner, job.arg)
        return self._ask(ctx, job, call, self.made, tries)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[MakeResult], saved: Asked) -> Entry | Pending[Entry]:
        """Have the entry of a child kept; where its local index had no room, ask another one."""
        job = self._take_up(ctx, saved)
        local = self.locals.known[job.local]
        if not outcome.ok:
            if outcome.error_code in REFUSALS and not job.is_unsure:
                self.locals.note_away(ctx, job.local)
                return self._make(ctx, replace(job, local=0), saved.tries + 1)
            self._put(replace(job, is_unsure=True))
            ctx.reject(f"local index {job.local} does not answer: ask again later: {outcome.reject_message}")
        result: MakeResult = outcome.value
        if result.tag == "full":
            self.locals.note_children(job.local, result.full)
            self.locals.note_away(ctx, job.local)
            return self._make(ctx, replace(job, local=0, is_unsure=False), saved.tries + 1)
        if result.tag == "busy":
            self._put(replace(job, is_unsure=True))
            ctx.reject(f"your {job.kind} is being made; ask again in a moment")
        if result.tag == "err":
            self._end(job)
            ctx.reject(f"no {job.kind} could be made: {result.err}")
        assert local.canister is not None, "it has answered"
        self.locals.note_children(job.local, result.ok.children)
        self.locals.grow(ctx)
        entry = Entry(result.ok.canister, local.canister)
        job = replace(job, made=entry)
        self._put(job)
        return self._keep(ctx, job, entry, self.map.part_of(job.owner), 0)

    def _keep(
        self, ctx: Context, job: Job, entry: Entry, part: Principal | None, tries: int
    ) -> Entry | Pending[Entry]:
        """Keep the entry of a child here, or in its part; what cannot be kept now is kept later."""
        if not self.map.is_split(self.locals.rule(ctx).entries_max) or (part is None and not tries):
            self.map.keep(job.kind, job.owner, entry)
            self._end(job)
            return entry
        if part is None or tries > MAP_HOP_COUNT_MAX:
            return entry
        call = PartDoor(part).map_keep(MapEntry(job.owner, job.kind, entry))
        try:
            return self._ask(ctx, job, call, self.kept, tries)
        except Reject as reject:
            ctx.log(f"the entry of {job.owner} is kept later: {reject.message}")
            return entry

    @continuation
    def kept(self, ctx: Context, outcome: Outcome[KeepResult], saved: Asked) -> Entry | Pending[Entry]:
        """Answer with the child; where this part does not take its entry, another does, or this one later."""
        job = self._take_up(ctx, saved)
        assert job.made is not None, "only an entry is kept"
        if outcome.ok and outcome.value.tag == "moved":
            return self._keep(ctx, job, job.made, outcome.value.moved, saved.tries + 1)
        if outcome.ok:
            self._end(job)
        else:
            ctx.log(f"the entry of {job.owner} is kept later: {outcome.reject_message}")
        return job.made

    @update(only=itself)
    def shard_resume(self, ctx: Context, kind: str, owner: Principal) -> Entry | Pending[Entry]:
        """Go on with a job that nobody waits for any more."""
        job = self.jobs.get((owner.raw, kind))
        if job is None or (job.sent_ns and ctx.now_ns - job.sent_ns < LOST_NS):
            ctx.reject("there is nothing to go on with")
        return self._go_on(ctx, job)

    # looking

    def look(self, ctx: Context) -> None:
        """Do what is due: of local indexes, of rollouts, of the map, of jobs."""
        if self.timer_number.get() is None:
            self.timer_number.set(ctx.timer_set(self.tick, every_s=LOOK_S))
        self.locals.look(ctx)
        self.relays.look(ctx)
        self.map.go_on(ctx, self.locals.rule(ctx).entries_max)
        for job in list(self.jobs.values(limit=SHARD_MAKING_PER_TICK_COUNT_MAX)):
            if job.sent_ns and ctx.now_ns - job.sent_ns < LOST_NS:
                continue
            if job.local:
                ctx.notify(OwnDoor(ctx.id).shard_resume(job.kind, job.owner))
            else:
                self._end(job)

    @timer
    def tick(self, ctx: Context) -> None:
        """Look."""
        self.look(ctx)

    @update
    def fleet_locals_look(self, ctx: Context) -> None:
        """Do now what is due; the index looks every 10 seconds by itself."""
        require_operator(ctx)
        self.look(ctx)

    # methods

    @composite_query
    def fleet_find(self, ctx: Context, kind: str, owner: Principal) -> Entry | None:
        """Find an owner's child of a kind, wherever its entry is; the owner may ask, and who operates the
        fleet, and everybody where the author lets them.
        """
        if ctx.caller != owner and not self.locals.rule(ctx).is_public:
            require_operator(ctx)
        return self.find(ctx, kind, owner)

    @update(only=same_fleet)
    def shard_told(self, ctx: Context, changes: list[EntryChange], children: nat64) -> list[nat32]:
        """Take a local index's word for its own children; give the places of what it is to say again."""
        local = self.locals.of(ctx.caller)
        if local is None or local.state.tag in ("dismissed", "gone") or len(changes) > SHARD_TOLD_COUNT_MAX:
            ctx.reject(f"{ctx.caller} is no local index of this fleet")
        self.locals.note_children(local.number, children)
        again: list[int] = []
        for at, change in enumerate(changes):
            is_open = (change.owner.raw, change.kind) in self.jobs
            if is_open or not self.map.change(ctx, ctx.caller, change):
                again.append(at)
        return again

    @update
    def fleet_local_add(self, ctx: Context, subnet: SubnetChoice | None) -> AddResult:
        """Begin to add a local index, on a subnet or where the node makes what an index makes."""
        require_operator(ctx)
        result = self.locals.add(ctx, subnet)
        self.look(ctx)
        return result

    @update
    def fleet_local_set(
        self, ctx: Context, canister: Principal, order: LocalOrder
    ) -> AddResult | Pending[AddResult]:
        """Take a local index out of rotation, put it in again, dismiss it, or take it back."""
        require_operator(ctx)
        local = self.locals.of(canister)
        if local is None or local.state.tag == "gone":
            return AddResult.err(f"{canister} is no local index of this fleet")
        if order.tag == "reinstate":
            self.relays.again(local.number)
        return self.locals.order(ctx, local, order)

    @update
    def fleet_local_rollout_go_on(self, ctx: Context, kind: str) -> AddResult:
        """Order a rollout again at the local index where it halted."""
        require_operator(ctx)
        if self.relays.go_on(ctx, kind):
            return AddResult.ok(0)
        return AddResult.err(f"no rollout of {kind} has halted at a local index")

    @query
    def fleet_locals(self, ctx: Context) -> ShardsStatus:
        """Return local indexes, the map, and rollouts on their way through them."""
        require_operator(ctx)
        return ShardsStatus(
            self.locals.status(ctx),
            len(self.map.entries),
            len(self.place.buckets()),
            len(self.jobs),
            len(self.map.changes),
            list(self.relays.relays.values()),
        )

    @composite_query
    def fleet_locals_census(self, ctx: Context) -> ShardsCensus:
        """Return the last censuses of this index and of the local ones, added up."""
        require_operator(ctx)
        sums = {totals.kind: totals for totals in self.fleet.census.totals.values()}
        missing: list[Principal] = []
        for local in self.locals.known.values():
            if local.canister is None or local.state.tag == "gone":
                continue
            outcome = ctx.query(ShardDoor(local.canister).fleet_census())
            if not outcome.ok:
                missing.append(local.canister)
                continue
            for totals in outcome.value.totals:
                known = sums.get(totals.kind)
                sums[totals.kind] = totals if known is None else _sum(known, totals)
        return ShardsCensus(list(sums.values()), missing)


def _sum(one: Totals, other: Totals) -> Totals:
    numbers = (getattr(one, each.name) + getattr(other, each.name) for each in fields(Totals)[1:])
    return Totals(one.kind, *numbers)
