"""Rollouts, pure: whatever happens in whatever order, each child ends on the release, on its former one, or
quarantined with its reason.
"""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.fleet.rollout import (
    Comparison,
    RolloutError,
    RolloutRule,
    new_rollout,
    permitted_faults,
    plan_born,
    plan_cancel,
    plan_checked,
    plan_concurrency,
    plan_going_back,
    plan_retry,
    progress_of,
    state_of,
)
from cannery.fleet.rollout_filter import EVERY_CHILD, Candidate, RolloutFilter, fault_of_filter
from tests.fleet.rollout_world import (
    CUSTODY,
    FROZEN,
    GONE,
    IDLE,
    NEW,
    OLD,
    OLDER,
    SECOND_NS,
    TRAP,
    Child,
    World,
    named,
    order_of,
    randomly,
)

ANSWERS = [TRAP, FROZEN]
ENDS = [None, None, None, None, TRAP, FROZEN, CUSTODY, GONE, IDLE]


def fleet(count: int, module: bytes = OLD, kind: str = "user") -> list[Child]:
    return [Child(kind, module) for _ in range(count)]


# laws


@st.composite
def worlds(draw: st.DrawFn) -> World:
    kinds = draw(st.sampled_from([("user",), ("user", "group")]))
    children = [
        Child(
            draw(st.sampled_from(kinds)),
            draw(st.sampled_from([OLD, OLD, OLDER, NEW])),
            draw(st.lists(st.sampled_from(ANSWERS), max_size=2)),
            draw(st.sampled_from(ENDS)),
        )
        for _ in range(draw(st.integers(1, 25)))
    ]
    rule = RolloutRule(
        canary_permille=draw(st.sampled_from([0, 10, 200, 1_000])),
        canary_hold_ns=draw(st.sampled_from([0, 30 * SECOND_NS])),
        fault_permille=draw(st.sampled_from([0, 100, 300, 1_000])),
        canary_fault_permille=draw(st.sampled_from([0, 250, 1_000])),
        tries_max=draw(st.integers(1, 4)),
        goes_back=draw(st.booleans()),
    )
    versions = draw(st.sampled_from([[], [2], [1, 3]]))
    exclude = [named(number) for number in draw(st.lists(st.integers(0, 25), unique=True, max_size=3))]
    order = order_of(len(children), rule, RolloutFilter(versions, [], exclude, None), kinds)
    return World(order, children, draw(st.integers(0, 6)))


def operate(world: World, chance: Random) -> None:
    """Let an operator do something; what does not fit is refused and changes nothing."""
    try:
        match chance.randrange(8):
            case 0 | 1 | 2:
                world.rollout = plan_concurrency(world.rollout, chance.randrange(7))
            case 3:
                world.rollout = plan_cancel(world.rollout, "an operator cancelled it", world.now_ns)
            case 4:
                world.rollout = plan_going_back(world.rollout, "an operator took it back")
            case 5 | 6 if world.failures:
                child = chance.choice(sorted(world.failures))
                world.rollout, retry = plan_retry(world.rollout, world.failures[child], world.now_ns)
                del world.failures[child]
                world.retries.append(retry)
            case _:
                world.children[named(len(world.children))] = Child("user", OLD)
                world.original[named(len(world.children) - 1)] = OLD
    except RolloutError:
        pass


@settings(max_examples=150, deadline=None)
@given(world=worlds(), seed=st.integers(0, 2**32), turns=st.integers(0, 12))
def test_each_child_ends_on_the_release_on_its_former_one_or_quarantined(
    world: World, seed: int, turns: int
) -> None:
    chance = Random(seed)
    for _ in range(turns):
        randomly(world, chance, chance.randrange(12))
        operate(world, chance)
        world.check()
    if world.rollout.phase.tag in ("canary", "running", "going_back"):
        world.rollout = plan_concurrency(world.rollout, max(1, chance.randrange(7)))
    world.finish()
    if world.rollout.halted:
        world.rollout = plan_concurrency(world.rollout, 3)
        world.finish()
    assert world.rollout.phase.tag in ("done", "rolled_back", "cancelled")
    world.check_end()


@settings(max_examples=80, deadline=None)
@given(world=worlds(), concurrency=st.integers(1, 6))
def test_the_threshold_is_obeyed_to_the_child(world: World, concurrency: int) -> None:
    world.rollout = plan_concurrency(world.rollout, concurrency)
    world.order = replace(world.order, rule=replace(world.order.rule, goes_back=True))
    for _ in range(2_000):
        step = world.look()
        if world.wave is None:
            assert step is not None
            if step.look_ns is None:
                break
            world.now_ns = max(world.now_ns, step.look_ns)
            continue
        world.carry_out()
        world.hear()
        counts, tag = world.rollout.counts, world.rollout.phase.tag
        if tag in ("canary", "running"):
            assert counts.faults == len(world.faulty)
            assert len(world.faulty) <= permitted_faults(world.order, counts)
    if world.rollout.phase.tag == "rolled_back":
        assert "failed" in world.rollout.reason
        assert all(
            world.children[id].module_hash != NEW or world.original[id] == NEW for id in world.children
        )
    else:
        assert world.rollout.phase.tag == "done"


# by example


def test_a_good_release_reaches_everybody_and_those_born_meanwhile() -> None:
    world = World(order_of(20), fleet(20), 4)
    world.look()
    assert world.wave is not None
    assert len(world.wave.flights) == 1, "the canary's share first"
    world.children[named(20)] = Child("user", OLD)
    world.original[named(20)] = OLD
    assert world.finish() == "done"
    assert {child.module_hash for child in world.children.values()} == {NEW}
    assert world.rollout.counts.forward == 21
    assert progress_of(world.order, world.rollout).settled == 21


def test_a_release_that_is_bad_for_all_stops_at_the_canary_and_goes_back() -> None:
    children = fleet(100)
    for child in children[1:]:
        child.ends = TRAP
    rule = RolloutRule(canary_permille=50)
    world = World(order_of(100, rule), children, 50)
    assert world.finish() == "rolled_back"
    assert len(world.touched) == 5, "the canary alone"
    assert world.children[named(0)].module_hash == OLD
    assert world.rollout.reason == "4 of the canary's 5 children failed"


def test_some_bad_children_are_tried_again_and_then_quarantined_with_where_from_and_to() -> None:
    children = fleet(100)
    children[40].ends, children[50].faults = TRAP, [TRAP, TRAP]
    world = World(order_of(100), children, 10)
    assert world.finish() == "done"
    (failure,) = world.failures.values()
    assert (failure.child, failure.tries, failure.is_quarantined) == (named(40), 4, True)
    assert (failure.from_version, failure.to_version) == (2, 3)
    assert failure.reason == "it trapped (IC0503)"
    assert world.children[named(50)].module_hash == NEW


def test_children_out_of_reach_do_not_speak_against_the_release() -> None:
    children = fleet(20)
    for number, child in enumerate(children):
        child.ends = (FROZEN, CUSTODY, GONE)[number % 3]
    world = World(order_of(20), children)
    assert world.finish() == "done"
    assert world.rollout.counts.quarantined == 20
    assert {failure.tries for failure in world.failures.values()} == {0, 4}


def test_pauses_double_from_try_to_try() -> None:
    children = fleet(1)
    children[0].ends = TRAP
    rule = RolloutRule(canary_permille=0, fault_permille=1_000)
    world = World(order_of(1, rule), children)
    begin_ns, times = world.now_ns, []
    while world.rollout.phase.tag == "running":
        step = world.look()
        if step is not None and step.wave is not None:
            times.append((world.now_ns - begin_ns) // SECOND_NS)
            world.carry_out()
            world.hear()
        elif step is not None and step.look_ns is not None:
            world.now_ns = max(world.now_ns, step.look_ns)
    assert times == [0, 10, 30, 70]


def test_going_back_takes_each_to_the_release_it_came_from() -> None:
    children = [*fleet(5, OLD), *fleet(5, OLDER), *fleet(3, NEW)]
    world = World(order_of(13), children, 4)
    assert world.finish() == "done"
    world.rollout = plan_going_back(world.rollout, "it forgets names")
    assert world.finish() == "rolled_back"
    assert {id: child.module_hash for id, child in world.children.items()} == world.original
    assert world.rollout.counts.back == 10


def test_a_lost_wave_is_asked_for_again_and_can_still_go_back() -> None:
    world = World(order_of(4, RolloutRule(canary_permille=0)), fleet(4), 4)
    world.look()
    world.carry_out(is_lost=True)
    world.wait(700)
    assert world.rollout.counts.waiting == 4
    assert world.finish() == "done"
    assert world.rollout.counts.forward == 4, "unchanged now, but brought there by the lost wave"
    world.rollout = plan_going_back(world.rollout, "back")
    assert world.finish() == "rolled_back"
    assert {child.module_hash for child in world.children.values()} == {OLD}


def test_without_a_way_back_it_halts_and_goes_on_at_an_operators_word() -> None:
    children = fleet(10)
    for child in children[:6]:
        child.ends = TRAP
    world = World(order_of(10), children, 5)
    found = [Comparison("user", 2, OLD, None, None, None, "text is no nat64")]
    world.rollout = plan_checked(world.order, new_rollout(1, 5, world.now_ns), found, world.now_ns)
    world.finish()
    assert state_of(world.order, world.rollout, world.now_ns) == "stalled"
    assert "text is no nat64" in world.rollout.problem
    with pytest.raises(RolloutError, match="text is no nat64"):
        plan_going_back(world.rollout, "all the same")
    world.rollout = plan_concurrency(world.rollout, 5)
    assert world.finish() == "done"
    assert world.rollout.counts.quarantined == 6


def test_a_release_that_does_not_fit_is_refused_unless_forced() -> None:
    order, begun = order_of(10), new_rollout(1, 5, 0)
    found = [Comparison("user", 2, OLD, "method send is missing", None, None, None)]
    refused = plan_checked(order, begun, found, 1)
    assert refused.phase.tag == "refused"
    assert "method send is missing" in refused.reason
    assert plan_checked(replace(order, force=True), begun, found, 1).phase.tag == "canary"


def test_a_pause_holds_everything_and_a_stall_is_told() -> None:
    world = World(order_of(10), fleet(10), 5)
    world.rollout = plan_concurrency(world.rollout, 0)
    assert world.look() is not None
    assert world.wave is None
    world.wait(100_000)
    assert state_of(world.order, world.rollout, world.now_ns) == "paused"
    world.rollout = plan_concurrency(world.rollout, 5)
    for _ in range(3):
        world.wait(100)
        world.look()
        world.carry_out(is_refused=True)
    assert state_of(world.order, world.rollout, world.now_ns) == "stalled"
    assert world.rollout.problem == "the node is full"
    world.now_ns = world.rollout.wait_ns
    assert world.finish() == "done"
    assert world.rollout.counts.quarantined == 0, "no child is to blame for a full node"


def test_an_operator_may_try_a_quarantined_child_again() -> None:
    children = fleet(30)
    children[9].ends = TRAP
    world = World(order_of(30), children, 10)
    assert world.finish() == "done"
    children[9].ends = None
    world.rollout, retry = plan_retry(world.rollout, world.failures.pop(named(9)), world.now_ns)
    world.retries.append(retry)
    assert world.finish() == "done"
    assert children[9].module_hash == NEW
    assert world.rollout.counts.faults == 0
    world.rollout = plan_going_back(world.rollout, "back")
    assert world.finish() == "rolled_back"
    assert children[9].module_hash == OLD


def test_a_child_born_behind_the_scan_is_brought_along_and_no_other() -> None:
    world = World(order_of(4, chosen=RolloutFilter([], [], [named(9)], None)), fleet(4), 2)
    for _ in range(2):
        world.look()
        world.carry_out()
        world.hear()
    behind, ahead = Candidate(b"\x00", named(7), 2, OLD), Candidate(b"\xff", named(8), 2, OLD)
    excluded, current = Candidate(b"\x00", named(9), 2, OLD), replace(behind, version=3)

    def born(candidate: Candidate) -> bool:
        return plan_born(world.order, world.rollout, candidate, 0, world.now_ns) is not None

    assert [born(each) for each in (behind, ahead, excluded, current)] == [True, False, False, False]
    assert world.finish() == "done"
    assert [born(each) for each in (behind, ahead, excluded, current)] == [True, True, False, False]
    step = plan_born(world.order, world.rollout, ahead, 0, world.now_ns)
    assert step is not None
    world.rollout, retry = step
    world.children[named(8)] = Child("user", OLD)
    world.retries.append(retry)
    assert world.finish() == "done"
    assert world.children[named(8)].module_hash == NEW
    world.rollout = plan_going_back(world.rollout, "back")
    assert not born(behind)


def test_filters_are_checked_for_size_and_repetition() -> None:
    assert fault_of_filter(EVERY_CHILD) is None
    assert "twice" in (fault_of_filter(RolloutFilter([1, 1], [], [], None)) or "")
    assert "1001" in (fault_of_filter(RolloutFilter(list(range(1_001)), [], [], None)) or "")
