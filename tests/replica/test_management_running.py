"""Stopping, starting, and what waits for them."""

from __future__ import annotations

import pytest

from cannery import Principal
from cannery.limits import STOP_DEADLINE_NS, STOP_WAITER_COUNT_MAX
from cannery.replica import keys
from cannery.replica.management import types as t
from tests.replica.management_world import (
    FAR,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    Rejected,
    World,
    encode_argument,
    int_argument,
    int_result,
    make_puppet,
    order_argument,
    order_result,
)

DEADLINE_S = STOP_DEADLINE_NS // 1_000_000_000


def status_of(world: World, canister: Principal) -> t.CanisterStatusResult:
    status: t.CanisterStatusResult = world.ask(OPERATOR, "canister_status", t.CanisterIdRecord(canister))
    return status


def stuck(world: World, cycles: int = 0) -> tuple[Principal, bytes]:
    """Create a canister that waits for its own stop, so that it is stopping for as long as it waits."""
    puppet = make_puppet(world)
    settings = t.CanisterSettings(controllers=[OWNER, puppet])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(puppet, settings))
    arg = encode_argument("stop_canister", t.CanisterIdRecord(puppet))
    request_id = world.submit(
        OWNER, puppet, "order", order_argument(MANAGEMENT, "stop_canister", arg, cycles)
    )
    assert request_id not in world.answers
    return puppet, request_id


def test_a_quiet_canister_stops_at_once_and_starts_again() -> None:
    world = World()
    canister = make_puppet(world)
    version = status_of(world, canister).version
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    status = status_of(world, canister)
    assert (status.status, status.ready_for_migration) == (t.StatusKind.stopped(), True)
    assert status.version == version + 2
    with pytest.raises(Rejected, match="is stopped"):
        world.call(OWNER, canister, "set", int_argument(1))
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    assert status_of(world, canister).version == version + 3
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(canister))
    status = status_of(world, canister)
    assert (status.status, status.ready_for_migration) == (t.StatusKind.running(), False)
    assert status.version == version + 5
    world.call(OWNER, canister, "set", int_argument(1))


def test_a_stop_waits_until_nothing_is_open() -> None:
    world = World()
    canister, self_stop = stuck(world, cycles=70)
    world.wait(10)
    waiting = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    assert waiting not in world.answers
    status = status_of(world, canister)
    assert (status.status, status.ready_for_migration) == (t.StatusKind.stopping(), False)
    with pytest.raises(Rejected, match="is stopping"):
        world.call(OWNER, canister, "set", int_argument(1))
    world.wait(DEADLINE_S - 12)
    result = order_result(world.answer(self_stop))
    assert result.reject_code == 2
    assert "has not stopped within 300 s" in result.reject_message
    assert result.refunded == 70
    world.answer(waiting)
    assert status_of(world, canister).status == t.StatusKind.stopped()
    assert not list(world.store.scan(*keys.space_range(keys.STOPS)))
    assert not list(world.store.scan(*keys.space_range(keys.DUE)))


def test_a_stop_that_takes_too_long_is_rejected_and_the_canister_goes_on_stopping() -> None:
    world = World(far=True)
    canister = make_puppet(world)
    held = world.submit(OWNER, canister, "order", order_argument(FAR, "anything", b"", 70))
    waiting = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.wait(DEADLINE_S - 1)
    assert waiting not in world.answers
    world.wait(1)
    with pytest.raises(Rejected, match="has not stopped within 300 s") as caught:
        world.answer(waiting)
    assert (caught.value.code, caught.value.error_code) == (2, "IC0206")
    assert status_of(world, canister).status == t.StatusKind.stopping()
    assert held not in world.answers
    world.manage(OWNER, "cannery_stop_canister", t.StopArgs(canister, True))
    assert status_of(world, canister).status == t.StatusKind.stopped()
    with pytest.raises(Rejected, match="was stopped before it answered"):
        world.answer(held)


def test_a_stop_may_wait_for_the_stop_of_another() -> None:
    world = World()
    other, _ = stuck(world)
    canister = make_puppet(world)
    settings = t.CanisterSettings(controllers=[OWNER, canister])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(other, settings))
    arg = encode_argument("stop_canister", t.CanisterIdRecord(other))
    held = world.submit(OWNER, canister, "order", order_argument(MANAGEMENT, "stop_canister", arg))
    first = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    second = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    assert {held, first, second}.isdisjoint(world.answers)
    world.manage(OWNER, "cannery_stop_canister", t.StopArgs(other, True))
    for request_id in (held, first, second):
        world.answer(request_id)
    assert status_of(world, canister).status == t.StatusKind.stopped()


def test_starting_rejects_those_who_wait_for_the_stop() -> None:
    world = World()
    canister, self_stop = stuck(world, cycles=70)
    waiting = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(canister))
    with pytest.raises(Rejected, match="started again while it was stopping") as caught:
        world.answer(waiting)
    assert (caught.value.code, caught.value.error_code) == (5, "IC0511")
    result = order_result(world.answer(self_stop))
    assert (result.reject_code, result.refunded) == (5, 70)
    assert world.account(canister).cycles == 10**12
    world.call(OWNER, canister, "set", int_argument(1))


def test_force_turns_what_is_open_into_rejects() -> None:
    world = World()
    canister, self_stop = stuck(world, cycles=70)
    world.manage(OWNER, "cannery_stop_canister", t.StopArgs(canister, True))
    with pytest.raises(Rejected, match="was stopped before it answered"):
        world.answer(self_stop)
    assert status_of(world, canister).status == t.StatusKind.stopped()
    assert world.account(canister).cycles == 10**12
    world.manage(OWNER, "delete_canister", t.CanisterIdRecord(canister))


def test_without_force_it_is_an_ordinary_stop() -> None:
    world = World()
    canister, _ = stuck(world)
    waiting = world.submit_manage(OWNER, "cannery_stop_canister", t.StopArgs(canister, False))
    assert waiting not in world.answers
    quiet = make_puppet(world)
    world.manage(OWNER, "cannery_stop_canister", t.StopArgs(quiet, False))
    assert status_of(world, quiet).status == t.StatusKind.stopped()


def test_those_who_wait_are_bounded() -> None:
    world = World()
    canister, _ = stuck(world)
    for _ in range(STOP_WAITER_COUNT_MAX - 1):
        world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    with pytest.raises(Rejected, match="callers wait") as caught:
        world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    assert caught.value.code == 2


def test_timers_rest_while_a_canister_is_stopped() -> None:
    world = World()
    canister = make_puppet(world)
    world.call(OWNER, canister, "tick_after", int_argument(10))
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.wait(20)
    assert world.account(canister).memory_bytes == 0
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(canister))
    world.wait(1)
    assert int_result(world.query(OWNER, canister, "get")) == 1


def test_a_canister_with_open_calls_is_deleted_at_once_and_its_cycles_go_to_the_heir() -> None:
    world = World(far=True)
    canister, heir = make_puppet(world), make_puppet(world)
    for nobody in (canister, Principal.opaque(b"nobody")):
        with pytest.raises(Rejected, match="cannot get the cycles"):
            world.manage(OWNER, "cannery_delete_canister", t.DeleteArgs(canister, nobody))
    held = world.submit(OWNER, canister, "order", order_argument(FAR, "anything", b"", 70))
    waiting = world.submit_manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    cycles = status_of(world, canister).cycles + status_of(world, heir).cycles
    world.manage(OWNER, "cannery_delete_canister", t.DeleteArgs(canister, heir))
    with pytest.raises(Rejected, match="was deleted before it answered"):
        world.answer(held)
    world.answer(waiting)
    with pytest.raises(Rejected, match="not found"):
        status_of(world, canister)
    assert status_of(world, heir).cycles == cycles
    assert not list(world.store.scan(*keys.space_range(keys.STOPS)))
    assert not list(world.store.scan(*keys.space_range(keys.DUE)))


def test_a_stopped_canister_is_deleted_like_any_other_and_without_an_heir_its_cycles_burn() -> None:
    world = World()
    canister = make_puppet(world)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "cannery_delete_canister", t.DeleteArgs(canister))
    with pytest.raises(Rejected, match="not found"):
        status_of(world, canister)
