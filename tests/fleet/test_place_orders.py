"""Whom an index orders next while groups move: few at a time, all in the end, nobody waits for one that is
stuck."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cannery import Principal
from cannery.fleet.place_orders import ASKED_NS_MAX, plan_again, plan_due, plan_told, split
from cannery.fleet.place_types import DONE, TOLD, UNTOLD, Stand
from cannery.fleet.placement_migration import plan_table_migration
from cannery.fleet.placement_table import make_table, plan_join, plan_part
from cannery.limits import MOVING_AGAIN_COUNT_MAX, MOVING_SOURCE_COUNT_MAX, MOVING_WAIT_NS_MAX

NOW_NS = 10**18
NOBODY: frozenset[Principal] = frozenset()


def named(number: int) -> Principal:
    return Principal.opaque(number.to_bytes(4, "big"))


def fresh(count: int, step: int = UNTOLD, asked_ns: int = 0) -> dict[Principal, Stand]:
    return {named(number): Stand(step, asked_ns) for number in range(count)}


def test_a_bounded_number_is_asked_again_whatever_the_number_of_buckets() -> None:
    assert len(plan_again(fresh(1_000, TOLD), NOBODY, 7)) == MOVING_AGAIN_COUNT_MAX


def test_who_is_awaited_or_has_just_refused_is_not_ordered_again() -> None:
    stands = fresh(4)
    stands[named(1)] = Stand(UNTOLD, NOW_NS - 1)
    stands[named(2)] = Stand(UNTOLD, NOW_NS - ASKED_NS_MAX)
    assert plan_due(stands, {named(3)}, NOW_NS) == [named(0), named(2)]


def test_targets_are_told_before_sources() -> None:
    targets = {named(7), named(8)}
    assert set(plan_told(fresh(9), targets, NOBODY, NOBODY, NOW_NS)) == targets
    told = fresh(9) | {who: Stand(TOLD, 0) for who in targets}
    assert len(plan_told(told, targets, NOBODY, NOBODY, NOW_NS)) == MOVING_SOURCE_COUNT_MAX


def test_a_few_sources_send_at_a_time_and_one_that_is_stuck_or_silent_is_not_counted() -> None:
    count = MOVING_SOURCE_COUNT_MAX
    stands = fresh(20) | fresh(count, TOLD)
    assert plan_told(stands, NOBODY, NOBODY, NOBODY, NOW_NS) == {}
    assert list(plan_told(stands, NOBODY, {named(0)}, NOBODY, NOW_NS)) == [named(count)]
    stands[named(1)] = Stand(DONE, 0)
    assert list(plan_told(stands, NOBODY, NOBODY, {named(count)}, NOW_NS)) == [named(count + 1)]
    asked = fresh(20) | fresh(count, UNTOLD, NOW_NS - 1)
    assert plan_told(asked, NOBODY, NOBODY, NOBODY, NOW_NS) == {}
    silent = fresh(20) | fresh(count, UNTOLD, NOW_NS - MOVING_WAIT_NS_MAX)
    assert len(plan_told(silent, NOBODY, NOBODY, NOBODY, NOW_NS)) == count


@given(st.integers(1, 200), st.integers(0, 200), st.integers(0, 10**9))
def test_everybody_is_asked_again_within_a_few_turns(sources: int, targets: int, first: int) -> None:
    stands = fresh(sources + targets, TOLD)
    aims = frozenset(list(stands)[sources:])
    asked: set[Principal] = set()
    for turn in range(2 + max(sources, targets) // MOVING_AGAIN_COUNT_MAX):
        asked |= set(plan_again(stands, aims, first + turn))
    assert asked == set(stands)


def test_each_bucket_hears_of_its_own_legs_alone() -> None:
    ids = tuple(named(number) for number in range(30))
    before = make_table(ids[:-1], capacity=100, seed=bytes(16))
    up = plan_table_migration(1, before, plan_join(before, ids[-1]))
    down = plan_table_migration(2, before, plan_part(before, ids[3]))
    for migration, hub in ((up, ids[-1]), (down, ids[3])):
        parts = split(migration, ids)
        assert set(parts) == set(ids)
        assert parts[hub].legs == migration.legs
        for who, part in parts.items():
            assert part.legs == [leg for leg in migration.legs if who in (leg.source, leg.target)]
            assert (part.number, part.before, part.after) == (
                migration.number,
                migration.before,
                migration.after,
            )
