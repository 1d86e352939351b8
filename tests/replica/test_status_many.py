"""The figures of many canisters in one answer: what they count, and who may see them."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cannery import Principal
from cannery.limits import STATUS_TARGET_COUNT_MAX
from cannery.ports import WriteBatch
from cannery.replica import keys
from cannery.replica.block import PriceSchedule
from cannery.replica.fleet_records import FleetModule, FleetRecord
from cannery.replica.management import types as t
from cannery.replica.management.status_many import CanisterReport, StatusManyResult
from cannery.replica.records import CANISTER, encode_record
from tests.replica.management_world import (
    ANONYMOUS,
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    World,
    int_argument,
    make_puppet,
    order_argument,
    puppet_manage,
)
from tests.replica.puppet import pack, puppet
from tests.replica.world import World as Rounds

METHOD = "cannery_status_many"
NOBODY = Principal(keys.canister_id(0x200000))


def report(world: World, canister: Principal) -> CanisterReport:
    (found,) = world.ask(OPERATOR, METHOD, [canister])
    assert isinstance(found, StatusManyResult)
    assert found.status is not None
    return found.status


def test_the_figures_are_those_of_the_canister() -> None:
    world = World(PriceSchedule(per_message=10, per_ingress=7, storage_per_gib_second=10**12))
    canister, created_ns = make_puppet(world), world.time_ns
    world.call(OWNER, canister, "set", int_argument(5))
    for _ in range(2):
        with pytest.raises(Rejected):
            world.call(OWNER, canister, "fail")
    active_ns = world.time_ns
    found, account = report(world, canister), world.account(canister)
    assert (found.messages, found.rejects, found.traps) == (3, 0, 2)
    assert (found.key_count, found.memory_size) == (1, account.memory_bytes + account.chunk_bytes)
    assert (found.burned, found.frozen) == (account.burned, False)
    assert found.burned >= 30
    assert found.cycles <= account.cycles
    assert found.idle_burned_per_day > 0
    assert found.message_fee == 17
    assert (found.queued, found.calls_open) == (0, 0)
    assert found.running.tag == "running"
    assert found.controllers == [OWNER]
    assert (found.fleet, found.kind, found.version) == (None, None, None)
    assert found.created_ns == found.installed_ns <= created_ns
    assert found.created_ns < found.active_ns < active_ns, "a message that trapped is no activity"
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(canister))
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(canister))
    found = report(world, canister)
    assert (found.running.tag, found.module_hash, found.key_count) == ("stopped", None, 0)
    assert found.messages == 3, "what it has run stays counted"


def test_refusals_of_the_canister_itself_are_told_from_traps() -> None:
    world = Rounds()
    one, two = world.add(puppet()), world.add(puppet())
    world.call(one, "run", pack([["reject", "no"]]))
    world.call(one, "run", pack([["trap", "x"]]))
    world.call(
        one, "run", pack([["call", two, "run", [["reject", "no"]], 0, [["reply", b""]]], ["later", 0]])
    )
    world.call(one, "run", pack([["timer", 1, 0, [["trap", "late"]]], ["reply", b""]]))
    world.round(seconds=1)
    first, second = world.account(one), world.account(two)
    assert (first.messages, first.rejects, first.traps) == (6, 1, 2)
    assert (second.messages, second.rejects, second.traps) == (1, 1, 0)


def test_open_calls_and_waiting_messages_are_told() -> None:
    world = World(far=True)
    canister = make_puppet(world)
    far = Principal(keys.canister_id(1 << 40))
    for _ in range(3):
        world.submit(OWNER, canister, "order", order_argument(far, "get", b"DIDL\x00\x00"))
    assert report(world, canister).calls_open == 3


def test_a_member_tells_fleet_kind_and_version() -> None:
    world = World()
    index, member = make_puppet(world), make_puppet(world, owner=OWNER)
    join(world, index, member)
    found = report(world, member)
    assert (found.fleet, found.kind, found.version) == (index, "user", 7)
    (seen,) = puppet_manage(world, index, METHOD, [member])
    assert seen.status == report(world, member), "the index of the fleet may see its members"
    (seen,) = puppet_manage(world, make_puppet(world), METHOD, [member])
    assert seen.status is None


def join(world: World, index: Principal, member: Principal) -> None:
    """Put a member into a fleet, as the registry and the creation by an index do."""
    for canister in (index, member):
        key = keys.owned(keys.CANISTERS, canister.raw)
        record = CANISTER.decode(world.store.get(key) or b"")
        world.store.write(WriteBatch({key: encode_record(replace(record, fleet=index.raw))}))
    module = record.module_hash
    assert module is not None
    world.store.write(
        WriteBatch(
            {
                keys.owned(keys.FLEETS, index.raw): encode_record(FleetRecord(world.time_ns, members=1)),
                keys.owned(keys.FLEET_MEMBERS, index.raw, member.raw): b"",
                keys.owned(keys.FLEET_MODULES, index.raw, module): encode_record(FleetModule("user", 7)),
            }
        )
    )


def test_strangers_see_nothing_and_owners_what_is_theirs() -> None:
    world = World()
    mine, others = make_puppet(world), make_puppet(world, owner=STRANGER)
    for sender in (ANONYMOUS, Principal.self_authenticating(b"another")):
        for ask in (world.ask, world.manage, world.manage_unadmitted):
            with pytest.raises(Rejected, match="may see none of these"):
                ask(sender, METHOD, [mine, others, NOBODY])
    found = world.ask(OWNER, METHOD, [others, NOBODY, mine, mine])
    assert [result.canister_id for result in found] == [others, NOBODY, mine, mine]
    assert [result.status is None for result in found] == [True, True, False, False]
    assert [r.status is None for r in world.manage(OPERATOR, METHOD, [others, NOBODY])] == [False, True]
    (own,) = puppet_manage(world, mine, METHOD, [mine])
    assert own.status is not None
    assert isinstance(own.status, CanisterReport)


def test_one_call_tells_of_a_bounded_number() -> None:
    world = World()
    many = [Principal(keys.canister_id(number)) for number in range(STATUS_TARGET_COUNT_MAX + 1)]
    for ask in (world.ask, world.manage_unadmitted):
        with pytest.raises(Rejected, match="at most 1000 canisters, 1001 are named"):
            ask(OPERATOR, METHOD, many)
    assert len(world.ask(OPERATOR, METHOD, many[1:])) == STATUS_TARGET_COUNT_MAX


def test_frozen_ones_are_told() -> None:
    world = World(PriceSchedule(storage_per_gib_second=10**12))
    canister = make_puppet(world, Puppet)
    world.call(OWNER, canister, "set", int_argument(5))
    wanted = t.CanisterSettings(freezing_threshold=10**12)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, wanted))
    assert report(world, canister).frozen
