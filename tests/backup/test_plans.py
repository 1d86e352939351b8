"""Plans about backups: which stay, what goes with the others, and which points in time they reach."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cannery.node.backup.format.manifest import BackupHead, BaseRef, BlockPoint, FleetScope
from cannery.node.backup.format.prune_plan import KeepRule, measure_packs, plan_keep, plan_packs, plan_whole
from cannery.node.backup.format.time_plan import plan_block, plan_spans, plan_time
from tests.backup.test_format import head_of

DAY_NS = 86_400_000_000_000
counts = st.integers(0, 5)


def made(number: int, day: float, **fields: object) -> BackupHead:
    return head_of(number, {}, made_ns=int(day * DAY_NS), **fields)


def at_block(number: int, block: int, follows: tuple[int, ...] = ()) -> BackupHead:
    return head_of(
        number,
        {},
        made_ns=block * 10 + 5,
        block=BlockPoint(block, bytes(32), bytes(32), block * 10, 1),
        follows=follows,
    )


def test_the_last_and_one_of_each_day_and_week_stay() -> None:
    # Day 4 of the epoch is a Monday. Two backups a day, for three weeks.
    heads = [made(number, 4 + number / 2) for number in range(42)]
    assert plan_keep(heads, KeepRule(last=3)) == {41, 40, 39}
    assert plan_keep(heads, KeepRule(daily=3)) == {41, 39, 37}
    assert plan_keep(heads, KeepRule(weekly=2)) == {41, 27}
    assert plan_keep(heads, KeepRule(1, 2, 3)) == {41, 39, 27, 13}
    other = made(42, 4, scope=FleetScope(b"f"))
    assert plan_keep([*heads, other], KeepRule(last=1)) == {41, 42}, "each series for itself"


@given(st.lists(st.integers(0, 40), max_size=30), counts, counts, counts)
def test_the_newest_stays_whatever_the_clock_was_and_more_generous_rules_keep_more(
    days: list[int], last: int, daily: int, weekly: int
) -> None:
    heads = [made(number, day) for number, day in enumerate(days, 1)]
    kept = plan_keep(heads, KeepRule(last, daily, weekly))
    assert not heads or heads[-1].number in kept
    assert len(kept) <= max(1, last) + daily + weekly
    assert kept <= plan_keep(heads, KeepRule(last + 1, daily, weekly))
    assert kept <= plan_keep(heads, KeepRule(last, daily + 1, weekly + 1))


def test_what_is_a_difference_to_what_goes_is_written_anew() -> None:
    heads = [made(1, 1)] + [made(n, n, base=BaseRef(n - 1, b"", n - 1)) for n in range(2, 6)]
    assert plan_whole(heads, {3, 4, 5}) == (3,)
    assert plan_whole(heads, {1, 3, 5}) == (3, 5)
    assert plan_whole(heads, {1, 2}) == ()


chunk_names = st.sampled_from([b"%d" % number for number in range(12)])


@given(
    st.dictionaries(st.text("abcdef", min_size=1, max_size=2), st.sets(chunk_names, min_size=1), max_size=6),
    st.sets(chunk_names),
)
def test_no_pack_goes_with_a_chunk_that_is_needed(packs: dict[str, set[bytes]], needed: set[bytes]) -> None:
    sized = {name: dict.fromkeys(chunks, 10) for name, chunks in packs.items()}
    plan = plan_packs(measure_packs(sized, needed))
    going = {*plan.delete, *plan.rewrite}
    staying = {chunk for name, chunks in packs.items() if name not in going for chunk in chunks}
    moved = {chunk for name in plan.rewrite for chunk in packs[name] if chunk in needed}
    assert needed & {chunk for chunks in packs.values() for chunk in chunks} <= staying | moved
    assert not set(plan.delete) & set(plan.rewrite)


def test_spans_join_backups_whose_blocks_lead_on() -> None:
    heads = [at_block(1, 100), at_block(2, 200, (1,)), at_block(3, 900), at_block(4, 950, (3,))]
    found = [(span.first.number, span.last.number) for span in plan_spans(heads)]
    assert found == [(1, 2), (3, 4)]
    assert plan_spans([]) == []


def test_a_point_in_time_begins_with_the_latest_state_before_it() -> None:
    heads = [at_block(1, 100), at_block(2, 200, (1,)), at_block(3, 300, (1, 2))]

    def block(wanted: int) -> tuple[int, int | None] | None:
        plan = plan_block(heads, wanted)
        return None if plan is None else (plan.start.number, plan.blocks and plan.blocks.number)

    assert block(100) == (1, None)
    assert block(150) == (1, 3)
    assert block(250) == (2, 3)
    assert block(300) == (3, None)
    assert block(99) is None
    assert block(301) is None

    def time(wanted_ns: int) -> tuple[int, int | None] | None:
        plan = plan_time(heads, wanted_ns)
        return None if plan is None else (plan.start.number, plan.blocks and plan.blocks.number)

    assert time(999) is None
    assert time(1_003) == (1, None), "nothing happened between the block and the backup"
    assert time(1_500) == (1, 3)
    assert time(2_999) == (2, 3)
    assert time(3_005) == (3, None)
    assert time(3_006) is None
