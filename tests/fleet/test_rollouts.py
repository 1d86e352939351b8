"""Rollouts in a node: builds that are good, trap, hang or corrupt, under calls and crashes."""

from __future__ import annotations

import random

import pytest

from cannery import Canister
from cannery.client.errors import Rejected
from cannery.fleet.rollout_filter import RolloutFilter
from cannery.fleet.rollout_types import KindVersion, RolloutArgs
from cannery.replica.block import PriceSchedule
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    InstallCodeArgs,
    InstallMode,
    StopArgs,
    UpdateSettingsArgs,
    UpgradeFlags,
)
from cannery.testing import Crashed, FaultyStore
from tests.fleet.hamlet import (
    CORRUPTS,
    HANGS,
    TRAPS,
    Hamlet,
    Hut,
    HutForMost,
    HutOfStone,
    HutOfStraw,
    HutWithBell,
    HutWithoutDoor,
    HutWithSlate,
)
from tests.fleet.rollout_node import Town, order


def test_releases_have_rising_versions_and_modules_that_the_node_knows() -> None:
    town = Town(0)
    add, module = (
        town.index.fleet_release_add,
        town.node.manage("cannery_module_add", town.node.build(HutWithBell)),
    )
    assert "not on this node" in add("hut", 2, bytes(32), "nothing").err
    assert "versions rise" in add("hut", 1, module, "the same version").err
    assert "hut 1 already" in add("hut", 2, town.modules[1], "the same module").err
    assert "in one line" in add("hut", 2, module, "two\nlines").err
    assert add("hut", 2, module, "a bell").tag == "ok"
    assert add("hut", 2, module, "asked again").tag == "ok"
    assert [(r.version, r.changelog, r.is_current) for r in town.index.fleet_releases("hut")] == [
        (2, "a bell", False),
        (1, "build 1", True),
    ]
    with pytest.raises(Rejected, match="for operators"):
        town.index.as_("stranger").fleet_releases(None)


def test_a_release_reaches_all_huts_and_new_ones_are_made_with_it() -> None:
    town = Town(30)
    town.knock(3)
    town.release(2, HutWithBell)
    id = town.start(2)
    info = town.finish(id)
    assert info.state.tag == "done"
    assert info.counts.forward == 30
    town.settle(1)
    assert town.versions() == {2: 31}
    town.knock(3)
    assert town.node.actor(town.huts[0].canister, HutWithBell).ring() == 1


def test_bad_huts_keep_their_release_with_the_reason_and_the_rest_goes_on() -> None:
    store = FaultyStore()
    town = Town(500, store)
    for number in range(0, 500, 50):
        town.knock(number)
    town.release(2, HutForMost)
    town.index.fleet_rollout_start.submit(order(2, 100, fault_permille=40, tries_max=2))
    for number in range(0, 500, 50):
        town.knock(number)
    store.crash()
    town.node.restart()
    info = town.finish(1)
    bad = [number for number in range(500) if number % 100 in (TRAPS, HANGS, CORRUPTS)]
    assert info.state.tag == "done", info
    assert (info.counts.forward, info.counts.quarantined) == (500 - len(bad), len(bad))
    assert town.versions() == {1: len(bad), 2: 500 - len(bad)}
    for number in range(0, 500, 50):
        town.knock(number)
    reasons = {}
    after = None
    while True:
        page = town.index.fleet_failures(1, after, 4)
        reasons |= {failure.child: failure for failure in page.items}
        after = page.next
        if after is None:
            break
    assert set(reasons) == {town.huts[number].canister for number in bad}
    wanted = {TRAPS: "the beam broke", HANGS: "CPU time", CORRUPTS: "health"}
    for number in bad:
        failure = reasons[town.huts[number].canister]
        assert wanted[number % 100] in failure.reason
        assert (failure.from_version, failure.to_version, failure.tries) == (1, 2, 2)


def test_a_build_that_is_bad_for_all_stops_at_the_canary_and_goes_back() -> None:
    town = Town(40)
    town.release(2, HutOfStraw)
    id = town.start(2, 10, canary_permille=100)
    info = town.finish(id)
    assert info.state.tag == "rolled_back"
    assert info.counts.selected == 4
    assert info.reason == "4 children failed, 2 may"
    assert town.versions() == {1: 40}
    kinds = [(alarm.kind, alarm.is_over) for alarm in town.index.fleet_alarms(None, 100)]
    assert ("rollout_stopped", True) in kinds
    town.settle(1)
    assert town.versions() == {1: 41}


def test_going_back_keeps_what_was_stored_since() -> None:
    town = Town(20)
    town.release(2, HutWithBell)
    id = town.start(2)
    town.finish(id)
    town.knock(7)
    assert town.index.fleet_rollout_go_back(id, False).tag == "ok"
    assert town.finish(id).state.tag == "rolled_back"
    town.knock(7)
    town.settle(1)
    assert town.versions() == {1: 21}


def test_what_does_not_fit_is_refused_before_anything_moves_unless_forced() -> None:
    town = Town(10)
    town.release(2, HutWithoutDoor)
    refused = town.index.fleet_rollout_start(order(2))
    assert "knock" in refused.err
    assert town.versions() == {1: 10}
    forced = town.index.fleet_rollout_start(RolloutArgs([KindVersion("hut", 2)], 10, force=True))
    info = town.finish(forced.ok)
    assert info.state.tag == "done"
    assert "knock" in info.check[0].interface
    assert {child.version for child in town.children()} == {2}


def test_without_a_way_back_it_says_so_before_and_halts_instead() -> None:
    town = Town(10)
    town.release(2, HutWithSlate)
    id = town.start(2, 0)
    info = town.info(id)
    assert info.state.tag == "paused"
    assert "slate" in info.no_way_back
    assert "slate" in info.check[0].back_state
    town.index.fleet_rollout_set_concurrency(id, 10)
    assert town.finish(id).state.tag == "done"
    assert "slate" in town.index.fleet_rollout_go_back(id, False).err
    town.index.fleet_rollout_go_back(id, True)
    info = town.finish(id)
    assert (info.state.tag, info.counts.quarantined) == ("rolled_back", 10)
    assert town.versions() == {2: 10}


def test_a_halt_is_an_alarm_until_an_operator_decides() -> None:
    town = Town(100)
    town.release(2, HutForMost)
    id = town.start(2, 100, fault_permille=20, goes_back=False)
    town.node.run()
    assert town.info(id).state.tag == "stalled"
    (alarm,) = town.index.fleet_alarms_open()
    assert (alarm.kind, alarm.text) == (
        "rollout_stopped",
        "3 children failed, 2 may; it waits: it was started not to go back by itself",
    )
    town.index.fleet_rollout_set_concurrency(id, 100)
    info = town.finish(id)
    assert (info.state.tag, info.counts.quarantined) == ("done", 3)
    assert {alarm.kind for alarm in town.index.fleet_alarms_open()} == {"quarantined"}
    town.index.fleet_rollout_go_back(id, False)
    town.node.run()
    kinds = [alarm.kind for alarm in town.index.fleet_alarms(None, 100)]
    assert kinds.count("rollout_stopped") == 2, "what an operator orders is no alarm"


def test_of_two_operators_who_start_at_once_one_is_told_of_the_other() -> None:
    town = Town(20)
    town.release(2, HutWithBell)
    town.release(3, HutForMost)
    sent = [town.index.fleet_rollout_start.submit(order(version, 4)) for version in (2, 3)]
    town.node.run()
    results = [each.result() for each in sent]
    assert sorted(result.tag for result in results) == ["err", "ok"]
    (refused,) = [result.err for result in results if result.tag == "err"]
    assert "under way" in refused
    assert len(set(town.versions())) == 1


def test_a_pause_holds_and_a_cancelled_rollout_leaves_the_rest_where_it_is() -> None:
    town = Town(30, per_round=2)
    town.release(2, HutWithBell)
    id = town.start(2, 0)
    town.node.advance(seconds=3_600)
    assert town.versions() == {1: 30}
    town.index.fleet_rollout_set_concurrency.submit(id, 4)
    town.node.step()
    town.node.step()
    assert town.index.fleet_rollout_cancel(id).tag == "ok"
    town.node.run()
    info = town.info(id)
    assert info.state.tag == "cancelled"
    versions = town.versions()
    assert 0 < versions[2] < 30
    assert info.counts.forward == versions[2]
    assert "is over" in town.index.fleet_rollout_cancel(id).err
    assert town.finish(town.start(2)).state.tag == "done"
    assert town.versions() == {2: 30}


def test_a_quarantined_hut_is_an_alarm_until_it_is_tried_again_and_done() -> None:
    town = Town(50)
    town.release(2, HutForMost)
    id = town.start(2, 50, fault_permille=100, tries_max=1)
    town.finish(id)
    hut = town.huts[CORRUPTS].canister
    open_alarms = {(alarm.kind, alarm.subject) for alarm in town.index.fleet_alarms_open()}
    assert ("quarantined", str(hut)) in open_alarms
    town.knock(CORRUPTS)
    town.knock(CORRUPTS)
    assert town.index.fleet_retry(hut).tag == "ok"
    town.finish(id)
    assert town.info(id).counts.quarantined == 3
    town.release(3, HutWithBell)
    town.finish(town.start(3, 50))
    assert town.versions() == {3: 50}
    assert town.index.fleet_alarms_open() == []
    assert "not quarantined" in town.index.fleet_retry(hut).err


def test_huts_that_are_deleted_stopped_or_taken_over_meanwhile_do_not_hold_the_rest_up() -> None:
    town = Town(20, per_round=1)
    node = town.node
    town.release(2, HutWithBell)
    id = town.start(2, 0, canary_permille=0)
    gone, stopped, taken = (hut.canister for hut in town.huts[:3])
    node.manage("stop_canister", CanisterIdRecord(stopped), sender=town.index)
    keys = UpdateSettingsArgs(taken, CanisterSettings(controllers=[town.owner(2)]))
    node.manage("update_settings", keys, sender=town.index)
    node.manage("stop_canister", CanisterIdRecord(gone), sender=town.index)
    node.manage("delete_canister", CanisterIdRecord(gone), sender=town.index)
    town.index.fleet_rollout_set_concurrency.submit(id, 20)
    node.run()
    info = town.finish(id)
    assert info.state.tag == "done"
    assert (
        node.manage("canister_status", CanisterIdRecord(stopped), sender=town.index).module_hash
        == town.modules[2]
    )
    assert town.index.fleet_failures(id, None, 10).items == [], "the node has told of both"
    assert town.index.fleet_child(taken).state.tag == "in_custody"
    assert town.index.fleet_child(gone) is None


@pytest.mark.parametrize(("how", "error_code"), [("deleted", "IC0301"), ("taken", "IC0512")])
def test_a_hut_that_goes_while_its_wave_is_on_its_way_is_a_failure_with_its_reason(
    how: str, error_code: str
) -> None:
    town = Town(20, per_round=1)
    node, hut = town.node, town.huts[0].canister
    town.release(2, HutWithBell)
    node.manage("stop_canister", CanisterIdRecord(hut), sender=town.index)
    id = town.start(2, 0, canary_permille=0)
    town.index.fleet_rollout_set_concurrency.submit(id, 20)
    if how == "deleted":
        node.manage("delete_canister", CanisterIdRecord(hut), sender=town.index)
    else:
        keys = UpdateSettingsArgs(hut, CanisterSettings(controllers=[town.owner(0)]))
        node.manage("update_settings", keys, sender=town.index)
    info = town.finish(id)
    assert info.state.tag == "done"
    failures = {f.child: f.reason for f in town.index.fleet_failures(id, None, 10).items}
    assert set(failures) <= {hut}
    assert all(error_code in reason for reason in failures.values())
    assert info.counts.forward == 19
    assert info.counts.skipped + info.counts.quarantined == 1


def test_a_child_that_leaves_while_it_waits_is_no_failure() -> None:
    town = Town(44)
    town.release(2, HutForMost)
    id = town.start(2, 44, fault_permille=200)
    town.node.run()
    assert town.info(id).counts.waiting == 3
    town.index.fleet_delete(town.huts[TRAPS].canister)
    info = town.finish(id)
    assert (info.counts.skipped, info.counts.quarantined) == (1, 2)
    town.index.fleet_delete(town.huts[HANGS].canister)
    town.node.run()
    assert [alarm.subject for alarm in town.index.fleet_alarms_open()] == [str(town.huts[CORRUPTS].canister)]


def test_children_born_meanwhile_are_brought_along() -> None:
    town = Town(10, per_round=1)
    town.release(2, HutWithBell)
    asked = []
    started = town.index.fleet_rollout_start.submit(order(2, 1))
    for number in range(10, 20):
        town.node.step()
        asked.append(town.index.as_(town.owner(number)).settle.submit())
    town.node.run()
    town.huts += [sent.result() for sent in asked]
    assert town.finish(started.result().ok).state.tag == "done"
    assert town.versions() == {2: 20}


def test_a_filter_chooses_by_version_id_and_activity() -> None:
    town = Town(12)
    town.release(2, HutWithBell)
    ids = [hut.canister for hut in town.huts]
    args = RolloutArgs([KindVersion("hut", 2)], 10, filter=RolloutFilter([], ids[:3], ids[:1], None))
    town.finish(town.index.fleet_rollout_start(args).ok)
    assert {child.canister for child in town.children() if child.version == 2} == set(ids[1:3])
    town.node.advance(seconds=60)
    since_ns = town.node.now_ns
    town.knock(5)
    args = RolloutArgs([KindVersion("hut", 2)], 10, filter=RolloutFilter([1], [], [], since_ns))
    info = town.finish(town.index.fleet_rollout_start(args).ok)
    assert (info.counts.forward, info.counts.skipped) == (1, 9)
    assert town.versions() == {1: 9, 2: 3}
    town.settle(1)
    assert town.versions() == {1: 10, 2: 3}, "new ones are made with what all are on"


def test_a_release_need_not_fit_children_that_the_rollout_does_not_come_upon() -> None:
    town = Town(5)
    town.release(2, HutWithBell)
    town.release(3, HutOfStone)
    ids = [hut.canister for hut in town.huts]
    bells = RolloutFilter([], ids[:2], [], None)
    town.finish(town.index.fleet_rollout_start(RolloutArgs([KindVersion("hut", 2)], 10, filter=bells)).ok)
    assert "ring" in town.index.fleet_rollout_start(order(3)).err
    one_left = RolloutFilter([], [], ids[:1], None)
    assert (
        "ring"
        in town.index.fleet_rollout_start(RolloutArgs([KindVersion("hut", 3)], 10, filter=one_left)).err
    )
    for chosen in (RolloutFilter([], ids[2:3], [], None), RolloutFilter([], [], ids[:2], None)):
        args = RolloutArgs([KindVersion("hut", 3)], 10, filter=chosen)
        info = town.finish(town.index.fleet_rollout_start(args).ok)
        assert (info.state.tag, [each.version for each in info.check]) == ("done", [1])
    assert town.versions() == {2: 2, 3: 3}
    settings = CanisterSettings(controllers=[town.owner(0)])
    for canister in ids[:2]:
        town.node.manage("update_settings", UpdateSettingsArgs(canister, settings), sender=town.index)
    town.node.run()
    town.settle(1)
    assert town.finish(town.start(3)).state.tag == "done", "what is in custody is not come upon either"


def test_children_that_earlier_rollouts_left_behind_are_no_canary() -> None:
    town = Town(100)
    for version in (2, 3):
        module = town.node.manage("cannery_module_add", town.node.build(HutForMost) + _custom(version))
        assert town.index.fleet_release_add("hut", version, module, "for most").tag == "ok"
        info = town.finish(town.start(version, canary_permille=100, tries_max=1))
        assert (info.state.tag, info.counts.forward, info.counts.quarantined) == ("done", 97, 3)
    assert town.versions() == {1: 3, 3: 97}


def test_a_child_that_comes_late_with_an_old_release_is_brought_along() -> None:
    town = Town(3)
    town.release(2, HutWithBell)
    id = town.start(2)
    assert town.finish(id).state.tag == "done"
    late = town.index.as_("late").settle_late(1)
    town.node.run()
    assert town.index.fleet_child(late.canister).version == 2
    assert town.finish(id).counts.forward == 4


def test_a_frozen_child_is_put_aside_and_can_be_tried_again_when_it_has_thawed() -> None:
    town = Town(10, prices=PriceSchedule(storage_per_gib_second=10**6))
    hut = town.huts[6].canister
    for threshold, state, quarantined in ((2**60, "done", 1), (0, "done", 0)):
        settings = CanisterSettings(freezing_threshold=threshold)
        town.node.manage("update_settings", UpdateSettingsArgs(hut, settings), sender=town.index)
        if threshold:
            town.release(2, HutWithBell)
            town.start(2)
        else:
            assert town.index.fleet_retry(hut).tag == "ok"
        info = town.finish(1)
        assert (info.state.tag, info.counts.quarantined) == (state, quarantined), info
        if threshold:
            assert "IC0207" in town.index.fleet_failures(1, None, 10).items[0].reason
    assert town.versions() == {2: 10}


def test_kind_follows_kind_and_kinds_without_children_are_passed() -> None:
    town = Town(4)
    kinds = ["abbey", "barn", "castle", "dairy", "forge", "hut", "inn", "mill"]
    for number, kind in enumerate(kinds):
        module = town.node.manage("cannery_module_add", town.node.build(HutWithBell) + _custom(number))
        assert town.index.fleet_release_add(kind, 2, module, "a bell").tag == "ok"
    args = RolloutArgs([KindVersion(kind, 2) for kind in kinds], 10)
    info = town.finish(town.index.fleet_rollout_start(args).ok)
    assert (info.state.tag, info.counts.forward) == ("done", 4)
    assert town.versions() == {2: 4}


def _custom(number: int) -> bytes:
    """Return a custom section that changes a module's hash and nothing else."""
    return bytes((0, 3, 1, 120, number))


def test_a_scan_reads_each_child_once() -> None:
    town = Town(30)
    for version in (2, 3):
        town.release(version, HutWithBell if version == 2 else HutForMost)
    ids = [hut.canister for hut in town.huts]
    rest = RolloutArgs([KindVersion("hut", 2)], 10, filter=RolloutFilter([], [], ids[:10], None))
    town.finish(town.index.fleet_rollout_start(rest).ok)
    some = RolloutFilter([], [], ids[3:6], None)
    args = RolloutArgs([KindVersion("hut", 3)], 2, filter=some, force=True)
    info = town.finish(town.index.fleet_rollout_start(args).ok)
    assert (info.state.tag, info.counts.scanned, info.counts.selected) == ("done", 30, 27)


def test_going_back_touches_only_what_still_runs_the_release() -> None:
    town = Town(5)
    town.release(2, HutWithBell)
    town.release(3, HutForMost)
    town.finish(town.start(2))
    other = town.huts[2].canister
    mode = InstallMode.upgrade(UpgradeFlags())
    module = town.node.build(HutForMost)
    town.node.manage("install_code", InstallCodeArgs(mode, other, module, b"DIDL\0\0"), sender=town.index)
    town.index.fleet_rollout_go_back(1, False)
    info = town.finish(1)
    assert (info.state.tag, info.counts.back, info.counts.quarantined) == ("rolled_back", 4, 1)
    assert town.node.actor(other, Hut).get_version().version == 3
    town.index.fleet_rollout_start(RolloutArgs([KindVersion("hut", 3)], 10, force=True))
    assert town.finish(2).state.tag == "done"
    assert "came after it" in town.index.fleet_rollout_go_back(1, False).err


def test_the_index_may_be_upgraded_and_stopped_by_force_at_any_step() -> None:
    town = Town(6, per_round=1)
    town.release(2, HutOfStone)
    stop = StopArgs(town.index.id, force=True)
    for steps in range(16):
        started = town.index.fleet_rollout_start.submit(order(2 - steps % 2, 2))
        for _ in range(steps):
            town.node.step()
        if steps % 4 < 2:
            town.node.upgrade(town.index, Hamlet)
        town.node.manage("cannery_stop_canister", stop)
        town.node.start(town.index)
        town.node.advance(seconds=700)
        assert started.is_answered or steps == 0
        if len(town.index.fleet_rollouts()) < steps + 1:
            town.start(2 - steps % 2)
        info = town.finish(steps + 1)
        assert (info.state.tag, info.counts.quarantined) == ("done", 0), info
        assert town.versions() == {2 - steps % 2: 6}


@pytest.mark.parametrize(
    ("build", "permille", "end"),
    [(HutWithBell, 0, {2: 44}), (HutForMost, 200, {1: 3, 2: 41}), (HutForMost, 30, {1: 44})],
)
def test_crashes_at_any_write_lose_nothing(build: type[Canister], permille: int, end: dict[int, int]) -> None:
    for seed in range(3):
        chance = random.Random(seed)
        store = FaultyStore(seed=seed)
        town = Town(44, store, per_round=2)
        town.release(2, build)
        town.knock(41)
        args = order(2, 7, fault_permille=permille, tries_max=2)
        crashes = 0
        while True:
            store.crash_at(store.operation_count + chance.randint(1, 6))
            try:
                rollouts = town.index.fleet_rollouts()
                if not rollouts:
                    town.index.fleet_rollout_start(args)
                elif rollouts[0].ended_ns is not None:
                    break
                town.knock(chance.randrange(44))
                town.node.advance(seconds=chance.choice([1, 10, 700]))
            except Crashed:
                crashes += town.recover(store, chance)
        store.crash_at(0)
        assert crashes > 5
        assert town.versions() == end
        info = town.info(1)
        assert info.state.tag == ("rolled_back" if end == {1: 44} else "done")
        assert info.counts.quarantined == (3 if end == {1: 3, 2: 41} else 0)
        for number in range(44):
            town.knock(number)
        town.node.close()
