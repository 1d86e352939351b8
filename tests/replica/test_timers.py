"""Durable timers: they fire once when late, are parked with their canister, and survive everything else."""

from __future__ import annotations

from msgspec.structs import replace

from cannery.replica import keys
from cannery.replica.block import Configure, PriceSchedule, ReplicaConfig
from cannery.replica.cycles import mint
from cannery.replica.records import CanisterStatus
from cannery.replica.timers import drop_timers, unpark_timers
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import World

SECOND = 1_000_000_000


def _set(world: World, canister: bytes, delay_s: int, every_s: int, *acts: Act) -> None:
    timer: Act = ["timer", delay_s * SECOND, every_s * SECOND, list(acts)]
    answer = world.call(canister, "run", pack([timer, ["reply", b""]]))
    assert answer is not None
    assert answer.reply == b""


def test_a_timer_fires_when_its_time_has_come_and_once() -> None:
    world = World()
    canister = world.add(puppet())
    _set(world, canister, 10, 0, ["put", b"n", b"1"], ["log", "tick"])
    assert world.last.next_timer_ns == world.time_ns + 10 * SECOND
    world.round(seconds=9)
    assert world.value(canister, b"n") is None
    world.round(seconds=1)
    assert world.value(canister, b"n") == b"1"
    assert world.last.next_timer_ns is None
    assert world.account(canister).timers_open == 0


def test_a_late_repeating_timer_fires_once_and_goes_on_in_step() -> None:
    world = World()
    canister = world.add(puppet())
    start_ns = world.time_ns
    _set(world, canister, 10, 10, ["count", b"n"])
    set_ns = world.time_ns
    assert set_ns - start_ns < SECOND
    world.round(seconds=95)
    assert world.value(canister, b"n") == b"1"
    assert world.last.next_timer_ns == set_ns + 100 * SECOND
    world.round(seconds=5)
    assert world.value(canister, b"n") == b"2"


def test_a_cancelled_timer_does_not_fire() -> None:
    world = World()
    canister = world.add(puppet())
    _set(world, canister, 10, 0, ["put", b"n", b"1"])
    number = keys.number_of(next(iter(world.store.scan(*keys.space_range(keys.TIMERS))))[0])
    world.call(canister, "run", pack([["cancel", number], ["cancel", 999], ["reply", b""]]))
    assert world.last.next_timer_ns is None
    world.round(seconds=20)
    assert world.value(canister, b"n") is None


def test_a_timer_whose_message_traps_is_over_and_its_writes_are_dropped() -> None:
    world = World()
    canister = world.add(puppet())
    _set(world, canister, 1, 0, ["put", b"n", b"1"], ["trap", "x"])
    world.round(seconds=2)
    assert world.value(canister, b"n") is None
    assert world.account(canister).timers_open == 0


def test_a_timer_calls_others_and_its_continuation_runs() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    _set(world, a, 1, 0, ["call", b, "run", [["reply", b"b"]], 0, [["note", b"n"]]])
    world.round(seconds=2)
    assert world.value(a, b"n") == b"0:b"


def test_timers_of_a_stopped_canister_are_parked_and_fire_after_its_start() -> None:
    world = World()
    canister = world.add(puppet())
    _set(world, canister, 1, 0, ["put", b"once", b"1"])
    _set(world, canister, 1, 10, ["count", b"n"])
    record = world.canister(canister)
    world.put_canister(canister, replace(record, status=CanisterStatus.STOPPED))
    world.round(seconds=100)
    assert world.value(canister, b"n") is None
    assert world.last.next_timer_ns is None, "a stopped canister costs nothing"
    assert world.account(canister).timers_parked == 2
    world.put_canister(canister, replace(record, status=CanisterStatus.RUNNING))
    world.edit(lambda message: unpark_timers(message, canister))
    world.round()
    assert world.value(canister, b"n") == b"1"
    assert world.value(canister, b"once") == b"1"
    assert world.account(canister).timers_parked == 0


def test_timers_of_a_frozen_canister_are_parked_until_it_is_topped_up() -> None:
    world = World()
    canister = world.add(puppet(), cycles=10)
    world.call(canister, "run", pack([["put", b"k", b"v"], ["reply", b""]]))
    _set(world, canister, 1, 0, ["put", b"n", b"1"])
    prices = PriceSchedule(storage_per_gib_second=10**9)
    world.round(Configure(ReplicaConfig(prices=prices)))
    world.round(seconds=5)
    assert world.value(canister, b"n") is None
    assert world.account(canister).timers_parked == 1
    world.edit(lambda message: mint(message, canister, 10**12))
    world.round()
    assert world.value(canister, b"n") == b"1"


def test_many_timers_due_at_once_are_spread_over_rounds() -> None:
    world = World()
    canisters = [world.add(puppet()) for _ in range(3)]
    for canister in canisters:
        timers: list[Act] = [["timer", SECOND, 0, [["count", b"n"]]] for _ in range(500)]
        world.call(canister, "run", pack([*timers, ["reply", b""]]))
    world.round(seconds=2)
    assert world.last.events.timers == 1000
    assert world.last.backlog
    world.settle()
    assert [world.account(canister).version for canister in canisters] == [501] * 3


def test_timers_go_with_a_reinstall_parked_ones_too() -> None:
    world = World()
    canister = world.add(puppet())
    _set(world, canister, 1, 0, ["put", b"n", b"1"])
    record = world.canister(canister)
    world.put_canister(canister, replace(record, status=CanisterStatus.STOPPED))
    world.round(seconds=2)
    assert world.account(canister).timers_parked == 1
    world.put_canister(canister, record)
    _set(world, canister, 1, 0, ["put", b"n", b"1"])
    world.edit(lambda message: drop_timers(message, canister))
    world.round(seconds=2)
    account = world.account(canister)
    assert (account.timers_open, account.timers_parked, account.queued_bytes) == (0, 0, 0)
    assert list(world.store.scan(*keys.space_range(keys.DUE))) == []
    assert world.value(canister, b"n") is None


def test_a_timer_that_waits_while_its_canister_is_stopped_is_parked_too() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    busy, canister = world.add(puppet()), world.add(puppet())
    _set(world, canister, 1, 0, ["put", b"n", b"1"])
    calls = [world.ingress(busy, "run", pack([["reply", b""]])) for _ in range(3)]
    world.round(*calls, seconds=2)
    record = world.canister(canister)
    world.put_canister(canister, replace(record, status=CanisterStatus.STOPPED))
    world.settle()
    assert world.account(canister).timers_parked == 1
    assert world.value(canister, b"n") is None
    world.put_canister(canister, record)
    world.edit(lambda message: unpark_timers(message, canister))
    world.round()
    assert world.value(canister, b"n") == b"1"


def test_a_repeating_timer_that_falls_due_again_while_its_message_waits_stays_parked() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    busy, canister = world.add(puppet()), world.add(puppet())
    _set(world, canister, 10, 10, ["count", b"n"])
    calls = [world.ingress(busy, "run", pack([["reply", b""]])) for _ in range(5)]
    world.round(*calls, seconds=12)
    assert world.value(canister, b"n") is None, "its message waits"
    record = world.canister(canister)
    world.put_canister(canister, replace(record, status=CanisterStatus.STOPPED))
    world.round(seconds=10)
    world.settle()
    assert world.account(canister).timers_parked == 1
    assert world.value(canister, b"n") is None
    world.put_canister(canister, record)
    world.edit(lambda message: unpark_timers(message, canister))
    world.round()
    assert world.value(canister, b"n") == b"1"
    world.round(seconds=10)
    assert world.value(canister, b"n") == b"2"
