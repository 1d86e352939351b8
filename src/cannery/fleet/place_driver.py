"""The driver of placement: makes buckets when the author's predicate says so, and moves groups to and from
them, one change of the table at a time. The inner half of `place`.

A change goes in steps that may each be repeated: with a list the source first says which groups go where;
targets are told, then sources; they move groups among themselves; the new table holds; all adopt it. What a
crash, a stopped bucket or a forced stop leaves unfinished, the next tick goes on with. The canister is a
`Placer`; a bucket's part is `place_holding`'s; making children is `nursery`'s.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import (
    Context,
    Outcome,
    Principal,
    Reject,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    nat64,
    record,
    same_fleet,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses, canister_of
from cannery.errors import RejectCode
from cannery.fleet.directory_types import Child as FleetChild
from cannery.fleet.index import Index
from cannery.fleet.nursery import AlreadyMade
from cannery.fleet.place_changes import (
    POLL_S,
    Bucket,
    Planned,
    plan_first,
    plan_given_up,
    plan_joining,
    plan_kept,
    plan_look_ns,
    plan_lost,
    plan_parting,
    plan_swapping,
    targets_of,
)
from cannery.fleet.place_listing import (
    Listing,
    plan_listed,
    plan_listed_loss,
    plan_overflow,
)
from cannery.fleet.place_members import Members
from cannery.fleet.place_orders import ASKED_NS_MAX, plan_again, plan_due, plan_told, split
from cannery.fleet.place_types import (
    ADOPTED,
    DONE,
    LISTED,
    TOLD,
    UNTOLD,
    Adoption,
    Change,
    Cut,
    Held,
    Placer,
    PlaceRule,
    Report,
    Stand,
)
from cannery.fleet.placement_census import Census, ChildState, free_slots
from cannery.fleet.placement_migration import Migration
from cannery.fleet.placement_policy import AnchorHash
from cannery.fleet.placement_scale import (
    UNLOCKED,
    ScaleState,
    ScaleStep,
    SpawnHold,
    SpawnLock,
    plan_scale,
    plan_spawn,
    plan_spawn_end,
)
from cannery.fleet.placement_table import decode_table
from cannery.limits import MOVING_WAIT_NS_MAX, PLACE_ORDER_COUNT_MAX


@record
class Spawned:
    """A creation under way: the number of its hold."""

    number: nat64


@record
class Asked:
    """An order that was sent to a bucket."""

    number: nat64
    canister: Principal
    is_adoption: bool


class Driver(Component, prefix="place"):
    """Know the buckets, make them, and carry changes of the table out."""

    fleet = Uses(Index)
    members = Members()
    held = StableCell(Held, Held(0, b""))
    ready = StableSet(Principal)
    spares = StableSet(Principal)
    draining = StableSet(Principal)
    lost = StableSet(Principal)
    lock = StableCell(SpawnLock, UNLOCKED)
    scale = StableCell(ScaleState, ScaleState())
    reason = StableCell(str, "")
    change = StableCell(Change | None, None)
    migration = StableCell(Migration | None, None)
    stands = StableMap(Principal, Stand)
    put_off = StableSet(Principal)
    stuck = StableSet(Principal)
    marks = StableMap(Principal, nat64)
    next_ns = StableCell(nat64, 0)
    alarm = StableCell(tuple[nat64, nat64], (0, 0))

    # for the author

    def buckets(self) -> tuple[Principal, ...]:
        """List the buckets of the table, or where groups are listed all."""
        table = self.held.get().table
        if table == LISTED:
            return tuple(child.id for child in self.members.children.values())
        return decode_table(table).children if table else ()

    def arriving(self) -> tuple[Principal, ...]:
        """List the buckets that groups are moving to now: whoever asks all buckets asks these last."""
        change = self.change.get()
        return () if change is None else self._targets(change)

    def census(self) -> Census:
        """Return what is known of the buckets, in the order in which they joined."""
        return self.members.census()

    # methods

    def ask(self, ctx: Context, canister: Principal) -> None:
        try:
            ctx.call(Bucket(canister).place_report(), then=self.reported, saved=canister)
        except Reject as reject:
            ctx.log(f"{canister} is not asked now: {reject.message}")

    @continuation
    def reported(self, ctx: Context, outcome: Outcome[Report], saved: Principal) -> None:
        """Take what a bucket was asked for."""
        if outcome.ok:
            self._note(saved, outcome.value)
            self.go_on(ctx)

    @update(only=same_fleet)
    def place_told(self, ctx: Context, report: Report) -> None:
        """Take a bucket's report."""
        if not self.members.has(ctx.caller):
            ctx.reject(f"{ctx.caller} is no bucket of this index")
        self._note(ctx.caller, report)
        self.go_on(ctx)

    # looking

    def go_on(self, ctx: Context) -> None:
        """Go on with the change under way, unless the next round does; look around where there is none."""
        if not self._goes_on_next(ctx):
            self._drive(ctx)
        if self.change.get() is None:
            self.look(ctx)

    @timer
    def place_next(self, ctx: Context) -> None:
        """Go on with orders for which a round had no room."""
        self.next_ns.set(0)
        self.go_on(ctx)

    def _goes_on_next(self, ctx: Context) -> bool:
        return ctx.now_ns - self.next_ns.get() < MOVING_WAIT_NS_MAX

    def look(self, ctx: Context) -> None:
        """Go on with the change under way, or see whether one should begin."""
        rule = self.rule(ctx)
        self._find_gone(ctx)
        if self.change.get() is None:
            self._begin(ctx, rule)
        self._drive(ctx)
        self._scale(ctx, rule)
        self._arm(ctx, rule)

    @timer
    def tick(self, ctx: Context) -> None:
        """Ask again whoever has not answered, and look."""
        self.alarm.set((0, 0))
        self.put_off.clear()
        change = self.change.get()
        if change is not None and not change.is_published:
            turn = ctx.now_ns // (POLL_S * 1_000_000_000)
            again = plan_again(dict(self.stands.items()), frozenset(self._targets(change)), turn)
            self._find_stuck(again)
            self._order(ctx, change, again)
        for child in self.members.children.values():
            if child.state.tag == "away":
                self.ask(ctx, child.id)
        self.look(ctx)

    def _find_stuck(self, told: dict[Principal, Stand]) -> None:
        """Note which buckets have given nothing since they were asked before."""
        for who in told:
            given = self.members.given.get(who, 0)
            if self.marks.get(who) == given:
                self.stuck.add(who)
            else:
                self.stuck.discard(who)
                self.marks.put(who, given)

    def _arm(self, ctx: Context, rule: PlaceRule) -> None:
        is_busy = self.change.get() is not None or bool(self.lock.get().holds)
        due_ns = plan_look_ns(self.scale.get(), rule, ctx.now_ns, is_busy=is_busy)
        number, at_ns = self.alarm.get()
        if at_ns and ctx.now_ns <= at_ns <= due_ns:
            return
        if at_ns:
            ctx.timer_cancel(number)
        self.alarm.set((ctx.timer_set(self.tick, at_ns=due_ns), due_ns))

    def _scale(self, ctx: Context, rule: PlaceRule) -> None:
        """Ask the predicates, and begin what they say."""
        census = self.census()
        lock = self.lock.get()
        is_changing = self.change.get() is not None or self.ready.first() is not None or bool(lock.holds)
        step = self._step(ctx, rule, census, is_changing=is_changing)
        self.scale.set(step.state)
        self.reason.set(step.reason)
        if step.action == "shrink" and step.leaving is not None:
            self.draining.add(step.leaving)
            self._begin(ctx, rule)
            self._drive(ctx)
            return
        spawn = plan_spawn(
            rule.spawn, lock, census, ctx.now_ns, wanted_count=1 if step.action == "grow" else 0
        )
        self.lock.set(spawn.lock)
        for hold in spawn.begun:
            self.spawn(ctx, rule, hold)

    def _step(self, ctx: Context, rule: PlaceRule, census: Census, *, is_changing: bool) -> ScaleStep:
        state = self.scale.get()
        if not len(census):
            if is_changing:
                return ScaleStep(state, "none", "the first bucket is being made")
            return ScaleStep(state, "grow", "there is no bucket yet")
        policy = rule.policy or AnchorHash(decode_table(self.held.get().table))
        step = plan_scale(rule.scale, policy, state, census, ctx.now_ns, is_changing=is_changing)
        # AnchorHash cannot pass a full bucket over: there some keys have no place at all.
        is_full = any(child.state.tag == "serving" and not free_slots(child) for child in census)
        is_stuck = is_full and not is_changing and rule.policy is None
        if step.action == "none" and is_stuck and len(census) < rule.scale.child_count_max:
            return ScaleStep(ScaleState(changed_ns=ctx.now_ns), "grow", "a bucket is full")
        return step

    # making buckets

    def spawn(self, ctx: Context, rule: PlaceRule, hold: SpawnHold) -> None:
        spare = self.spares.first()
        if spare is not None:
            self.spares.discard(spare)
            self.lock.set(plan_spawn_end(self.lock.get(), hold.number, ctx.now_ns).lock)
            self.ready.add(spare)
            return
        owner = Principal.opaque(b"place" + hold.number.to_bytes(8, "big"))
        try:
            arg = self._placer().place_arg(ctx, self._first_held(rule))
            saved = Spawned(hold.number)
            self.fleet.create(ctx, rule.kind, owner, arg, then=self.made, saved=saved, subnet=rule.subnet)
        except (LookupError, AlreadyMade, Reject) as error:
            text = error.message if isinstance(error, Reject) else str(error)
            ctx.log(f"no bucket is made now: {text}")
            self.lock.set(plan_spawn_end(self.lock.get(), hold.number, ctx.now_ns).lock)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[FleetChild], saved: Spawned) -> None:
        """Let a new bucket join, or give its hold back."""
        end = plan_spawn_end(self.lock.get(), saved.number, ctx.now_ns)
        self.lock.set(end.lock)
        if outcome.ok:
            (self.ready if end.canister == "adopt" else self.spares).add(outcome.value.canister)
            self.look(ctx)

    # changes

    def _begin(self, ctx: Context, rule: PlaceRule) -> None:
        """Begin the change that is due, if there is one."""
        held = self.held.get()
        lost, ready, leaving = self._lost_member(), self.ready.first(), self.draining.first()
        moved = self._moved_member()
        number = held.number + 1
        if moved is not None and lost is None:
            self.members.rename(*moved)
        if rule.policy is not None:
            self._begin_listed(ctx, rule.policy, lost, moved)
        elif lost is not None:
            self.start(plan_lost(held, number, lost, ctx.now_ns))
        elif moved is not None:
            self.start(plan_swapping(held, number, *moved, ctx.now_ns))
        elif ready is not None:
            self.ready.discard(ready)
            if held.table:
                self.start(plan_joining(held, number, ready, ctx.now_ns))
            else:
                seed = ctx.random_bytes(16)
                self.start(plan_first(number, ready, rule.capacity_children, seed, ctx.now_ns))
        elif leaving is not None:
            self.draining.discard(leaving)
            if leaving in self.buckets() and len(self.buckets()) > 1:
                self.start(plan_parting(held, number, leaving, ctx.now_ns))

    def _begin_listed(
        self, ctx: Context, policy: Listing, lost: Principal | None, moved: tuple[Principal, Principal] | None
    ) -> None:
        """Begin the change that is due where groups are listed."""
        number, now_ns = self.held.get().number + 1, ctx.now_ns
        ready, leaving = self.ready.first(), self.draining.first()
        if lost is not None:
            self.start(Planned(plan_listed(number, "drop", lost, now_ns)))
        elif moved is not None:
            self.start(Planned(plan_listed(number, "swap", moved[1], now_ns)))
        elif ready is not None:
            self.ready.discard(ready)
            self.start(Planned(plan_listed(number, "join", ready, now_ns)))
        elif leaving is not None:
            self.draining.discard(leaving)
            if leaving in self.buckets() and len(self.buckets()) > 1:
                self.start(Planned(plan_listed(number, "part", leaving, now_ns, moves=True)))
        elif (over := plan_overflow(policy, self.census())) is not None:
            self.start(Planned(plan_listed(number, "spill", over, now_ns, moves=True)))

    def start(self, planned: Planned | None) -> None:
        """Keep a change, and who takes part in it; None: the last bucket was lost, begin anew."""
        self._forget_stands()
        if planned is None:
            self.held.set(Held(self.held.get().number + 1, b""))
            self._forget_lost()
            return
        change = planned.change
        if change.kind == "join" and not self.members.has(change.canister):
            self.members.add(change.canister)
        if change.kind == "part":
            self.members.note(change.canister, state=ChildState.draining())
        for canister in self.members.orders:
            if canister not in self.lost:
                self.stands.put(canister, Stand(UNTOLD if change.moves else DONE, 0))
        self.change.set(change)
        self.migration.set(planned.migration)

    def _drive(self, ctx: Context) -> None:
        """Send the orders that are due; publish the table once all groups are where they belong."""
        change = self.change.get()
        if change is None:
            return
        stands = dict(self.stands.items())
        if not change.is_published:
            if change.moves and self.migration.get() is None:
                self._cut(ctx, change)
                return
            if change.moves and not self._is_moved(ctx, change, stands):
                return
            change = replace(change, is_published=True)
            self.change.set(change)
            self.held.set(Held(change.number, change.table))
        waiting = {who: stand for who, stand in stands.items() if stand.step < ADOPTED}
        self._order(ctx, change, waiting)
        if not waiting:
            self._finish(ctx, change)

    def _cut(self, ctx: Context, change: Change) -> None:
        """Let the bucket that gives groups say which of them go where."""
        stand = self.stands[change.canister]
        policy = self.rule(ctx).policy
        if stand.asked_ns and ctx.now_ns - stand.asked_ns < ASKED_NS_MAX:
            return
        children = self.census().children
        child = self.census().child(change.canister)
        target = children[-1].id if change.kind == "spill" else None
        cut = Cut(change.number, type(policy).__name__, list(children), target, child.capacity_slots)
        try:
            saved = Asked(change.number, change.canister, False)
            ctx.call(Bucket(change.canister).place_cut(cut), then=self.was_cut, saved=saved)
        except Reject as reject:
            ctx.log(f"{change.canister} is asked for its groups later: {reject.message}")
            return
        self.stands.put(change.canister, Stand(stand.step, ctx.now_ns))

    @continuation
    def was_cut(self, ctx: Context, outcome: Outcome[Migration | None], saved: Asked) -> None:
        """Move the groups as their bucket has divided them; leave them where nobody has room for them."""
        change, stand = self.change.get(), self.stands.get(saved.canister)
        if change is None or change.number != saved.number or stand is None or not change.moves:
            return
        self.stands.put(saved.canister, Stand(stand.step, 0))
        if not outcome.ok:
            ctx.log(f"{saved.canister} has not divided its groups: {outcome.reject_message}")
            if outcome.reject_code == RejectCode.DESTINATION_INVALID:
                self.lose(ctx, saved.canister)
                self.go_on(ctx)
            return
        if outcome.value is None:
            ctx.log(f"the others lack the room for what {saved.canister} holds: it stays")
            self._give_up(replace(change, keeps=True))
        else:
            self.migration.set(outcome.value)
        self.go_on(ctx)

    def _give_up(self, change: Change) -> None:
        self.change.set(plan_given_up(self.held.get(), change))
        for who in list(self.stands):
            self.stands.put(who, Stand(DONE, 0))

    def _targets(self, change: Change) -> tuple[Principal, ...]:
        """Return the buckets that groups move to."""
        if change.table != LISTED:
            return targets_of(change)
        migration = self.migration.get() if change.moves else None
        return () if migration is None else tuple(dict.fromkeys(leg.target for leg in migration.legs))

    def _is_moved(self, ctx: Context, change: Change, stands: dict[Principal, Stand]) -> bool:
        """Tell targets, then sources, of a migration; say whether all are done with it."""
        if any(stand.step == UNTOLD for stand in stands.values()):
            targets = frozenset(self._targets(change))
            stuck, put_off = frozenset(self.stuck), frozenset(self.put_off)
            self._order(ctx, change, plan_told(stands, targets, stuck, put_off, ctx.now_ns))
        return all(stand.step >= DONE for stand in stands.values())

    def _order(self, ctx: Context, change: Change, whom: dict[Principal, Stand]) -> None:
        """Send buckets the order that is due; a bounded number of them in a round, the others in the next."""
        waiting = plan_due(whom, self.put_off, ctx.now_ns)
        due = waiting[:PLACE_ORDER_COUNT_MAX]
        if len(waiting) > len(due) and not self._goes_on_next(ctx):
            self.next_ns.set(ctx.now_ns)
            ctx.timer_set(self.place_next, after_s=0)
        migration = None if change.is_published or not due else self.migration.get()
        parts = {} if migration is None else split(migration, due)
        adoption = Adoption(change.number, change.table, change.is_forced)
        for canister in due:
            saved = Asked(change.number, canister, change.is_published)
            bucket = Bucket(canister)
            call = bucket.place_begin(parts[canister]) if parts else bucket.place_adopt(adoption)
            try:
                ctx.call(call, then=self.answered, saved=saved)
            except Reject as reject:
                ctx.log(f"{canister} is told later: {reject.message}")
                continue
            self.stands.put(canister, Stand(whom[canister].step, ctx.now_ns))

    @continuation
    def answered(self, ctx: Context, outcome: Outcome[Report], saved: Asked) -> None:
        """Note what a bucket answered, and go on; one that did not take the order is asked again."""
        change, stand = self.change.get(), self.stands.get(saved.canister)
        if change is None or change.number != saved.number or stand is None:
            return
        self.stands.put(saved.canister, Stand(stand.step, 0))
        if outcome.ok:
            if saved.is_adoption:
                self.stands.put(saved.canister, Stand(ADOPTED, 0))
            elif stand.step == UNTOLD:
                self.stands.put(saved.canister, Stand(TOLD, 0))
            self._note(saved.canister, outcome.value)
            self.go_on(ctx)
        elif outcome.reject_code == RejectCode.DESTINATION_INVALID:
            self.lose(ctx, saved.canister)
            self.go_on(ctx)
        else:
            ctx.log(f"{saved.canister} did not take change {saved.number}: {outcome.reject_message}")
            self.put_off.add(saved.canister)
            self.go_on(ctx)

    def _note(self, canister: Principal, report: Report) -> None:
        """Take a report into the census, and into the change under way."""
        self.members.note(canister, report=report)
        self.put_off.discard(canister)
        change, stand = self.change.get(), self.stands.get(canister)
        if change is None or stand is None or report.number != change.number or stand.step >= DONE:
            return
        if all(peer in self.lost for peer in report.open_peers):
            self.stands.put(canister, Stand(DONE, stand.asked_ns))

    def _finish(self, ctx: Context, change: Change) -> None:
        """End a change: a bucket that has parted is deleted."""
        self.change.clear()
        self.migration.clear()
        self._forget_stands()
        self._forget_lost()
        if change.kind in ("part", "drop") and not change.keeps:
            self.members.drop(change.canister)
            self.lost.discard(change.canister)
            self.fleet.departures.begin(ctx, change.canister, recycle=False)
        elif change.keeps:
            self.members.note(change.canister, state=ChildState.serving())
        self._begin(ctx, self.rule(ctx))
        self._drive(ctx)

    def _forget_stands(self) -> None:
        for kept in (self.stands, self.put_off, self.stuck, self.marks):
            kept.clear()

    # buckets that are gone

    def _find_gone(self, ctx: Context) -> None:
        """See which buckets were deleted, recycled or moved behind placement's back."""
        for canister in list(self.members.orders):
            child = self.fleet.directory.get(canister)
            if (child is None or child.state.tag == "leaving") and canister not in self.lost:
                self.lose(ctx, canister)

    def note_leaving(self, ctx: Context, canister: Principal) -> None:
        """Go on at once without a bucket that was deleted or recycled."""
        if self.members.has(canister):
            self.lose(ctx, canister)
            self.go_on(ctx)

    def lose(self, ctx: Context, canister: Principal) -> None:
        """Go on without a bucket that is gone, with whatever groups it held."""
        if not self.members.has(canister):
            return
        ctx.log(f"the bucket {canister} is gone, and what it held; the others go on")
        self.lost.add(canister)
        self.stands.delete(canister)
        change = self.change.get()
        if change is None or change.is_published or not change.moves:
            return
        if change.table == LISTED:
            is_cut = self.migration.get() is not None
            change = plan_listed_loss(change, canister, is_cut=is_cut)
            if not change.moves:
                self._give_up(change)
                return
            self.change.set(change)
            return
        change = replace(change, is_forced=True)
        if change.kind == "join" and change.canister == canister:
            self._give_up(change)
            return
        if change.kind == "part" and change.canister != canister:
            change = plan_kept(change, canister)
        self.change.set(change)

    def _lost_member(self) -> Principal | None:
        buckets = self.buckets()
        return next((canister for canister in self.lost if canister in buckets), None)

    def _moved_member(self) -> tuple[Principal, Principal] | None:
        """Return a bucket that `fleet replace` has moved to another canister, and that canister."""
        for canister in self.buckets():
            child = self.fleet.directory.get(canister)
            if child is not None and child.state.tag == "replaced":
                return canister, child.state.replaced
        return None

    def _forget_lost(self) -> None:
        buckets = self.buckets()
        for canister in list(self.lost):
            if canister not in buckets:
                self.lost.discard(canister)
                self.members.drop(canister)

    # the author

    def rule(self, ctx: Context) -> PlaceRule:
        rule, table = self._placer().place_rule(ctx), self.held.get().table
        if table and (table == LISTED) != (rule.policy is not None):
            ctx.reject(
                "a placement that began with AnchorHash stays with it, and one that lists groups does so"
            )
        return rule

    def _first_held(self, rule: PlaceRule) -> Held:
        """Return what a new bucket goes by."""
        held = self.held.get()
        return Held(held.number, LISTED) if rule.policy is not None else held

    def _placer(self) -> Placer:
        canister = canister_of(self)
        if not isinstance(canister, Placer):
            raise TypeError(f"{type(canister).__name__} has a Place and lacks methods of place_types.Placer")
        return canister
