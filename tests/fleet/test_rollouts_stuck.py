"""Rollouts of builds that will not be replaced, answer nonsense about their health, or take their time."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

from cannery.limits import ROUND_WORK_COUNT_MAX, UPGRADE_HOOK_WORK_COUNT
from tests.fleet.hamlet import Hut, HutForMost, HutOfStone, HutOfWords, HutThatStays
from tests.fleet.rollout_node import Town, order


def test_a_release_that_does_not_let_itself_be_replaced_is_left_without_its_hook() -> None:
    town = Town(6)
    town.knock(3)
    town.release(2, HutThatStays)
    assert town.finish(town.start(2)).state.tag == "done"
    town.release(3, HutOfStone)
    stuck = town.finish(town.start(3, tries_max=1))
    assert (stuck.state.tag, stuck.reason) == ("rolled_back", "1 child failed, 0 may")
    (failure,) = town.index.fleet_failures(stuck.id, None, 10).items
    assert "I stay as I am (in pre_upgrade)" in failure.reason
    assert town.versions() == {2: 6}
    started = town.index.fleet_rollout_start(replace(order(3), skip_pre_upgrade=True))
    info = town.finish(started.ok)
    assert (info.state.tag, info.skip_pre_upgrade) == ("done", True)
    assert town.versions() == {3: 6}
    town.knock(3)


def test_a_health_check_that_answers_nonsense_is_a_failure() -> None:
    town = Town(4)
    town.release(2, HutOfWords)
    info = town.finish(town.start(2, tries_max=1))
    assert info.state.tag == "rolled_back"
    (failure,) = town.index.fleet_failures(info.id, None, 10).items
    assert "the health check is_well answered 'ill', and not True" in failure.reason
    assert town.versions() == {1: 4}


def test_few_upgrades_with_hooks_share_a_round_since_each_may_take_its_time() -> None:
    town = Town(40)
    town.release(2, HutForMost)
    started = town.index.fleet_rollout_start.submit(order(2, 1_000, canary_permille=0))
    counts = [0]
    while town.node.step():
        said = [town.node.actor(hut.canister, Hut).get_version().version for hut in town.huts]
        counts.append(said.count(2))
    assert started.result().tag == "ok"
    hooks_count = 2
    most = ROUND_WORK_COUNT_MAX // (hooks_count * UPGRADE_HOOK_WORK_COUNT) + 1
    assert counts[-1] == 40
    assert max(later - before for before, later in pairwise(counts)) <= most
