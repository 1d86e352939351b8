"""Placement of keys over buckets, as one component of an index: `place = Place()`, beside `fleet = Index()`.

It tells anybody which bucket a group belongs to: by AnchorHash, or by a list that it keeps, for the policies
that choose freely. What is listed: the member that has a group, by its order, and the number under which it
was given; a member that has left takes its order with it, so that whatever it had left is nobody's. Growing,
shrinking and moving is `place_driver`'s; the plans of lists are `place_listing`'s.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    nat64,
    query,
    record,
    same_fleet,
    update,
)
from cannery.cdk.component import Component
from cannery.errors import RejectCode
from cannery.fleet.place_changes import Bucket, Planned
from cannery.fleet.place_driver import Driver
from cannery.fleet.place_listing import plan_listed, plan_move
from cannery.fleet.place_types import ADOPTED, LISTED, ChangeStatus, Given, Home, PlaceStatus, Wanted
from cannery.fleet.placement_census import Census, ChildState
from cannery.fleet.placement_policy import Need, Placed, Relocate, plan_put
from cannery.fleet.placement_scale import count_slots, plan_spawn
from cannery.fleet.placement_table import child_of, decode_table
from cannery.fleet.rights import require_operator


@record
class Giving:
    """A group that a bucket is being given: what its answer needs."""

    group: bytes
    home: Home
    canister: Principal
    is_new: bool


class Place(Component, prefix="place.homes"):
    """Place groups of keys over buckets."""

    driver = Driver()
    homes = StableMap(bytes, Home)
    last = StableCell(nat64, 0)

    # for the author

    def where(self, group: bytes) -> Principal | None:
        """Return the bucket of a group; None while there is none, or where groups are listed and this one is
        new.
        """
        table = self.driver.held.get().table
        if table == LISTED:
            order = self._home(group)
            return None if order is None else self.driver.members.children[order].id
        return child_of(decode_table(table), group) if table else None

    def give(
        self, ctx: Context, group: bytes, need: Need = Need()
    ) -> Principal | Pending[Principal | None] | None:
        """Find the bucket of a group, also of a new one, which the policy places, and let it take the group's
        keys; return this from the method. None while nobody has room: ask again in a moment. For whoever
        wants to write and finds no bucket by `where`, or was told by a bucket to ask the index.
        """
        policy = self.driver.rule(ctx).policy
        if policy is None:
            return self.where(group)
        order = self._home(group)
        is_new = order is None
        if order is None:
            placing = plan_put(policy, self.census(), group, need=need)
            if not isinstance(placing, Placed):
                self.driver.look(ctx)
                return None
            order = self.driver.members.orders[placing.child]
            child = self.driver.members.children[order]
            self.driver.members.children.put(
                order, replace(child, used_slots=child.used_slots + need.key_slots)
            )
        home = self._list(group, order)
        canister = self.driver.members.children[order].id
        try:
            call = Bucket(canister).place_give(Given(group, home.number))
            return ctx.call(call, then=self.gave, saved=Giving(group, home, canister, is_new))
        except Reject as reject:
            ctx.log(f"{canister} is given no group now: {reject.message}")
            if is_new:
                self._forget(group, home)
            return None

    @continuation
    def gave(self, ctx: Context, outcome: Outcome[None], saved: Giving) -> Principal | None:
        """Name the bucket that was given a group; a new one is placed elsewhere the next time where its
        bucket could not be told.
        """
        if outcome.ok:
            return saved.canister
        if saved.is_new:
            self._forget(saved.group, saved.home)
        if outcome.reject_code == RejectCode.DESTINATION_INVALID:
            self.driver.lose(ctx, saved.canister)
        elif self._is_serving(saved.home.order):
            self.driver.members.note(saved.canister, state=ChildState.away())
        self.driver.go_on(ctx)
        return None

    def _is_serving(self, order: int) -> bool:
        member = self.driver.members.children.get(order)
        return member is not None and member.state.tag == "serving"

    def _home(self, group: bytes) -> int | None:
        """Return the order of the member that has a group on the list."""
        home = self.homes.get(group)
        return None if home is None or self.driver.members.children.get(home.order) is None else home.order

    def buckets(self) -> tuple[Principal, ...]:
        """List the buckets."""
        return self.driver.buckets()

    def arriving(self) -> tuple[Principal, ...]:
        """List the buckets that groups are moving to now: whoever asks all buckets asks these last."""
        return self.driver.arriving()

    def census(self) -> Census:
        """Return what is known of the buckets, in the order in which they joined."""
        return self.driver.census()

    @property
    def table_number(self) -> int:
        """The number of the last change."""
        return self.driver.held.get().number

    @property
    def is_changing(self) -> bool:
        """Whether a change is under way."""
        return self.driver.change.get() is not None

    # methods

    @update
    def place_look(self, ctx: Context) -> None:
        """Ask all buckets how full they are, and look whether there should be more of them or fewer; the
        first time it makes the first one.
        """
        require_operator(ctx)
        for canister in self.driver.members.orders:
            self.driver.ask(ctx, canister)
        self.driver.look(ctx)

    @update
    def place_grow(self, ctx: Context) -> None:
        """Add a bucket now, whatever the predicates say; nothing where one is being made already."""
        require_operator(ctx)
        rule = self.driver.rule(ctx)
        spawn = plan_spawn(rule.spawn, self.driver.lock.get(), self.census(), ctx.now_ns, wanted_count=1)
        if len(self.buckets()) >= rule.scale.child_count_max:
            ctx.reject(f"there are {len(self.buckets())} buckets, as many as there may be")
        self.driver.lock.set(spawn.lock)
        for hold in spawn.begun:
            self.driver.spawn(ctx, rule, hold)
        self.driver.go_on(ctx)

    @update
    def place_drain(self, ctx: Context, canister: Principal) -> None:
        """Move all groups of a bucket to the others and delete it, once no other change is under way."""
        require_operator(ctx)
        if canister not in self.buckets():
            ctx.reject(f"{canister} is no bucket here")
        if len(self.buckets()) < 2:
            ctx.reject(f"{canister} is the last bucket: nobody could take what it holds")
        self.driver.draining.add(canister)
        self.driver.look(ctx)

    @query
    def place_status(self, ctx: Context) -> PlaceStatus:
        """Return placement at a glance."""
        require_operator(ctx)
        rule, change = self.driver.rule(ctx), self.driver.change.get()
        slots = count_slots(self.census(), self.driver.lock.get(), rule.spawn.desired_slots, ctx.now_ns)
        status = None
        if change is not None:
            waiting = [who for who, stand in self.driver.stands.items() if stand.step < ADOPTED]
            status = ChangeStatus(change.number, change.kind, change.canister, change.began_ns, waiting)
        return PlaceStatus(
            self.driver.held.get().number,
            slots.free,
            slots.desired,
            slots.planned,
            list(self.driver.members.children.values()),
            status,
            self.driver.reason.get(),
            sum(self.driver.members.given.values()),
            list(self.driver.lost),
            rule.scale.child_count_max,
        )

    @update(only=same_fleet)
    def place_gone(self, ctx: Context, given: Given) -> None:
        """Take a group off the list that a bucket has no keys of any more."""
        home = self.homes.get(given.group)
        if (
            home is not None
            and home.number == given.number
            and self.driver.members.orders.get(ctx.caller) is not None
        ):
            self._forget(given.group, home)

    @update(only=same_fleet)
    def place_gave(self, ctx: Context, target: Principal, groups: list[bytes]) -> None:
        """Write down which groups a bucket has given to another one."""
        source = self.driver.members.orders.get(ctx.caller)
        if source is not None:
            self._move(groups, source, self.driver.members.orders.get(target))

    @update(only=same_fleet)
    def place_want(self, ctx: Context, wanted: Wanted) -> None:
        """Move a group that has outgrown its bucket to one that has room for all of it."""
        policy, order = self.driver.rule(ctx).policy, self._home(wanted.group)
        if policy is None or order is None or self.driver.members.children[order].id != ctx.caller:
            ctx.reject(f"{ctx.caller} is not the home of that group")
        need = Need(wanted.key_slots, wanted.group_slots)
        placing = plan_put(policy, self.census(), wanted.group, home=ctx.caller, need=need)
        if isinstance(placing, Relocate) and self.driver.change.get() is None:
            number = self.driver.held.get().number + 1
            change = plan_listed(number, "move", ctx.caller, ctx.now_ns, moves=True)
            self.driver.start(Planned(change, plan_move(number, ctx.caller, placing.target, wanted.group)))
        self.driver.look(ctx)

    # the list

    def _list(self, group: bytes, order: int) -> Home:
        """Write down where a group is; each time under a number of its own."""
        number = self.last.get() + 1
        self.last.set(number)
        home = Home(order, number)
        self.homes.put(group, home)
        return home

    def _move(self, groups: Iterable[bytes], source: int, target: int | None) -> None:
        """Write down that groups have moved; what has moved already, or since, stays as it is. None: the
        target is gone, and they are nobody's.
        """
        for group in groups:
            home = self.homes.get(group)
            if home is None or home.order != source:
                continue
            if target is None:
                self.homes.delete(group)
            else:
                self.homes.put(group, replace(home, order=target))

    def _forget(self, group: bytes, home: Home) -> None:
        """Take a group off the list, if it was not given anew since."""
        if self.homes.get(group) == home:
            self.homes.delete(group)
