"""A bucket's part in placement, as one component of a canister: `holding = Holding()`.

It knows who answers for a group (`route`), takes chunks of groups from neighbours and sends its own, as the
index orders. All of it is records: a crash between any two steps loses nothing and repeats nothing. Orders
come from the index alone, chunks from the leg's source alone, both stamped by the node. The canister is a
`Keeper`. Pure decisions are `placement_migration`'s.
"""

from __future__ import annotations

from cannery import (
    Context,
    Outcome,
    Principal,
    Reject,
    Service,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    index,
    method,
    nat64,
    operator,
    query,
    record,
    same_fleet,
    timer,
    update,
)
from cannery.cdk.component import Component, canister_of
from cannery.fleet.place_listing import plan_cut
from cannery.fleet.place_types import (
    LISTED,
    Adoption,
    Cargo,
    Cut,
    Given,
    Held,
    Keeper,
    Moving,
    Report,
    Wanted,
)
from cannery.fleet.placement_migration import (
    Arrival,
    Chunk,
    ChunkRule,
    Departure,
    Migration,
    MigrationError,
    Mover,
    Redirect,
    Route,
    Serve,
    is_on_its_way,
    mover_of,
    plan_acknowledged,
    plan_arrival,
    plan_chunk,
    plan_refused,
    plan_route,
)
from cannery.fleet.placement_migration import Moving as Legs
from cannery.fleet.placement_policy import Need
from cannery.fleet.placement_table import child_of, decode_table
from cannery.limits import (
    MOVING_GROUP_COUNT_MAX,
    MOVING_LEG_COUNT_MAX,
    MOVING_SCAN_COUNT_MAX,
    MOVING_SIZE_BYTES_MAX,
    MOVING_WAIT_NS_MAX,
)

LOST_NS = 600_000_000_000
REPORT_PART = 20
RULE = ChunkRule(MOVING_GROUP_COUNT_MAX, MOVING_SIZE_BYTES_MAX, MOVING_SCAN_COUNT_MAX)
NOT_TAKEN = frozenset({"IC0207", "IC0301", "IC0406", "IC0503", "IC0508", "IC0509", "IC0515", "IC0537"})
"""Codes of rejects after which a chunk was certainly not taken: taking is one message without a call."""


class Neighbour(Service):
    """What a bucket asks of another one."""

    @method
    def place_take(self, cargo: Cargo) -> None: ...


class Overseer(Service):
    """What a bucket tells its index."""

    @method
    def place_told(self, report: Report) -> None: ...

    @method
    def place_gone(self, given: Given) -> None: ...

    @method
    def place_gave(self, target: Principal, groups: list[bytes]) -> None: ...

    @method
    def place_want(self, wanted: Wanted) -> None: ...


@record
class Sent:
    """A chunk that was sent: what its answer needs."""

    migration: nat64
    target: Principal
    number: nat64
    names: list[bytes]


class Holding(Component, prefix="place.holding"):
    """Hold groups, give and take them."""

    held = StableCell(Held, Held(0, b""))
    moving = StableCell(Moving | None, None)
    departures = StableMap(Principal, Departure)
    arrivals = StableMap(Principal, Arrival)
    sent_ns = StableMap(Principal, nat64)
    put_off = StableSet(Principal)
    next_leg = StableCell(Principal | None, None)
    sending_ns = StableCell(nat64, 0)
    told_slots = StableCell(nat64, 0)
    given_count = StableCell(nat64, 0)
    given = StableMap(bytes, nat64)
    unlisted = StableMap(Principal, list[bytes])

    # for the author

    def start(self, held: Held) -> None:
        """Begin with the index's table; call it in `@init`."""
        self.held.set(held)

    def route(self, ctx: Context, group: bytes, *, is_forwarded: bool = False) -> Route:
        """Decide who answers for a group: this bucket, another one (`Forward`), or whom the client is to ask
        (`Redirect`; None: the index).
        """
        moving = self.moving.get()
        if moving is None:
            table = self.held.get().table
            if not table:
                return Redirect(None)
            owner = self._owner(ctx, group) if table == LISTED else child_of(decode_table(table), group)
            return plan_route(group, ctx.id, owner, Legs(), is_forwarded=is_forwarded)
        if moving.before == LISTED:
            owner = self._owner(ctx, group)
            return plan_route(group, ctx.id, owner, self._listed_legs(), is_forwarded=is_forwarded)
        old = child_of(decode_table(moving.before), group)
        new = child_of(decode_table(moving.after), group)
        return plan_route(group, ctx.id, old, self._legs(ctx, old, new), is_forwarded=is_forwarded)

    def _owner(self, ctx: Context, group: bytes) -> Principal | None:
        """Return this bucket if the index gave it the group, None where only the index knows."""
        return ctx.id if self.given.get(group) is not None else None

    def _listed_legs(self) -> Legs:
        return Legs(
            tuple((departure, mover_of(departure.leg)) for departure in self.departures.values()),
            tuple((arrival, mover_of(arrival.leg)) for arrival in self.arrivals.values()),
        )

    def _legs(self, ctx: Context, old: Principal, new: Principal) -> Legs:
        """Return the one leg that a group is on, if this bucket has a part in it."""
        if old == new:
            return Legs()
        if ctx.id == old:
            departure = self.departures.get(new)
            return Legs() if departure is None else Legs(departures=((departure, _any_group),))
        arrival = self.arrivals.get(old) if ctx.id == new else None
        return Legs() if arrival is None else Legs(arrivals=((arrival, _any_group),))

    @property
    def is_moving(self) -> bool:
        """Whether a migration is under way here."""
        return self.moving.get() is not None

    def has_on_its_way(self) -> bool:
        """Tell whether groups are on their way to another bucket: nobody answers for them at the moment."""
        return self.is_moving and any(is_on_its_way(departure) for departure in self.departures.values())

    def note_change(self, ctx: Context) -> None:
        """Tell the index how full this bucket is, where that changed by a twentieth or it is full; call it
        after a write.
        """
        load = self._keeper().place_load(ctx)
        step = max(1, load.capacity_slots // REPORT_PART)
        is_full = load.used_slots >= load.capacity_slots
        told = self.told_slots.get()
        if abs(load.used_slots - told) >= step or (is_full and told < load.capacity_slots):
            self.tell(ctx)

    def note_gone(self, ctx: Context, group: bytes) -> None:
        """Give a group back that has no keys any more, where the index lists groups; call it after a
        deletion. The next key of it is placed anew.
        """
        number = self.given.get(group)
        if number is None or ctx.fleet is None:
            return
        self.given.delete(group)
        try:
            ctx.notify(Overseer(ctx.fleet).place_gone(Given(group, number)))
        except Reject as reject:
            # The list names this bucket for longer than it need: it is given the group anew when asked.
            ctx.log(f"the index is not told that a group is gone: {reject.message}")

    def want_room(self, ctx: Context, group: bytes, need: Need) -> None:
        """Say that a group does not fit here any more, where the index lists groups: it is moved to a bucket
        that has room for all of it, if there is one.
        """
        self.tell(ctx)
        if ctx.fleet is None:
            return
        try:
            wanted = Wanted(group, need.key_slots, need.group_slots)
            ctx.notify(Overseer(ctx.fleet).place_want(wanted))
        except Reject as reject:
            ctx.log(f"the index is not asked for room now: {reject.message}")

    def tell(self, ctx: Context) -> None:
        """Tell the index how this bucket stands; where it cannot be told it will ask."""
        if ctx.fleet is None:
            return
        report = self.report(ctx)
        self.told_slots.set(report.load.used_slots)
        try:
            ctx.notify(Overseer(ctx.fleet).place_told(report))
        except Reject as reject:
            ctx.log(f"the index is not told now: {reject.message}")

    def report(self, ctx: Context) -> Report:
        """Return how this bucket stands."""
        keeper, moving = self._keeper(), self.moving.get()
        peers = [target for target, departure in self.departures.items() if not departure.is_done]
        peers += [source for source, arrival in self.arrivals.items() if not arrival.is_done]
        peers += self.unlisted.keys()
        if not keeper.place_is_settled():
            peers.append(ctx.id)
        number = self.held.get().number if moving is None else moving.number
        return Report(number, keeper.place_load(ctx), peers, self.given_count.get())

    # orders of the index

    @update(only=index)
    def place_begin(self, ctx: Context, migration: Migration) -> Report:
        """Take part in a migration; asked again, go on with it."""
        if migration.number > self.held.get().number:
            current = self.moving.get()
            if current is None or current.number < migration.number:
                self._begin(ctx, migration)
            self.put_off.clear()
            self.next_leg.clear()
            for target in list(self.unlisted):
                self._list(ctx, target)
            self._go_on(ctx)
        return self.report(ctx)

    def _begin(self, ctx: Context, migration: Migration) -> None:
        if self._has_open_legs():
            ctx.reject(f"an earlier migration than {migration.number} is not finished here")
        self._forget_legs()
        # Whoever begins a migration has adopted all before it.
        self.held.set(Held(migration.number - 1, migration.before))
        self.moving.set(Moving(migration.number, migration.before, migration.after))
        for leg in migration.legs:
            if leg.source == ctx.id:
                self.departures.put(leg.target, Departure(leg))
            elif leg.target == ctx.id:
                self.arrivals.put(leg.source, Arrival(leg))

    @update(only=index)
    def place_adopt(self, ctx: Context, adoption: Adoption) -> Report:
        """Go by a new table from now on."""
        if adoption.number > self.held.get().number:
            if not adoption.is_forced and self._has_open_legs():
                ctx.reject(f"change {adoption.number} is not finished here")
            self._forget_legs()
            self.held.set(Held(adoption.number, adoption.table))
        for target in list(self.unlisted):
            self._list(ctx, target)
        return self.report(ctx)

    @update(only=index)
    def place_give(self, ctx: Context, given: Given) -> None:
        """Answer for a group from now on; not for one that is another's by now, which the index is about to
        hear.
        """
        legs = self._listed_legs() if self.is_moving else Legs()
        is_away = any(given.group in groups for groups in self.unlisted.values())
        if not is_away and isinstance(plan_route(given.group, ctx.id, ctx.id, legs), Serve):
            self.given.put(given.group, given.number)

    @update(only=index)
    def place_cut(self, ctx: Context, cut: Cut) -> Migration | None:
        """Say which groups of this bucket go where; None where the others lack the room."""
        return plan_cut(cut, ctx.id, list(self._keeper().place_groups(None)))

    @query(only=index | operator)
    def place_report(self, ctx: Context) -> Report:
        """Say how this bucket stands."""
        return self.report(ctx)

    def _has_open_legs(self) -> bool:
        return not all(departure.is_done for departure in self.departures.values()) or not all(
            arrival.is_done for arrival in self.arrivals.values()
        )

    def _forget_legs(self) -> None:
        self.moving.clear()
        self.departures.clear()
        self.arrivals.clear()
        self.sent_ns.clear()
        self.put_off.clear()
        self.next_leg.clear()

    # the source

    def _go_on(self, ctx: Context) -> None:
        """Send the next chunk in the next round: each round has room for requests."""
        is_due = ctx.now_ns - self.sending_ns.get() < MOVING_WAIT_NS_MAX
        if not is_due and self._next_leg(ctx) is not None:
            self.sending_ns.set(ctx.now_ns)
            ctx.timer_set(self.place_send, after_s=0)

    @timer
    def place_send(self, ctx: Context) -> None:
        """Send one chunk."""
        self.sending_ns.set(0)
        departure = self._next_leg(ctx)
        if departure is not None:
            self.next_leg.set(departure.leg.target)
            self._send(ctx, departure)
            self._go_on(ctx)

    def _next_leg(self, ctx: Context) -> Departure | None:
        """Return the leg that a chunk may be sent of: one after the other, and another one where an answer is
        not there at once. What a target did not take is put off until the index asks.
        """
        since_ns, at = ctx.now_ns - MOVING_WAIT_NS_MAX, self.next_leg.get()
        if sum(sent_ns > since_ns for sent_ns in self.sent_ns.values()) >= MOVING_LEG_COUNT_MAX:
            return None
        found = (each for each in self.departures.values(start=at) if self._may_send(ctx, each))
        again = (each for each in self.departures.values(end=at) if self._may_send(ctx, each))
        return next(found, None) or (next(again, None) if at is not None else None)

    def _may_send(self, ctx: Context, departure: Departure) -> bool:
        target = departure.leg.target
        is_waiting = ctx.now_ns - self.sent_ns.get(target, 0) < LOST_NS
        return not (
            departure.is_done or is_waiting or target in self.put_off or self.unlisted.get(target) is not None
        )

    def _send(self, ctx: Context, departure: Departure) -> None:
        """Send the next chunk of a leg; again, where its answer was lost."""
        if is_on_its_way(departure):
            chunk = self._same_chunk(departure)
        else:
            groups = self._keeper().place_groups(departure.passed)
            step = plan_chunk(departure, groups, self._mover(departure), RULE)
            assert step is not None, "a leg that is not done and has nothing on its way has a next chunk"
            departure, chunk = step.departure, step.chunk
        self._send_chunk(ctx, departure, chunk)

    def _send_chunk(self, ctx: Context, departure: Departure, chunk: Chunk) -> None:
        target = departure.leg.target
        numbers = None if departure.leg.is_by_table else [self.given.get(name, 0) for name in chunk.names]
        cargo = Cargo(chunk, [self._keeper().place_pack(name) for name in chunk.names], numbers)
        sent = Sent(departure.leg.migration, target, chunk.number, chunk.names)
        self.departures.put(target, departure)
        self.sent_ns.put(target, ctx.now_ns)
        try:
            ctx.call(Neighbour(target).place_take(cargo), then=self.taken, saved=sent)
        except Reject as reject:
            ctx.log(f"a chunk for {target} is sent later: {reject.message}")
            self._not_taken(ctx, departure, chunk.number, is_certain=True)

    def _same_chunk(self, departure: Departure) -> Chunk:
        """Make a chunk again that was sent: its groups have not changed, because nobody answers for them."""
        moves, names = self._mover(departure), []
        for group in self._keeper().place_groups(departure.passed):
            if departure.sent is not None and group.name > departure.sent:
                break
            if moves(group.name):
                names.append(group.name)
        through = departure.passed if departure.sent is None else departure.sent
        return Chunk(departure.leg, departure.chunk, names, through, departure.is_last_sent)

    def _mover(self, departure: Departure) -> Mover:
        if not departure.leg.is_by_table:
            return mover_of(departure.leg)
        moving = self.moving.get()
        assert moving is not None, "legs stand beside their migration"
        return mover_of(departure.leg, decode_table(moving.before), decode_table(moving.after))

    @continuation
    def taken(self, ctx: Context, outcome: Outcome[None], saved: Sent) -> None:
        """Drop what the target has taken and go on; or have it back."""
        departure = self.departures.get(saved.target)
        if (
            departure is None
            or departure.leg.migration != saved.migration
            or departure.chunk != saved.number
            or not is_on_its_way(departure)
        ):
            return
        if not outcome.ok:
            ctx.log(f"{saved.target} did not take a chunk: {outcome.reject_message}")
            self._not_taken(ctx, departure, saved.number, is_certain=outcome.error_code in NOT_TAKEN)
            return
        keeper = self._keeper()
        for name in saved.names:
            keeper.place_drop(ctx, name)
            if not departure.leg.is_by_table:
                self.given.delete(name)
        self.given_count.value += len(saved.names)
        departure = plan_acknowledged(departure, saved.number)
        self.departures.put(saved.target, departure)
        self.sent_ns.delete(saved.target)
        if saved.names and not departure.leg.is_by_table:
            self.unlisted.put(saved.target, saved.names)
        self._after(ctx, saved.target)

    def _after(self, ctx: Context, target: Principal) -> None:
        """Go on after a chunk, once the index has it on its list."""
        if self.unlisted.get(target) is not None:
            self._list(ctx, target)
            return
        departure = self.departures.get(target)
        if departure is not None and departure.is_done:
            self.tell(ctx)
        self._go_on(ctx)

    def _list(self, ctx: Context, target: Principal) -> None:
        """Let the index write down which groups a target has taken; asked again where that failed."""
        if ctx.fleet is None:
            return
        try:
            gave = Overseer(ctx.fleet).place_gave(target, self.unlisted[target])
            ctx.call(gave, then=self.listed, saved=target)
        except Reject as reject:
            ctx.log(f"the index lists groups later: {reject.message}")

    @continuation
    def listed(self, ctx: Context, outcome: Outcome[None], saved: Principal) -> None:
        """Go on with a leg whose last chunk is on the index's list."""
        if not outcome.ok:
            ctx.log(f"the index lists groups later: {outcome.reject_message}")
        elif self.unlisted.get(saved) is not None:
            self.unlisted.delete(saved)
            self._after(ctx, saved)

    def _not_taken(self, ctx: Context, departure: Departure, number: int, *, is_certain: bool) -> None:
        """Have a chunk's groups back; where it may have been taken after all, send it again when the index
        asks. The other legs go on.
        """
        target = departure.leg.target
        self.sent_ns.delete(target)
        self.put_off.add(target)
        if is_certain:
            self.departures.put(target, plan_refused(departure, number))
        self._go_on(ctx)

    # the target

    @update(only=same_fleet)
    def place_take(self, ctx: Context, cargo: Cargo) -> None:
        """Store a chunk of the leg that comes from the caller; a repeat is answered and not stored again."""
        chunk = cargo.chunk
        arrival = self.arrivals.get(ctx.caller)
        if arrival is None or chunk.leg.source != ctx.caller:
            ctx.reject(f"no groups are expected from {ctx.caller} here")
        if len(cargo.groups) != len(chunk.names):
            ctx.reject(f"a chunk of {len(chunk.names)} groups comes with the data of {len(cargo.groups)}")
        try:
            step = plan_arrival(arrival, chunk)
        except MigrationError as error:
            ctx.reject(str(error))
        if step.outcome == "repeated":
            return
        keeper = self._keeper()
        for name, data in zip(chunk.names, cargo.groups, strict=True):
            keeper.place_unpack(ctx, name, data)
        for name, number in zip(chunk.names, cargo.numbers or (), strict=False):
            self.given.put(name, number)
        self.arrivals.put(ctx.caller, step.arrival)
        if step.arrival.is_done and not self._has_open_legs():
            self.tell(ctx)

    def _keeper(self) -> Keeper:
        canister = canister_of(self)
        if not isinstance(canister, Keeper):
            raise TypeError(
                f"{type(canister).__name__} has a Holding and lacks methods of place_types.Keeper"
            )
        return canister


def _any_group(_group: bytes) -> bool:
    return True
