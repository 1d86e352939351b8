"""Low balances: the index is told once, in the round in which a member falls, however it fell."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cannery import Canister, Context, Pending, Principal, StableLog, encode_args, query, update
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.management import (
    AlarmSetArgs,
    CreateInstalledArgs,
    CreateInstalledResult,
    FleetModuleArgs,
    Management,
)
from cannery.limits import CALL_QUEUE_COUNT_MAX
from cannery.ports import System
from cannery.replica import keys
from cannery.replica.alarms import tell_low_balances
from cannery.replica.block import Block, PriceSchedule, ReplicaConfig
from cannery.replica.cycles import burn, credit, debit, mint
from cannery.replica.fleets import APPOINTED, DISMISSED
from cannery.replica.management.alarm import AlarmSetArgs as Args
from cannery.replica.prices import IC
from cannery.replica.records import CallMessage, CanisterStatus, Lane, Settings
from cannery.replica.scheduler import Scheduler
from cannery.replica.state import MessageOverlay, RoundState
from cannery.testing import Node, Rejected
from tests.replica.puppet import pack, puppet
from tests.replica.world import World

ALARM = 1_000_000
_decode = decoder((type_of(list[Principal]),))


def _index() -> object:
    """A puppet that keeps each notice under a number, and who it came from."""
    script = puppet()

    def notice(system: System) -> None:
        (members,) = _decode(system.arg)
        count = int(system.get(b"count") or b"0")
        told = b"".join(sorted(member.raw for member in members))  # type: ignore[attr-defined]
        system.put(b"notice %d" % count, system.caller + told)
        system.put(b"count", b"%d" % (count + 1))
        system.reply(b"")

    script.methods["fleet_notice"] = script.methods["run"]
    script.handlers["fleet_notice"] = notice
    return script


class Fleet:
    """A world with an index and members whose alarm is set."""

    def __init__(self, config: ReplicaConfig | None = None, members: int = 2) -> None:
        self.world = World(config)
        self.index = self.world.add(_index(), cycles=10**15)  # type: ignore[arg-type]
        self.world.put_canister(self.index, replace(self.world.canister(self.index), fleet=self.index))
        self.members = [self.add() for _ in range(members)]

    def add(self, cycles: int = 2 * ALARM, alarm: int = ALARM, settings: Settings | None = None) -> bytes:
        member = self.world.add(puppet(), cycles=cycles, settings=settings)
        self.world.put_canister(member, replace(self.world.canister(member), fleet=self.index))
        self.world.edit(lambda m: setattr(m.account(member), "alarm_cycles", alarm))
        return member

    def turn(self, act: Callable[[MessageOverlay], object]) -> None:
        """Do something to accounts as a round would, and let notices leave."""
        world = self.world
        state = RoundState(world.store, Block(0, b"", world.time_ns, b""), world.shelf)
        state.scheduler = Scheduler(state)
        message = MessageOverlay(state)
        act(message)
        message.merge()
        tell_low_balances(state)
        world.write(state)
        world.round()
        world.settle()

    @property
    def told(self) -> list[set[bytes]]:
        return self.told_to(self.index)

    def told_to(self, index: bytes) -> list[set[bytes]]:
        count = int(self.world.value(index, b"count") or b"0")
        found: list[set[bytes]] = []
        for number in range(count):
            data = self.world.value(index, b"notice %d" % number)
            assert data is not None
            found.append({data[at : at + 10] for at in range(0, len(data), 10)})
        return found


def test_a_local_index_is_told_of_what_it_made_and_the_index_of_the_rest() -> None:
    fleet = Fleet()
    world, (own, other) = fleet.world, fleet.members
    local = world.add(_index(), cycles=10**15)  # type: ignore[arg-type]
    world.put_canister(local, replace(world.canister(local), fleet=fleet.index))
    world.put_canister(own, replace(world.canister(own), creator=local))
    appointed = keys.owned(keys.FLEET_LOCALS, fleet.index, local)

    def fall(m: MessageOverlay, *members: bytes) -> None:
        for member in members:
            debit(m, member, ALARM + 1)
            credit(m, local, ALARM + 1)

    fleet.turn(lambda m: (m.put(appointed, APPOINTED), fall(m, own, other)))
    assert (fleet.told_to(local), fleet.told) == ([{own}], [{other}])
    fleet.turn(lambda m: (m.put(appointed, DISMISSED), [credit(m, own, ALARM), debit(m, local, ALARM)]))
    fleet.turn(lambda m: fall(m, own))
    assert (fleet.told_to(local), fleet.told) == ([{own}], [{other}, {own}])


def test_a_burn_a_debit_and_a_call_with_cycles_each_tell_the_index() -> None:
    fleet = Fleet(ReplicaConfig(prices=PriceSchedule(per_message=ALARM + 1)))
    world, (a, b) = fleet.world, fleet.members
    world.call(a, "run", pack([["reply", b""]]))
    world.settle()
    assert fleet.told == [{a}]
    fleet.turn(lambda m: [debit(m, b, ALARM + 1), credit(m, fleet.index, ALARM + 1)])
    assert fleet.told == [{a}, {b}]
    free = Fleet()
    sender, receiver = free.members
    free.world.call(sender, "run", pack([["call", receiver, "run", [["reply", b""]], ALARM, None]]))
    free.world.settle()
    assert free.told == []
    free.world.call(
        sender,
        "run",
        pack([["call", receiver, "run", [["accept", 2 * ALARM], ["reply", b""]], ALARM + 1, None]]),
    )
    free.world.settle()
    assert free.told == [{sender}]


def test_all_that_fall_in_a_round_stand_in_one_notice_and_each_is_told_of_once() -> None:
    fleet = Fleet(members=5)
    members = fleet.members
    fleet.turn(lambda m: [burn(m, member, ALARM + 1) for member in members])
    assert fleet.told == [set(members)]
    fleet.turn(lambda m: [burn(m, member, 5) for member in members])
    assert len(fleet.told) == 1
    fleet.turn(lambda m: mint(m, members[0], 5))
    assert not fleet.world.account(members[0]).cycles >= ALARM
    fleet.turn(lambda m: mint(m, members[0], ALARM))
    assert not fleet.world.account(members[0]).alarm_told
    fleet.turn(lambda m: burn(m, members[0], ALARM))
    assert fleet.told == [set(members), {members[0]}]


def test_a_balance_on_the_line_is_not_below_it() -> None:
    fleet = Fleet(members=1)
    (member,) = fleet.members
    fleet.turn(lambda m: burn(m, member, ALARM))
    assert fleet.told == []
    fleet.turn(lambda m: burn(m, member, 1))
    assert fleet.told == [{member}]


def test_storage_tells_when_it_is_charged() -> None:
    config = ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=1 << 30))
    fleet = Fleet(config, members=0)
    member = fleet.add(settings=Settings(freezing_threshold_s=0))
    fleet.world.call(member, "run", pack([["put", b"k", b"x" * 99], ["reply", b""]]))
    fleet.world.round(seconds=20_000)
    assert fleet.told == []
    fleet.world.call(member, "run", pack([["reply", b""]]))
    fleet.world.settle()
    assert fleet.told == [{member}]


def test_who_is_no_member_tells_nobody() -> None:
    fleet = Fleet()
    a, b = fleet.members
    fleet.world.put_canister(a, replace(fleet.world.canister(a), fleet=b""))
    gone = keys.canister_id(77)
    fleet.world.put_canister(b, replace(fleet.world.canister(b), fleet=gone))
    fleet.turn(lambda m: [burn(m, member, ALARM + 1) for member in (a, b)])
    assert fleet.told == []
    assert not fleet.world.account(a).alarm_told


def test_a_full_queue_loses_no_notice() -> None:
    fleet = Fleet(members=1)
    (member,), world = fleet.members, fleet.world
    state = RoundState(world.store, Block(0, b"", world.time_ns, b""), world.shelf)
    state.scheduler = Scheduler(state)
    index = state.account_for_change(fleet.index)
    assert index is not None
    for _ in range(CALL_QUEUE_COUNT_MAX):
        state.scheduler.enqueue(fleet.index, index, Lane.CALLS, CallMessage(b"", 0, "run", b"", 0))
    message = MessageOverlay(state)
    burn(message, member, ALARM + 1)
    message.merge()
    tell_low_balances(state)
    assert not message.state.view.accounts[member].alarm_told  # type: ignore[union-attr]
    world.write(state)
    world.round()
    world.settle()
    fleet.turn(lambda m: burn(m, member, 1))
    assert fleet.told == [{member}]


def test_an_index_that_is_stopped_or_lacks_the_method_breaks_nothing() -> None:
    for breaks in ("stop", "method"):
        fleet = Fleet(members=1)
        (member,), world = fleet.members, fleet.world
        if breaks == "stop":
            stopped = replace(world.canister(fleet.index), status=CanisterStatus.STOPPED)
            world.put_canister(fleet.index, stopped)
        else:
            other = world.canister(world.add(puppet()))
            world.put_canister(fleet.index, replace(other, fleet=fleet.index))
        fleet.turn(lambda m, member=member: burn(m, member, ALARM + 1))  # type: ignore[misc]
        assert world.account(member).alarm_told


@settings(max_examples=40)
@given(st.lists(st.tuples(st.integers(0, 1), st.integers(-3 * ALARM, 3 * ALARM)), max_size=12))
def test_one_notice_for_each_time_that_a_balance_falls(moves: list[tuple[int, int]]) -> None:
    fleet = Fleet()
    expected: list[set[bytes]] = []
    told = [False, False]
    for who, amount in moves:
        member = fleet.members[who]

        def move(message: MessageOverlay, member: bytes = member, amount: int = amount) -> None:
            if amount < 0:
                burn(message, member, -amount)
            else:
                mint(message, member, amount)

        fleet.turn(move)
        below = fleet.world.account(member).cycles < ALARM
        if below and not told[who]:
            expected.append({member})
        told[who] = below
    assert fleet.told == expected


# --- with real canisters -----------------------------------------------------------------------------------


class Child(Canister):
    @update
    def work(self, ctx: Context) -> None: ...

    @query
    def hello(self, ctx: Context) -> str:
        return "hello"


class Head(Canister):
    """An index made by hand."""

    notices = StableLog(list[Principal])

    @update
    def found(self, ctx: Context, module_hash: bytes) -> None:
        ctx.notify(Management().cannery_fleet_found())
        ctx.notify(Management().cannery_fleet_module_put(FleetModuleArgs(module_hash, "child", 1)))

    @update
    def make(self, ctx: Context, module_hash: bytes) -> Pending[CreateInstalledResult]:
        args = CreateInstalledArgs(module_hash, encode_args(), [ctx.id])
        return ctx.call(Management().cannery_create_installed(args), cycles=10**12)

    @update
    def alarm(self, ctx: Context, args: AlarmSetArgs) -> Pending[list[Principal]]:
        return ctx.call(Management().cannery_alarm_set(args))

    @update
    def fleet_notice(self, ctx: Context, members: list[Principal]) -> None:
        if ctx.caller != Principal.management():
            ctx.reject("only the node tells")
        self.notices.append(members)

    @query
    def told(self, ctx: Context) -> list[list[Principal]]:
        return [members for _, members in self.notices.items()]


def test_a_member_that_runs_low_is_topped_up_goes_on_and_is_told_of_again() -> None:
    with Node(config=ReplicaConfig(prices=replace(IC, storage_per_gib_second=0))) as node:
        module_hash = node.manage("cannery_module_add", node.build(Child))
        head = node.install(Head, cycles=10**13).as_(node.operator)
        head.found(module_hash)
        child = node.actor(head.make(module_hash).canister_id, Child)
        stranger = node.install(Child, cycles=10**12)
        left_out = head.alarm(AlarmSetArgs([child.id, stranger.id], 10**12 - 10**11))
        assert left_out == [stranger.id]
        node.run()
        # It has 0.5 T: set above the balance, the alarm tells at once.
        assert head.told() == [[child.id]]
        node.top_up(child, 10**12)
        node.run()
        assert len(head.told()) == 1
        assert head.alarm(AlarmSetArgs([child.id], 3 * 10**12)) == []
        node.run()
        assert head.told() == [[child.id], [child.id]]
        with pytest.raises(Rejected, match="only the node tells"):
            head.as_("mallory").fleet_notice([])


def test_strangers_set_no_alarm_and_bounds_are_told() -> None:
    with Node() as node:
        child = node.install(Child)
        with pytest.raises(Rejected, match="controls none of them"):
            node.manage("cannery_alarm_set", Args([child.id], 5), sender="mallory")
        with pytest.raises(Rejected, match="at most 1000 alarms"):
            node.manage("cannery_alarm_set", Args([child.id] * 1001, 5))
        with pytest.raises(Rejected, match="No balance ever reaches"):
            node.manage("cannery_alarm_set", Args([child.id], 2**64))
        assert node.manage("cannery_alarm_set", Args([child.id, node.principal("x")], 5)) == [
            node.principal("x")
        ]


def test_a_frozen_canister_reads_on_says_why_it_does_not_write_and_thaws_at_once() -> None:
    with Node(config=ReplicaConfig(prices=IC)) as node:
        child = node.install(Child, cycles=IC.per_message)
        with pytest.raises(Rejected, match=r"out of cycles: please top up .* with at least \d+") as caught:
            child.work()
        assert caught.value.error_code == "IC0207"
        assert "its queries are answered" in str(caught.value)
        assert child.hello() == "hello"
        node.top_up(child, 10**8)
        child.work()
