"""Top-ups as data: who is due, what quotas let through, and books that no order of events can cheat."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.fleet.top_up import (
    Grant,
    Need,
    Purse,
    Refill,
    Refused,
    Threshold,
    TopUpRule,
    alarm_of,
    check_rule,
    due_cycles,
    line_of,
    plan_top_up,
)
from cannery.fleet.top_up_burn import Reading, add_reading, burned_per_day, time_left_ns
from cannery.fleet.top_up_quota import (
    NO_BOOKS,
    UNLIMITED,
    Books,
    Quota,
    Rate,
    allowance,
    allowed_at_ns,
    book,
    check_quota,
    release,
)
from cannery.limits import BURN_READING_COUNT_MAX, LOW_BALANCE_MESSAGE_COUNT, QUOTA_SLICE_COUNT_MAX

S = 1_000_000_000
HOUR, DAY = 3_600 * S, 86_400 * S
START = 1_700_000_000 * S

quotas = st.one_of(
    st.just(UNLIMITED),
    st.integers(0, 500).map(Quota.fixed),
    st.integers(0, 500).map(Quota.max),
    st.builds(Rate, st.integers(0, 500), st.integers(1, 100_000)).map(Quota.rate),
)
rules = st.builds(
    TopUpRule,
    st.one_of(st.integers(1, 1000).map(Threshold.cycles), st.integers(1, 60).map(Threshold.days)),
    st.one_of(st.integers(1, 2000).map(Refill.to_balance), st.integers(1, 500).map(Refill.by_amount)),
)


# --- quotas ------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 10_000),
    st.integers(1, 300),
    st.lists(st.tuples(st.integers(0, 20_000 * S), st.integers(1, 100), st.booleans()), max_size=60),
)
def test_no_stretch_of_a_windows_length_sees_more_than_its_rate(
    seconds: int, cycles: int, plan: list[tuple[int, int, bool]]
) -> None:
    quota, books, now = Quota.rate(Rate(cycles, seconds)), NO_BOOKS, START
    given_out: list[tuple[int, int]] = []
    for pause, wanted, comes_back in plan:
        now += pause
        allowed = allowance(quota, books, now)
        assert allowed is not None
        amount = min(wanted, allowed)
        if not amount:
            continue
        booked = book(quota, books, amount, now)
        books = booked.books
        if comes_back:
            books = release(books, amount, booked.slice_ends_ns)
        else:
            given_out.append((now, amount))
        assert len(books.slices) <= QUOTA_SLICE_COUNT_MAX
    for end, _ in given_out:
        assert sum(c for at, c in given_out if end - seconds * S < at <= end) <= cycles
    assert books.total == sum(c for _, c in given_out)


def test_a_window_slides_and_lets_no_burst_of_two_windows_through() -> None:
    quota = Quota.rate(Rate(100, 3600))
    books = book(quota, NO_BOOKS, 100, START + HOUR - S).books
    # A fixed window would begin anew here, and let 100 more through one second later.
    assert allowance(quota, books, START + HOUR) == 0
    assert allowance(quota, books, START + HOUR + HOUR // 2) == 0
    at = allowed_at_ns(quota, books, 100, START + HOUR)
    assert at is not None
    assert START + 2 * HOUR - S <= at <= START + 2 * HOUR + HOUR // 16
    assert allowance(quota, books, at) == 100


@given(quotas, st.lists(st.integers(1, 400), max_size=8), st.integers(1, 500), st.integers(0, 50_000 * S))
def test_asking_again_when_told_to_is_granted_and_not_before(
    quota: Quota, booked: list[int], wanted: int, pause: int
) -> None:
    books, now = NO_BOOKS, START
    for amount in booked:
        now += pause // 8
        books = book(quota, books, amount, now).books
    at = allowed_at_ns(quota, books, wanted, now)
    if at is None:
        later = allowance(quota, books, now + 10**9 * S)
        assert later is not None
        assert later < wanted
        return
    allowed = allowance(quota, books, at)
    assert allowed is None or allowed >= wanted
    before = allowance(quota, books, at - 1)
    assert at == now or (before is not None and before < wanted)


@given(
    quotas, quotas, st.lists(st.tuples(st.integers(1, 99), st.booleans(), st.integers(0, DAY)), max_size=20)
)
def test_a_release_never_gives_more_room_than_its_booking_took(
    first: Quota, second: Quota, plan: list[tuple[int, bool, int]]
) -> None:
    """Also where the quota changes between booking and release, and where the slice is gone meanwhile."""
    books, now, total = NO_BOOKS, START, 0
    for amount, changes, pause in plan:
        quota = second if changes else first
        kept = book(quota, books, 7, now).books
        booked = book(quota, kept, amount, now)
        now += pause
        back = release(booked.books, amount, booked.slice_ends_ns)
        for each in (first, second):
            room, was = allowance(each, back, now), allowance(each, kept, now)
            assert room is None or was is None or room <= was
        books, total = back, total + 7
        assert books.total == total


def test_a_refund_after_the_window_has_passed_opens_nothing() -> None:
    quota = Quota.rate(Rate(100, 60))
    late = book(quota, NO_BOOKS, 100, START)
    now = START + 120 * S
    books = book(quota, late.books, 80, now).books
    assert allowance(quota, release(books, 100, late.slice_ends_ns), now) == 20


@pytest.mark.parametrize("seconds", [0, 10**9])
def test_a_window_has_bounds(seconds: int) -> None:
    assert "window of a rate has 1 to" in (check_quota(Quota.rate(Rate(5, seconds))) or "")
    assert check_quota(Quota.rate(Rate(5, 60))) is None
    assert check_quota(UNLIMITED) is None


def test_many_changes_of_a_rate_leave_short_books() -> None:
    books, now = NO_BOOKS, START
    for turn in range(500):
        now += S
        books = book(Quota.rate(Rate(10**9, 10**6 + turn * 7_777)), books, 1, now).books
        books = book(Quota.rate(Rate(10**9, 1_000 + turn * 13)), books, 1, now).books
    assert len(books.slices) <= QUOTA_SLICE_COUNT_MAX
    assert books.total == 1000


# --- rules -------------------------------------------------------------------------------------------------


@given(rules, st.integers(0, 3000), st.integers(0, 100), st.integers(0, 2000))
def test_a_child_is_due_under_its_line_alone_and_a_refill_to_a_balance_ends_it(
    rule: TopUpRule, balance: int, burn: int, frozen: int
) -> None:
    need = Need(burn, frozen)
    line, due = line_of(rule, need), due_cycles(rule, balance, need)
    assert line >= frozen
    assert (due > 0) == (balance < line)
    if due and rule.refill.tag == "to_balance":
        assert balance + due == max(rule.refill.to_balance, line)
        assert due_cycles(rule, balance + due, need) == 0
    elif due:
        assert due == rule.refill.by_amount


@given(rules, st.integers(0, 10**15), st.integers(0, 10**15), st.integers(0, 10**15))
def test_an_alarm_lies_on_the_line_or_little_under_it_and_stays_where_it_serves(
    rule: TopUpRule, burn: int, frozen: int, before: int
) -> None:
    need = Need(burn, frozen)
    line, alarm = line_of(rule, need), alarm_of(rule, need, before)
    assert line * 7 // 8 <= alarm <= line
    assert alarm_of(rule, need, alarm) == alarm
    if alarm != before:
        assert line * 31 // 32 <= alarm


def test_an_alarm_tells_before_a_child_is_frozen() -> None:
    """The freezing threshold is 30 days unless set; a line a day above it must not be rounded to under it."""
    for burn in range(1, 5_000, 7):
        need = Need(burn, 30 * burn)
        assert alarm_of(TopUpRule(Threshold.days(1), Refill.by_amount(1)), need) >= need.freezing_limit
        assert alarm_of(TopUpRule(Threshold.cycles(1), Refill.by_amount(1)), need) >= need.freezing_limit


def test_nobody_is_low_later_than_some_hundred_messages_before_it_freezes() -> None:
    floor = LOW_BALANCE_MESSAGE_COUNT * 7
    days = TopUpRule(Threshold.days(10), Refill.by_amount(1))
    cycles = TopUpRule(Threshold.cycles(5), Refill.by_amount(1))
    for rule in (None, days, cycles):
        assert line_of(rule, Need(0, 0, 7)) == floor, "a state without a byte costs nothing to keep"
        assert line_of(rule, Need(1, 30, 7)) == 30 + floor
    assert line_of(None, Need(floor + 1, 30, 7)) == 30 + floor + 1
    assert line_of(None, Need(100)) == 0, "what costs nothing runs for ever"


def test_days_are_days_of_what_is_burned_before_it_freezes() -> None:
    rule = TopUpRule(Threshold.days(10), Refill.to_balance(5_000))
    assert due_cycles(rule, 999, Need(100)) == 4_001
    assert due_cycles(rule, 1_000, Need(100)) == 0
    assert due_cycles(rule, 3_999, Need(100, 3_000)) == 1_001
    assert due_cycles(rule, 0, Need(0)) == 0
    # Who burns more than the refill foresees is refilled to the line all the same.
    assert due_cycles(rule, 5_999, Need(600)) == 1
    cycles = TopUpRule(Threshold.cycles(500), Refill.to_balance(5_000))
    assert line_of(cycles, Need(100)) == 500
    assert line_of(cycles, Need(100, 3_000)) == 3_100


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        (TopUpRule(Threshold.cycles(0), Refill.by_amount(1)), "a threshold has 1 to"),
        (TopUpRule(Threshold.cycles(2**64), Refill.by_amount(1)), "a threshold has 1 to"),
        (TopUpRule(Threshold.days(0), Refill.by_amount(1)), "1 to 3650 days, not 0"),
        (TopUpRule(Threshold.days(9999), Refill.by_amount(1)), "1 to 3650 days, not 9999"),
        (TopUpRule(Threshold.cycles(5), Refill.by_amount(0)), "a refill has 1 to"),
        (TopUpRule(Threshold.cycles(5), Refill.to_balance(4)), "leaves a child under its threshold"),
    ],
)
def test_rules_that_make_no_sense_are_refused(rule: TopUpRule, text: str) -> None:
    assert text in (check_rule(rule) or "")


# --- grants ------------------------------------------------------------------------------------------------


def purse(**changes: object) -> Purse:
    wanted: dict[str, object] = {
        "spendable": 10_000,
        "request_min": 10,
        "fleet_quota": UNLIMITED,
        "fleet_books": NO_BOOKS,
        "child_quota": UNLIMITED,
        "child_books": NO_BOOKS,
    }
    return Purse(**(wanted | changes))  # type: ignore[arg-type] # tests name the fields


@given(
    st.integers(0, 600),
    st.integers(0, 600),
    st.integers(0, 60),
    quotas,
    quotas,
    st.integers(0, 300),
    st.integers(0, 300),
)
def test_a_grant_is_the_least_of_its_bounds_and_booked_in_full(
    wanted: int, spendable: int, least: int, fleet: Quota, child: Quota, of_fleet: int, of_child: int
) -> None:
    now = START + DAY
    fleet_books = book(fleet, NO_BOOKS, of_fleet, START).books
    child_books = book(child, NO_BOOKS, of_child, START).books
    found = plan_top_up(wanted, Purse(spendable, least, fleet, fleet_books, child, child_books), now)
    bounds = [allowance(fleet, fleet_books, now), allowance(child, child_books, now), spendable, wanted]
    amount = min(bound for bound in bounds if bound is not None)
    if isinstance(found, Refused):
        assert amount < max(1, least)
        assert found.text
        return
    assert found.cycles == amount >= max(1, least)
    assert found.fleet_books.total == of_fleet + amount
    assert found.child_books.total == of_child + amount
    assert release(found.fleet_books, amount, found.fleet_slice_ns).total == of_fleet
    assert release(found.child_books, amount, found.child_slice_ns).total == of_child


def test_refusals_come_in_order_and_say_when_to_ask_again() -> None:
    full = Books(500, [])
    rate = Quota.rate(Rate(500, 60))
    spent = book(rate, NO_BOOKS, 500, START).books
    few = plan_top_up(9, purse(fleet_quota=Quota.max(1)), START)
    assert isinstance(few, Refused)
    assert (few.reason.tag, few.reason.too_few_cycles_requested) == ("too_few_cycles_requested", 10)
    both = purse(
        fleet_quota=rate, fleet_books=spent, child_quota=Quota.max(500), child_books=full, spendable=0
    )
    aggregate = plan_top_up(100, both, START)
    assert isinstance(aggregate, Refused)
    assert aggregate.reason.tag == "aggregate_quota_reached"
    assert aggregate.retry_at_ns is not None
    assert START + 60 * S <= aggregate.retry_at_ns <= START + 62 * S
    child = plan_top_up(100, purse(child_quota=Quota.max(500), child_books=full, spendable=0), START)
    assert isinstance(child, Refused)
    assert (child.reason.tag, child.retry_at_ns) == ("canister_quota_reached", None)
    battery = plan_top_up(100, purse(spendable=-5), START)
    assert isinstance(battery, Refused)
    assert battery.reason.tag == "battery_low"
    assert battery.text == "the index can spare 0 cycles now: top it up"


def test_a_fixed_quota_ignores_what_was_given_before() -> None:
    found = plan_top_up(100, purse(child_quota=Quota.fixed(30), child_books=Books(10**9, [])), START)
    assert isinstance(found, Grant)
    assert found.cycles == 30


# --- burn --------------------------------------------------------------------------------------------------


@given(st.integers(1, 10**9), st.integers(61, 200_000), st.integers(2, 60))
def test_a_steady_burn_is_measured_exactly_and_readings_stay_few(
    per_s: int, every_s: int, count: int
) -> None:
    readings: list[Reading] = []
    now = Reading(START, 5)
    for turn in range(count):
        now = Reading(START + turn * every_s * S, 5 + turn * every_s * per_s)
        assert burned_per_day(readings, now) == (per_s * 86_400 if turn else None)
        readings = add_reading(readings, now)
        assert 0 < len(readings) <= BURN_READING_COUNT_MAX


def test_a_burst_counts_for_a_day_and_is_forgotten_soon_after() -> None:
    readings, burned = [Reading(START, 0)], 1_000_000
    for hour in range(1, 72):
        burned += 10
        now = Reading(START + hour * HOUR, burned)
        measured = burned_per_day(readings, now)
        assert measured is not None
        assert (measured > 1_000) if hour <= 24 else (measured == 240 or hour < 32), hour
        readings = add_reading(readings, now)


def test_another_canister_begins_anew_and_nothing_is_guessed() -> None:
    readings = add_reading([Reading(START, 1_000)], Reading(START + DAY, 5))
    assert readings == [Reading(START + DAY, 5)]
    assert burned_per_day([], Reading(START, 5)) is None
    assert burned_per_day([Reading(START, 5)], Reading(START + S, 6)) is None
    assert burned_per_day([Reading(START, 9)], Reading(START + DAY, 5)) is None
    assert time_left_ns(100, None) is None
    assert time_left_ns(100, 0) is None
    assert time_left_ns(100, 50) == 2 * DAY
