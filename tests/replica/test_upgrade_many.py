"""Many canisters are upgraded by one call: each gets one result, and a failed one is as it was."""

from __future__ import annotations

import pytest

from cannery import Principal
from cannery.limits import UPGRADE_BATCH_COUNT_MAX, UPGRADE_TARGET_COUNT_MAX
from cannery.ports import WriteBatch
from cannery.replica import keys
from cannery.replica.block import PriceSchedule
from cannery.replica.management import types as t
from cannery.replica.management.upgrade_batch import UpgradeBatch
from cannery.replica.management.upgrade_types import UpgradeManyArgs
from cannery.replica.records import NoOrigin, encode_record
from tests.replica.management_world import (
    FAR,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    STRANGER,
    Rejected,
    encode_argument,
    int_argument,
    int_result,
    make_puppet,
    order_result,
)
from tests.replica.upgrade_world import (
    CANNOT_END,
    CORRUPTS,
    HANGS,
    HANGS_AT_END,
    METHOD,
    STORAGE,
    TRAPS,
    Mute,
    New,
    Old,
    UpgradeWorld,
    results_of,
    tags,
)

NOBODY = Principal(keys.canister_id(0x200000))


def test_each_target_gets_its_own_result_in_the_order_asked() -> None:
    world = UpgradeWorld()
    fates = [9, TRAPS, HANGS, CORRUPTS, CANNOT_END, HANGS_AT_END, 9]
    targets = [world.make(number) for number in fates]
    empty, foreign = world.make(9), world.make(9)
    world.manage(OWNER, "uninstall_code", t.VersionedCanisterId(empty))
    world.control(foreign, OWNER)
    targets = [*targets, empty, foreign, NOBODY, FAR, world.make(9, New)]
    before = {target: world.keys_of(target) for target in targets}
    results = world.upgrade(targets)
    assert [result.canister_id for result in results] == targets
    assert tags(results) == ["upgraded", *["failed"] * 5, "upgraded", *["failed"] * 4, "unchanged"]
    texts = [result.outcome.failed.text if result.outcome.tag == "failed" else "" for result in results]
    for place, words in {
        1: "cannot begin",
        2: "CPU time",
        3: "health",
        4: "cannot end",
        5: "CPU time",
        7: "is empty",
        8: "Only controllers",
        9: "not found",
        10: "not found",
    }.items():
        assert words in texts[place]
    for target, result in zip(targets, results, strict=True):
        if result.outcome.tag == "upgraded":
            assert result.outcome.upgraded.from_module == world.hashes[Old]
            assert world.module_of(target) == world.hashes[New]
            assert int_result(world.query(OWNER, target, "get")) == 9
        else:
            assert world.keys_of(target) == before[target]
    codes = [r.outcome.failed.error_code for r in results if r.outcome.tag == "failed"]
    assert codes == ["IC0503", "IC0522", "IC0503", "IC0503", "IC0522", "IC0537", "IC0512", "IC0301", "IC0301"]
    stays = [r.outcome.failed.from_module for r in results if r.outcome.tag == "failed"]
    assert stays == [world.hashes[Old]] * 5 + [None] * 4
    assert world.leftovers() == []


def test_stopped_targets_are_upgraded_and_stay_stopped_frozen_ones_are_not() -> None:
    world = UpgradeWorld(STORAGE)
    stopped, frozen = world.make(9), world.make(9)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(stopped))
    freeze = t.CanisterSettings(freezing_threshold=10**12)
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(frozen, freeze))
    before = world.keys_of(frozen)
    results = world.upgrade([stopped, frozen])
    assert tags(results) == ["upgraded", "failed"]
    assert results[1].outcome.failed.error_code == "IC0207"
    assert world.keys_of(frozen) == before
    status = world.ask(OWNER, "canister_status", t.CanisterIdRecord(stopped))
    assert (status.status.tag, status.module_hash) == ("stopped", world.hashes[New])


def test_an_interface_that_breaks_clients_is_refused_unless_forced() -> None:
    world = UpgradeWorld()
    targets = [world.make(9), world.make(9)]
    results = world.upgrade(targets, Mute)
    assert tags(results) == ["failed", "failed"]
    assert "method 'set' is missing" in results[0].outcome.failed.text
    held = world.make(9)
    world.submit(OWNER, held, "hold")
    results = world.upgrade([*targets, held], Mute, force=True)
    assert tags(results) == ["upgraded", "upgraded", "failed"], "calls in flight are looked at all the same"
    assert "held" in results[2].outcome.failed.text


def test_only_those_on_one_module_and_only_the_active_ones() -> None:
    world = UpgradeWorld()
    old, other, idle = world.make(9), world.make(9, New), world.make(9)
    results = world.upgrade([old, other, idle], Mute, force=True, only_from=world.hashes[Old])
    assert tags(results) == ["upgraded", "skipped", "upgraded"]
    assert world.hashes[Old].hex() in results[1].outcome.skipped
    again = world.make(9)
    world.wait(10)
    active = world.make(8)
    results = world.upgrade([again, active], active_since_ns=world.time_ns - 5 * 10**9)
    assert tags(results) == ["skipped", "upgraded"]


def test_what_is_asked_as_a_whole_is_refused_as_a_whole() -> None:
    world = UpgradeWorld()
    target = world.make(9)
    before = world.traces()
    many = [Principal(keys.canister_id(number)) for number in range(UPGRADE_TARGET_COUNT_MAX + 1)]
    for args, words in (
        (world.args([target, target]), "named twice"),
        (world.args(many), "at most 1000 canisters"),
        (UpgradeManyArgs(bytes(32), b"", [target], False), "is not on this node"),
        (UpgradeManyArgs(world.hashes[New], bytes(1024 * 1024 + 1), [target], False), "1048576 bytes"),
    ):
        result = order_result(world.call(OWNER, world.index, "order", world.order(args)))
        assert words in result.reject_message
    assert world.keys_of(target) == {k: v for k, v in before.items() if target.raw in k}
    assert world.upgrade([]) == []


def test_over_http_operators_upgrade_what_they_control_and_nobody_else() -> None:
    world = UpgradeWorld()
    mine, others = world.make(9, Old, OPERATOR), world.make(9)
    results = world.manage(OPERATOR, METHOD, world.args([mine, others]))
    assert tags(results) == ["upgraded", "failed"]
    for sender in (OWNER, STRANGER):
        with pytest.raises(Rejected, match="Over HTTP only operators"):
            world.manage(sender, METHOD, world.args([others]))
        with pytest.raises(Rejected, match="Over HTTP only operators"):
            world.manage_unadmitted(sender, METHOD, world.args([others]))


def test_another_canister_upgrades_nothing() -> None:
    world = UpgradeWorld()
    target, stranger = world.make(9), make_puppet(world)
    before = world.keys_of(target)
    reply = world.call(OWNER, stranger, "order", world.order(world.args([target])))
    (result,) = results_of(reply)
    assert "Only controllers" in result.outcome.failed.text
    assert world.keys_of(target) == before


def test_attached_cycles_come_back_with_the_answer() -> None:
    world = UpgradeWorld()
    balance = world.account(world.index).cycles
    order = world.order(world.args([world.make(9)]), cycles=1_000)
    assert order_result(world.call(OWNER, world.index, "order", order)).refunded == 1_000
    assert world.account(world.index).cycles == balance


def test_a_batch_goes_over_rounds_and_others_are_served_in_between() -> None:
    world = UpgradeWorld()
    world.few_per_round()
    targets = [world.make(9) for _ in range(9)]
    rounds = world.number
    order = world.ingress(OWNER, world.index, "order", world.order(world.args(targets)))
    asked = world.ingress(OWNER, targets[8], "set", int_argument(8))
    world._round((order, asked), 1)
    assert asked.request_id in world.answers
    assert order.request_id not in world.answers
    while world.outcome is not None and world.outcome.backlog:
        world._round((), 0.001)
    assert world.number - rounds >= 4, "a round holds a few upgrades"
    assert tags(results_of(world.answer(order.request_id))) == ["upgraded"] * 9
    assert int_result(world.query(OWNER, targets[8], "get")) == 8


@pytest.mark.parametrize(
    ("method", "words"),
    [
        ("delete_canister", "was deleted"),
        ("uninstall_code", "is empty"),
        ("update_settings", "Only controllers"),
    ],
)
def test_a_target_that_changes_while_it_waits(method: str, words: str) -> None:
    world = UpgradeWorld()
    targets = [world.make(9) for _ in range(6)]
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(targets[3]))
    world.few_per_round(1_000)
    order = world.ingress(OWNER, world.index, "order", world.order(world.args(targets)))
    # Lanes take turns: the first call of the management canister runs before the batch comes in, the second
    # after it, before any target has its turn.
    value = {
        "delete_canister": t.CanisterIdRecord(targets[3]),
        "uninstall_code": t.VersionedCanisterId(targets[3]),
        "update_settings": t.UpdateSettingsArgs(targets[3], t.CanisterSettings(controllers=[OWNER])),
    }[method]
    before = world.ingress(OWNER, MANAGEMENT, "stop_canister", _id(targets[3]))
    change = world.ingress(OWNER, MANAGEMENT, method, encode_argument(method, value))
    world._round((order, before, change), 1)
    assert order.request_id not in world.answers
    world.block()
    assert world.answers[change.request_id].reply is not None
    results = results_of(world.answer(order.request_id))
    assert [result.canister_id for result in results] == targets
    assert tags(results) == ["upgraded"] * 3 + ["failed"] + ["upgraded"] * 2
    assert words in results[3].outcome.failed.text
    assert world.leftovers() == []


def test_a_batch_ends_with_the_deletion_of_its_last_target() -> None:
    world = UpgradeWorld()
    target = world.make(9)
    world.manage(OWNER, "stop_canister", t.CanisterIdRecord(target))
    order = world.ingress(OWNER, world.index, "order", world.order(world.args([target])))
    before = world.ingress(OWNER, MANAGEMENT, "stop_canister", _id(target))
    world.block(order, before, world.ingress(OWNER, MANAGEMENT, "delete_canister", _id(target)))
    (result,) = results_of(world.answer(order.request_id))
    assert "was deleted" in result.outcome.failed.text
    assert world.leftovers() == []


@pytest.mark.parametrize("act", ["uninstall", "force", "delete"])
def test_a_caller_that_goes_is_answered_once_and_its_batch_ends(act: str) -> None:
    world = UpgradeWorld()
    targets = [world.make(9) for _ in range(6)]
    world.few_per_round(1_000)
    balance = world.account(world.index).cycles
    order = world.ingress(OWNER, world.index, "order", world.order(world.args(targets), cycles=500))
    world._round((order,), 1)
    method, value = {
        "uninstall": ("uninstall_code", t.VersionedCanisterId(world.index)),
        "force": ("cannery_stop_canister", t.StopArgs(world.index, True)),
        "delete": ("cannery_stop_canister", t.StopArgs(world.index, True)),
    }[act]
    gone = world.ingress(OPERATOR, Principal(b""), method, encode_argument(method, value))
    world.block(gone)
    world.answer(gone.request_id)
    if act == "delete":
        deleted = world.ingress(OPERATOR, Principal(b""), "delete_canister", _id(world.index))
        world.block(deleted)
        world.answer(deleted.request_id)
    with pytest.raises(Rejected, match=r"was (uninstalled|stopped)"):
        world.answer(order.request_id)
    assert world.leftovers() == []
    assert [world.module_of(target) for target in targets] == [world.hashes[New]] * 6
    if act != "delete":
        assert world.account(world.index).cycles == balance, "what was attached came back"


def test_each_hook_that_hangs_ends_its_round_so_that_others_are_answered() -> None:
    world = UpgradeWorld()
    targets = [world.make(HANGS) for _ in range(4)]
    healthy = world.make(9)
    order = world.ingress(OWNER, world.index, "order", world.order(world.args([*targets, healthy])))
    world._round((order,), 1)
    for count in range(1, 5):
        assert world.outcome is not None
        assert len(world.outcome.block.verdicts) == 1
        assert order.request_id not in world.answers
        asked = world.ingress(OWNER, healthy, "set", int_argument(8))
        world._round((asked,), 0.001)
        assert (asked.request_id in world.answers) == (count == 4), "who comes later waits for its turn"
    world.block()
    assert tags(results_of(world.answer(order.request_id))) == ["failed"] * 4 + ["upgraded"]


def test_batches_of_one_caller_do_not_mix() -> None:
    world = UpgradeWorld()
    world.few_per_round(1_000)
    targets = [world.make(9) for _ in range(3)]
    orders = [
        world.ingress(OWNER, world.index, "order", world.order(world.args(targets, cls)))
        for cls in [New, Old] * 4
    ]
    world.block(*orders)
    for order in orders:
        results = results_of(world.answer(order.request_id))
        assert [result.canister_id for result in results] == targets
        assert tags(results) == ["upgraded"] * 3
    assert world.leftovers() == []


def test_a_caller_has_a_bounded_number_of_batches() -> None:
    world = UpgradeWorld()
    target = world.make(9)
    batch = UpgradeBatch(NoOrigin(), 0, world.hashes[New], b"", False, None, None, 0)
    open_ones = {
        keys.numbered(keys.UPGRADE_BATCHES, world.index.raw, number): encode_record(batch)
        for number in range(1, UPGRADE_BATCH_COUNT_MAX + 1)
    }
    world.store.write(WriteBatch(dict(open_ones)))
    order = world.order(world.args([target]))
    result = order_result(world.call(OWNER, world.index, "order", order))
    assert result.reject_code == 2
    assert f"{UPGRADE_BATCH_COUNT_MAX} batches" in result.reject_message
    world.store.write(WriteBatch({min(open_ones): None}))
    assert tags(world.upgrade([target])) == ["upgraded"]


def test_hooks_are_paid_by_their_canister() -> None:
    world = UpgradeWorld(PriceSchedule(per_message=100, per_byte=1, per_key=5))
    target = world.make(9)
    before = world.account(target).cycles
    index = world.account(world.index).cycles
    assert tags(world.upgrade([target])) == ["upgraded"]
    assert world.account(target).cycles < before
    assert index > world.account(world.index).cycles


def _id(canister: Principal) -> bytes:
    return encode_argument("delete_canister", t.CanisterIdRecord(canister))
