"""A canister moves to a new id with all that it holds; the old id points there, nothing happens by halves."""

from __future__ import annotations

from typing import Any

import pytest

from cannery import Canister, Context, Principal, StableCell, nat64, query, timer, update
from cannery.replica import keys, records
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from cannery.replica.management.snapshot_types import LoadSnapshotArgs, TakeSnapshotArgs
from tests.replica.fleet_world import Fleet
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Puppet,
    Rejected,
    decode_result,
    encode_argument,
    int_argument,
    int_result,
    make_puppet,
    order_argument,
    order_result,
)
from tests.replica.test_management_sequences import Second
from tests.replica.upgrade_world import (
    CANNOT_END,
    CORRUPTS,
    HANGS,
    HANGS_AT_END,
    TRAPS,
    New,
    Old,
    UpgradeWorld,
    results_of,
    tags,
)

METHOD = "cannery_replace"


class Pulse(Canister):
    """Counts every 100 seconds."""

    count = StableCell(nat64, 0)

    @update
    def begin(self, ctx: Context) -> None:
        """Set the timer."""
        ctx.timer_set(self.beat, every_s=100)

    @timer
    def beat(self, ctx: Context) -> None:
        """Count."""
        self.count.set(nat64(self.count.get() + 1))

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()


def replace(world: UpgradeWorld, canister: Principal, cls: type = New, **more: Any) -> Principal:
    """Let the index replace a canister; raises `Rejected`."""
    cycles, expected = more.pop("cycles", 0), more.pop("expected", None)
    args = t.ReplaceArgs(canister, world.hashes[cls], b"", expected)
    order = order_argument(MANAGEMENT, METHOD, encode_argument(METHOD, args), cycles)
    result = order_result(world.call(OWNER, world.index, "order", order))
    if result.reject_code:
        raise Rejected(result.reject_code, result.reject_message, None)
    found = decode_result(METHOD, result.reply)
    assert isinstance(found, t.CanisterIdRecord)
    return found.canister_id


def stable_of(world: UpgradeWorld, canister: Principal) -> dict[bytes, bytes]:
    start, end = keys.owned_range(keys.STABLE, canister.raw)
    return {key[len(start) :]: value for key, value in world.store.scan(start, end)}


def record_of(world: UpgradeWorld, canister: Principal) -> records.CanisterRecord:
    return records.CANISTER.decode(world.store.get(keys.owned(keys.CANISTERS, canister.raw)) or b"")


def test_all_that_it_holds_moves_and_the_old_id_points_to_the_new() -> None:
    world = UpgradeWorld()
    old = world.make(9)
    wanted = t.CanisterSettings(freezing_threshold=77, log_memory_limit=5000)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(old, wanted))
    before, held = stable_of(world, old), world.account(old).cycles
    was = record_of(world, old)
    new = replace(world, old, expected=world.hashes[Old])
    assert new != old
    after = stable_of(world, new)
    assert {key: after[key] for key in before if key in after and after[key] == before[key]}
    assert int_result(world.query(OWNER, new, "get")) == 9
    world.call(OWNER, new, "set", int_argument(8))
    now = record_of(world, new)
    assert (now.controllers, now.settings) == (was.controllers, was.settings)
    assert (now.module_hash, now.creator) == (world.hashes[New], world.index.raw)
    assert world.account(new).cycles == held
    gone = record_of(world, old)
    assert (gone.module_hash, gone.replaced_by, world.account(old).cycles) == (None, new.raw, 0)
    assert stable_of(world, old) == {}
    assert world.account(world.index).canisters_created == 1
    (report,) = world.ask(OPERATOR, "cannery_status_many", [old])
    assert report.status.replaced_by == new


def test_calls_and_queries_to_the_old_id_name_the_new_one() -> None:
    world = UpgradeWorld()
    old, other = world.make(9), make_puppet(world)
    new = replace(world, old)
    text = f"Canister {old} was replaced by {new}: call {new}"
    for call in (world.call, world.query):
        with pytest.raises(Rejected) as caught:
            call(OWNER, old, "get")
        assert (caught.value.code, caught.value.error_code, caught.value.text) == (3, "CNRY0301", text)
    result = order_result(world.call(OWNER, other, "order", order_argument(old, "get", b"DIDL\x00\x00")))
    assert int_result(result.reply) == 9, "calls of canisters go on to the new id"
    asked = order_result(world.query(OWNER, other, "ask", order_argument(old, "get", b"DIDL\x00\x00")))
    assert asked.reject_message == text
    (failed,) = world.upgrade([old])
    assert (failed.outcome.failed.error_code, failed.outcome.failed.text) == ("CNRY0301", text)
    for mode in (t.InstallMode.install(), t.InstallMode.reinstall()):
        args = t.InstallChunkedCodeArgs(mode, old, None, [], world.hashes[Old], b"")
        with pytest.raises(Rejected, match="was replaced by"):
            world.manage(OWNER, "install_chunked_code", args)
    with pytest.raises(Rejected, match="was replaced by"):
        replace(world, old)
    again = replace(world, new, Old)
    with pytest.raises(Rejected, match=f"was replaced by {again}"):
        world.call(OWNER, new, "get")
    world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(old))
    world.manage(OWNER, "delete_canister", t.CanisterIdRecord(old))
    with pytest.raises(Rejected, match="not found"):
        world.call(OWNER, old, "get")


@pytest.mark.parametrize("number", [TRAPS, HANGS, CORRUPTS, CANNOT_END, HANGS_AT_END])
def test_a_hook_that_fails_leaves_everything_as_it_was(number: int) -> None:
    world = UpgradeWorld()
    old = world.make(number)
    before, index = world.traces(), world.index.raw
    with pytest.raises(Rejected):
        replace(world, old)
    assert {k: v for k, v in world.traces().items() if index not in k} == {
        k: v for k, v in before.items() if index not in k
    }
    assert world.account(world.index).canisters_created == 0
    assert len([1 for key in world.traces() if key[0] == keys.CANISTERS]) == 2


def test_timers_go_on_at_the_new_id_in_their_rhythm_and_once() -> None:
    world = UpgradeWorld()
    world.hashes[Puppet] = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Puppet))
    old = make_puppet(world)
    world.control(old, world.index, OWNER)
    world.call(OWNER, old, "tick_after", int_argument(100))
    world.call(OWNER, old, "tick_after", int_argument(200))
    world.wait(50)
    new = replace(world, old, Puppet)
    assert world.account(new).timers_open == 2
    assert world.account(old).timers_open == 0
    for seconds, count in ((30, 0), (30, 1), (200, 2), (500, 2)):
        world.wait(seconds)
        assert int_result(world.query(OWNER, new, "get")) == count


def test_a_message_that_waits_at_the_old_id_is_told_the_new_one_and_a_timer_is_not_lost() -> None:
    world = UpgradeWorld()
    world.one_per_turn()
    world.hashes[Puppet] = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Puppet))
    old = make_puppet(world)
    world.control(old, world.index, OWNER)
    world.call(OWNER, old, "tick_after", int_argument(5))
    args = t.ReplaceArgs(old, world.hashes[Puppet], b"")
    order = order_argument(MANAGEMENT, METHOD, encode_argument(METHOD, args))
    calls = [world.ingress(OWNER, old, "set", int_argument(number)) for number in range(3)]
    # The timer falls due in the block whose third turn replaces the canister: its messages wait there.
    ingress = world.ingress(OWNER, world.index, "order", order)
    world.block(ingress, *calls, seconds=10)
    reject = world.answers[calls[2].request_id]
    assert (reject.error_code, "was replaced by" in reject.reject_message) == ("CNRY0301", True)
    (info,) = world.ask(OPERATOR, "cannery_status_many", [old])
    new = info.status.replaced_by
    world.wait(1)
    assert world.account(new).timers_open == 0
    assert world.account(new).messages + world.account(old).messages >= 2
    assert int_result(world.query(OWNER, new, "get")) >= 1


def test_a_repeating_timer_whose_message_waits_fires_at_once_and_keeps_its_rhythm() -> None:
    world = UpgradeWorld()
    world.one_per_turn()
    world.hashes[Pulse] = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Pulse))
    old = make_puppet(world, Pulse)
    world.control(old, world.index, OWNER)
    world.call(OWNER, old, "begin")
    begun_ns = world.time_ns
    args = t.ReplaceArgs(old, world.hashes[Pulse], b"")
    order = order_argument(MANAGEMENT, METHOD, encode_argument(METHOD, args))
    calls = [world.ingress(OWNER, old, "get", b"DIDL\x00\x00") for _ in range(3)]
    world.block(world.ingress(OWNER, world.index, "order", order), *calls, seconds=105)
    world.wait(1)
    (info,) = world.ask(OPERATOR, "cannery_status_many", [old])
    new = info.status.replaced_by
    assert int_result(world.query(OWNER, new, "get")) == 1
    world.wait((begun_ns - world.time_ns) / 1e9 + 199)
    assert int_result(world.query(OWNER, new, "get")) == 1
    world.wait(2)
    assert int_result(world.query(OWNER, new, "get")) == 2
    assert world.account(old).messages == 2, "the old id ran its first calls alone"


def test_calls_of_canisters_go_on_over_several_moves() -> None:
    world = UpgradeWorld()
    old, other = world.make(9), make_puppet(world)
    newest = replace(world, replace(world, old))
    order = order_argument(old, "set", int_argument(8))
    assert order_result(world.call(OWNER, other, "order", order)).reject_code == 0
    assert int_result(world.query(OWNER, newest, "get")) == 8


def test_calls_in_flight_cannot_move_so_it_is_stopped_first() -> None:
    world = UpgradeWorld()
    old = world.make(9)
    world.submit(OWNER, old, "hold")
    before = world.keys_of(old)
    with pytest.raises(Rejected, match="calls in flight, which cannot move: stop it first"):
        replace(world, old)
    assert world.keys_of(old) == before
    world.manage(OWNER, "cannery_stop_canister", t.StopArgs(old, True))
    new = replace(world, old)
    with pytest.raises(Rejected, match="is stopped"):
        world.call(OWNER, new, "get")
    with pytest.raises(Rejected, match=f"replaced by {new}"):
        world.call(OWNER, old, "get")
    world.manage(OWNER, "start_canister", t.CanisterIdRecord(new))
    assert int_result(world.call(OWNER, new, "get")) == 9


def test_what_cannot_be_replaced_is_told_and_stays() -> None:
    world = UpgradeWorld()
    old, empty = world.make(9), world.make(9)
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(empty))
    foreign = world.make(9)
    world.control(foreign, OWNER)
    before = {canister: world.keys_of(canister) for canister in (old, empty, foreign)}
    for canister, more, words in (
        (empty, {}, "is empty"),
        (foreign, {}, "Only controllers"),
        (old, {"expected": world.hashes[New]}, "not the expected one"),
        (Principal(keys.canister_id(0x200000)), {}, "not found"),
    ):
        with pytest.raises(Rejected, match=words):
            replace(world, canister, **more)
    assert {canister: world.keys_of(canister) for canister in before} == before


@pytest.mark.parametrize(
    ("limit", "words"), [("SIZE_BYTES", "bytes of stable"), ("KEY_COUNT", "more than 1 keys")]
)
def test_the_copy_is_bounded(monkeypatch: pytest.MonkeyPatch, limit: str, words: str) -> None:
    world = UpgradeWorld()
    old = make_puppet(world, Second)
    world.control(old, world.index, OWNER)
    world.call(OWNER, old, "set", int_argument(9))
    before = world.keys_of(old)
    monkeypatch.setattr(f"cannery.replica.management.replace.SNAPSHOT_{limit}_MAX", 1)
    with pytest.raises(Rejected, match=words):
        replace(world, old)
    assert world.keys_of(old) == before


def test_over_http_operators_replace_what_they_control() -> None:
    world = UpgradeWorld()
    mine, others = world.make(9, Old, OPERATOR), world.make(9)
    args = t.ReplaceArgs(mine, world.hashes[New], b"")
    for sender in (OWNER, STRANGER):
        with pytest.raises(Rejected, match="Over HTTP only operators"):
            world.manage(sender, METHOD, args)
    with pytest.raises(Rejected, match="Only controllers"):
        world.manage(OPERATOR, METHOD, t.ReplaceArgs(others, world.hashes[New], b""))
    new = world.manage(OPERATOR, METHOD, args).canister_id
    assert int_result(world.query(OWNER, new, "get")) == 9


def test_it_pays_the_creation_fee_and_attached_cycles_are_added() -> None:
    world = UpgradeWorld(PriceSchedule(creation=1_000))
    old = world.make(9)
    held = world.account(old).cycles
    with pytest.raises(Rejected, match="costs 1000 cycles"):
        replace(world, old, cycles=999)
    new = replace(world, old, cycles=1_500)
    assert world.account(new).cycles == held + 500


def test_a_snapshot_stays_with_the_old_id_and_loads_into_the_new_one_alone() -> None:
    world = UpgradeWorld()
    old = world.make(9)
    snapshot = world.manage(OWNER, "take_canister_snapshot", TakeSnapshotArgs(old)).id
    world.call(OWNER, old, "set", int_argument(8))
    new = replace(world, old)
    with pytest.raises(Rejected, match="was replaced by"):
        world.manage(OWNER, "load_canister_snapshot", LoadSnapshotArgs(old, snapshot))
    world.manage(OWNER, "load_canister_snapshot", LoadSnapshotArgs(new, snapshot))
    assert int_result(world.query(OWNER, new, "get")) == 9


def test_one_that_controls_itself_goes_on_doing_so() -> None:
    world = UpgradeWorld()
    old = world.make(9)
    world.control(old, world.index, OWNER, old)
    new = replace(world, old)
    assert record_of(world, new).controllers == (world.index.raw, OWNER.raw, new.raw)


def test_a_batch_and_a_replacement_do_not_disturb_each_other() -> None:
    world = UpgradeWorld()
    targets = [world.make(9) for _ in range(4)]
    world.few_per_round(1_000)
    batch = world.ingress(OWNER, world.index, "order", world.order(world.args(targets)))
    args = t.ReplaceArgs(targets[2], world.hashes[New], b"")
    order = order_argument(MANAGEMENT, METHOD, encode_argument(METHOD, args))
    second = make_puppet(world)
    world.control(targets[2], world.index, OWNER, second)
    world.block(batch, world.ingress(OWNER, second, "order", order))
    results = results_of(world.answer(batch.request_id))
    assert [result.canister_id for result in results] == targets
    assert [tag for tag in tags(results) if tag == "upgraded"]
    assert world.leftovers() == []


# --- in a fleet ----------------------------------------------------------------------------------------


def test_the_successor_of_a_member_is_a_member_and_the_old_id_is_none() -> None:
    fleet = Fleet()
    module, newer = fleet.module(), fleet.module("newer")
    old = fleet.create(module)
    assert fleet.stamp(old) == fleet.index
    new = fleet.manage(METHOD, t.ReplaceArgs(old, newer, b"")).canister_id
    assert fleet.stamp(new) == fleet.index
    info = fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.index)
    assert info.members == 1
    reports = fleet.world.ask(OPERATOR, "cannery_status_many", [old, new])
    assert [report.status.fleet for report in reports] == [None, fleet.index]
    fleet.world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(old))
    fleet.world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(old))
    assert fleet.world.account(fleet.index).canisters_created == 1


def test_an_operator_replaces_a_member_by_a_member_and_a_foreign_module_ends_membership() -> None:
    fleet = Fleet()
    module = fleet.module()
    foreign = fleet.module("foreign", register=False)
    one, two = fleet.create(module, [fleet.index, OPERATOR]), fleet.create(module)
    new = fleet.world.manage(OPERATOR, METHOD, t.ReplaceArgs(one, module, b"")).canister_id
    assert fleet.stamp(new) == fleet.index
    other = fleet.manage(METHOD, t.ReplaceArgs(two, foreign, b"")).canister_id
    assert fleet.stamp(other) is None
    assert fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.index).members == 1


def test_an_index_is_known_by_its_id_and_is_not_replaced() -> None:
    fleet = Fleet()
    args = t.ReplaceArgs(fleet.index, fleet.module(), b"")
    with pytest.raises(Rejected, match="is the index of a fleet"):
        fleet.world.manage(OPERATOR, METHOD, args)
