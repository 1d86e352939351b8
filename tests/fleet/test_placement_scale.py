"""Scaling: predicates that flap move nothing, slots are counted, and the spawn lock gives each hold once."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Principal
from cannery.fleet.placement_census import Census, Child, ChildState
from cannery.fleet.placement_policy import BalancedLoad, LastNode
from cannery.fleet.placement_scale import (
    UNLOCKED,
    ScaleRule,
    ScaleState,
    ScaleStep,
    SpawnRule,
    count_slots,
    is_any_over,
    is_free_below,
    is_over,
    is_under,
    plan_scale,
    plan_spawn,
    plan_spawn_end,
)

HOLD, PAUSE = 30, 300


def census_of(*used: int, state: ChildState = ChildState.serving()) -> Census:
    return Census(
        tuple(Child(Principal(bytes((n + 1, 1))), 10, count, state=state) for n, count in enumerate(used))
    )


class Told:
    """Predicates that say what they are told."""

    def __init__(self, **counts: int) -> None:
        self.grow = self.shrink = False
        self.rule = ScaleRule(lambda _: self.grow, lambda _: self.shrink, HOLD, PAUSE, **counts)

    def look(self, state: ScaleState, now_ns: int, wish: str, census: Census | None = None) -> ScaleStep:
        self.grow, self.shrink = "g" in wish, "s" in wish
        census = census_of(4, 0, 4) if census is None else census
        return plan_scale(self.rule, BalancedLoad(), state, census, now_ns)


Looks = list[tuple[int, str]]
looks = st.lists(st.tuples(st.integers(1, 40), st.sampled_from(["", "g", "s", "gs"])), max_size=60)


def run(told: Told, steps: Iterable[tuple[int, str]]) -> list[tuple[int, str, str]]:
    now, state, seen = 1_000, ScaleState(), []
    for wait, wish in steps:
        now += wait
        step = told.look(state, now, wish)
        state = step.state
        seen.append((now, wish, step.action))
    return seen


@given(looks)
def test_every_change_was_wanted_without_a_break_and_changes_stand_apart(steps: Looks) -> None:
    seen = run(Told(), steps)
    acted = [(now, action) for now, _, action in seen if action != "none"]
    for (before, _), (after, _) in pairwise(acted):
        assert after - before >= PAUSE
    for at, action in acted:
        letter = action[0]
        steady = at
        for now, wish, _ in reversed([look for look in seen if look[0] <= at]):
            is_wanted = letter in wish and not (letter == "s" and "g" in wish)
            if not is_wanted:
                break
            steady = now
        assert at - steady >= HOLD


@given(st.lists(st.integers(1, HOLD - 1), max_size=60), st.sampled_from(["g", "s", "gs"]))
def test_a_predicate_that_flaps_moves_nothing(waits: list[int], wish: str) -> None:
    steps = [(wait, wish if number % 2 else "") for number, wait in enumerate(waits)]
    assert {action for _, _, action in run(Told(), steps)} <= {"none"}


@pytest.mark.parametrize(("wish", "action"), [("g", "grow"), ("s", "shrink"), ("gs", "grow")])
def test_a_steady_predicate_is_followed_once_per_pause(wish: str, action: str) -> None:
    seen = run(Told(), [(10, wish)] * 66)
    acted = [now for now, _, did in seen if did != "none"]
    assert {did for _, _, did in seen} == {"none", action}
    assert acted == [1_040, 1_340, 1_640]


def test_the_wish_is_counted_anew_after_a_break() -> None:
    seen = run(Told(), [(10, "g"), (20, "g"), (1, ""), (29, "g"), (29, "g"), (1, "g")])
    assert [did for _, _, did in seen] == ["none"] * 5 + ["grow"]


def test_where_nothing_takes_new_keys_growing_is_urgent() -> None:
    told = Told()
    full = census_of(10, 10)
    step = told.look(ScaleState(changed_ns=999), 1_000, "", full)
    assert (step.action, step.reason) == ("grow", "no new key can be placed")
    last_is_full = plan_scale(told.rule, LastNode(), ScaleState(changed_ns=999), census_of(3, 10), 1_000)
    assert last_is_full.action == "grow"
    assert told.look(ScaleState(), 1_000, "", Census()).action == "grow"
    busy = plan_scale(told.rule, BalancedLoad(), ScaleState(), full, 1_000, is_changing=True)
    assert busy.action == "none"
    assert Told(child_count_max=2).look(ScaleState(), 1_000, "g", full).action == "none"


def test_shrinking_names_who_leaves_and_keeps_the_fewest() -> None:
    steady = ScaleState(shrink_since_ns=0)
    step = Told().look(steady, 1_000, "s")
    assert step.leaving == Principal(b"\x02\x01")
    assert Told(child_count_min=3).look(steady, 1_000, "s").reason == (
        "there are 3 children, as few as there may be"
    )
    assert "lack the room" in Told().look(steady, 1_000, "s", census_of(10, 9)).reason
    reachable = Child(Principal(b"\x09\x01"), 10)
    away = census_of(1, 1, state=ChildState.away())
    assert Told().look(steady, 1_000, "s", away.with_children([reachable])).action == "none"
    rule = ScaleRule(lambda _: False, lambda _: True, HOLD, PAUSE)
    step = plan_scale(rule, Stays(), steady, census_of(1, 1), 1_000)
    assert (step.action, step.reason) == ("none", "no child can leave now")


class Stays(LastNode):
    """A policy of an author's own, by which nobody leaves."""

    def plan_leaving(self, census: Census) -> None:
        return None


def simulate(rule: ScaleRule, used: int, looks_count: int) -> list[str]:
    """Let the fleet do what is decided, with a load that stays the same, and note what it did."""
    census, state, now, done = census_of(*([used] + [0] * 2)), ScaleState(), 0, []
    for number in range(looks_count):
        now += HOLD
        step = plan_scale(rule, BalancedLoad(), state, census, now)
        state = step.state
        if step.action == "none":
            continue
        done.append(step.action)
        count = len(census) + (1 if step.action == "grow" else -1)
        load = census.used_slots
        spread = [load // count + (n < load % count) for n in range(count)]
        census = census_of(*spread)
        assert number < looks_count
    return done


@given(st.integers(0, 10), st.integers(0, 1_000), st.integers(0, 1_000))
def test_thresholds_that_overlap_do_not_swing(used: int, grow: int, shrink: int) -> None:
    rule = ScaleRule(is_over(grow), is_under(shrink), HOLD, 0, child_count_max=20)
    done = simulate(rule, used, 60)
    turns = sum(a != b for a, b in pairwise(done))
    assert turns <= 1


def test_the_ready_made_predicates() -> None:
    census = census_of(10, 2)
    assert is_free_below(9)(census)
    assert not is_free_below(8)(census)
    assert is_over(599)(census)
    assert not is_over(600)(census)
    assert is_under(600)(census)
    assert not is_under(599)(census)
    assert is_any_over(999)(census)
    assert not is_any_over(1_000)(census)
    assert not is_over(0)(Census())


def test_rules_that_make_no_sense_are_refused() -> None:
    for counts in ({"child_count_min": 0}, {"child_count_min": 3, "child_count_max": 2}):
        with pytest.raises(ValueError, match="a fleet has"):
            Told(**counts)
    with pytest.raises(ValueError, match="not negative"):
        ScaleRule(is_over(1), is_under(1), hold_ns=-1)
    with pytest.raises(ValueError, match="at least one slot"):
        SpawnRule(60, 0)
    with pytest.raises(ValueError, match="same time"):
        SpawnRule(60, 20, spawn_count_max=0)
    with pytest.raises(ValueError, match="some time"):
        SpawnRule(60, 20, hold_ns=0)


# slots and the spawn lock


def test_slots_free_desired_and_planned() -> None:
    rule = SpawnRule(desired_slots=60, child_slots=20, hold_ns=100, spawn_count_max=8)
    first = plan_spawn(rule, UNLOCKED, census_of(5, 10), now_ns=0)
    assert (first.slots.free, first.slots.desired, first.slots.planned) == (5, 60, 0)
    assert len(first.begun) == 3
    again = plan_spawn(rule, first.lock, census_of(5, 10), now_ns=99)
    assert again.slots.planned == 60
    assert again.begun == ()
    late = plan_spawn(rule, first.lock, census_of(5, 10), now_ns=100)
    assert [hold.number for hold in late.begun] == [3, 4, 5]


def test_two_that_ask_at_the_same_moment_create_one() -> None:
    rule = SpawnRule(desired_slots=10, child_slots=10)
    one = plan_spawn(rule, UNLOCKED, census_of(10), 7)
    other = plan_spawn(rule, one.lock, census_of(10), 7)
    assert (len(one.begun), len(other.begun)) == (1, 0)


def test_a_wish_to_grow_counts_what_is_being_made() -> None:
    rule = SpawnRule(desired_slots=0, child_slots=10, spawn_count_max=3)
    one = plan_spawn(rule, UNLOCKED, census_of(0), 7, wanted_count=1)
    other = plan_spawn(rule, one.lock, census_of(0), 7, wanted_count=1)
    assert (len(one.begun), len(other.begun)) == (1, 0)


def test_a_creation_that_comes_late_is_a_spare_and_frees_nobody_elses_hold() -> None:
    rule = SpawnRule(desired_slots=10, child_slots=10, hold_ns=100)
    first = plan_spawn(rule, UNLOCKED, census_of(10), 0)
    second = plan_spawn(rule, first.lock, census_of(10), 100)
    late = plan_spawn_end(second.lock, first.begun[0].number, 101)
    assert late.canister == "spare"
    assert late.lock == second.lock
    good = plan_spawn_end(late.lock, second.begun[0].number, 101)
    assert good.canister == "adopt"
    assert good.lock.holds == []


Acts = list[tuple[str, int]]


@given(
    st.lists(st.tuples(st.sampled_from(["ask", "wish", "end"]), st.integers(0, 60)), max_size=40),
    st.integers(1, 4),
    st.integers(0, 90),
)
def test_holds_are_bounded_numbered_once_and_expire(acts: Acts, at_once: int, desired: int) -> None:
    rule = SpawnRule(desired, 10, hold_ns=50, spawn_count_max=at_once, child_count_max=4)
    census, lock, now, given_out = census_of(4, 10), UNLOCKED, 0, []
    for act, wait in acts:
        now += wait
        if act == "end" and given_out:
            hold = given_out[wait % len(given_out)]
            is_open = hold in lock.holds and hold.expires_ns > now
            ended = plan_spawn_end(lock, hold.number, now)
            assert (ended.canister == "adopt") == is_open
            assert all(h in ended.lock.holds for h in lock.holds if h != hold)
            lock = ended.lock
            continue
        step = plan_spawn(rule, lock, census, now, wanted_count=act == "wish")
        given_out += step.begun
        lock = step.lock
        assert len(lock.holds) <= min(at_once, rule.child_count_max - len(census))
        assert all(hold.expires_ns > now for hold in lock.holds)
        planned = count_slots(census, lock, desired, now)
        assert planned.missing == 0 or len(lock.holds) == min(at_once, 2)
        if not step.begun and act == "ask":
            assert planned == step.slots
    assert len({hold.number for hold in given_out}) == len(given_out)
