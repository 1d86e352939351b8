"""Top-ups: whether a child is due for cycles, how many it gets, and what is booked for them.

A rule says under which line a child is topped up, in cycles or in days of what it burns, and how far. A
request passes, in this order, the minimum of a request, the quota of the fleet, the quota of the child, and
what the index can spare; it gets the least of them, and nothing where that is less than the minimum. A
refusal says when asking again makes sense. This module reads no balance and sends nothing: burn is measured
in `top_up_burn`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.candid.python import Case, Variant, nat, nat32, nat64, record, variant
from cannery.fleet.top_up_quota import Books, Quota, allowance, allowed_at_ns, book
from cannery.limits import CYCLES_MINTED_MAX, LOW_BALANCE_MESSAGE_COUNT, TOP_UP_DAYS_MAX


@variant
class Threshold(Variant):
    """The line: a balance, or so many days of a child's burn."""

    cycles: Case[nat]
    days: Case[nat32]


@variant
class Refill(Variant):
    """How far a child is topped up: to a balance, or by an amount."""

    to_balance: Case[nat]
    by_amount: Case[nat]


@record
class TopUpRule:
    """Top up a child whose balance is under the line."""

    threshold: Threshold
    refill: Refill


@variant
class Reason(Variant):
    """Why a request got nothing."""

    not_due: Case[None]
    too_few_cycles_requested: Case[nat]
    aggregate_quota_reached: Case[None]
    canister_quota_reached: Case[None]
    battery_low: Case[None]
    in_progress: Case[None]


@record
class Refused:
    """A request that gets nothing: why, in words too, and when to ask again (None: only after a change)."""

    reason: Reason
    text: str
    retry_at_ns: nat64 | None


@dataclass(frozen=True, slots=True)
class Purse:
    """What a grant is taken from: what the index can spare, and the quotas with their books."""

    spendable: int
    request_min: int
    fleet_quota: Quota
    fleet_books: Books
    child_quota: Quota
    child_books: Books


@dataclass(frozen=True, slots=True)
class Grant:
    """Cycles to send, and the books to keep before they are sent; the slices are those to release."""

    cycles: int
    fleet_books: Books
    child_books: Books
    fleet_slice_ns: int
    child_slice_ns: int


def check_rule(rule: TopUpRule) -> str | None:
    """Say what is wrong with a rule; None: nothing."""
    threshold, refill = rule.threshold, rule.refill
    if threshold.tag == "days" and not 0 < threshold.days <= TOP_UP_DAYS_MAX:
        return f"a threshold has 1 to {TOP_UP_DAYS_MAX} days, not {threshold.days}"
    if threshold.tag == "cycles" and not 0 < threshold.cycles <= CYCLES_MINTED_MAX:
        return f"a threshold has 1 to {CYCLES_MINTED_MAX} cycles, not {threshold.cycles}"
    amount = refill.to_balance if refill.tag == "to_balance" else refill.by_amount
    if not 0 < amount <= CYCLES_MINTED_MAX:
        return f"a refill has 1 to {CYCLES_MINTED_MAX} cycles, not {amount}"
    if threshold.tag == "cycles" and refill.tag == "to_balance" and refill.to_balance < threshold.cycles:
        return (
            f"a refill to {refill.to_balance} cycles leaves a child under its threshold of "
            f"{threshold.cycles}: refill to more"
        )
    return None


@dataclass(frozen=True, slots=True)
class Need:
    """What a child needs to live: its burn in a day, the balance under which it is frozen, and what the
    smallest message costs.
    """

    burned_per_day: int
    freezing_limit: int = 0
    message_fee: int = 0


def lowest_line(need: Need) -> int:
    """Return the balance under which a child is low whatever rule it has: a day's burn before it freezes,
    and not less than some hundred messages; 0 where neither storage nor messages cost anything.
    """
    if not need.freezing_limit and not need.message_fee:
        return 0
    spent = max(need.burned_per_day, LOW_BALANCE_MESSAGE_COUNT * need.message_fee)
    return min(need.freezing_limit + spent, CYCLES_MINTED_MAX)


def line_of(rule: TopUpRule | None, need: Need) -> int:
    """Return the balance under which a child is due; without a rule, that under which somebody should know.

    Days count from the freezing limit, since a frozen child is of no use; no threshold is under the lowest
    line.
    """
    if rule is None:
        return lowest_line(need)
    if rule.threshold.tag == "cycles":
        line = rule.threshold.cycles
    else:
        line = need.freezing_limit + rule.threshold.days * need.burned_per_day
    return min(max(line, lowest_line(need)), CYCLES_MINTED_MAX)


def alarm_of(rule: TopUpRule | None, need: Need, before: int = 0) -> int:
    """Return the balance under which the node is to tell of a child: the line, or little less.

    Lines that hang on the burn differ from child to child, and from look to look. They are rounded down to
    six binary digits, so that few alarms are set; one that was set `before` stays while it does its work.
    Whoever is told of is due.
    """
    line = line_of(rule, need)
    if rule is not None and rule.threshold.tag == "cycles" and line == rule.threshold.cycles:
        return line
    if max(line * 7 // 8, need.freezing_limit) <= before <= line:
        return before
    shift = max(0, line.bit_length() - 6)
    return line >> shift << shift


def refill_of(rule: TopUpRule, balance: int, need: Need) -> int:
    """Return what a top-up brings now, due or not; a refill to a balance ends on the line at least."""
    if rule.refill.tag == "by_amount":
        return rule.refill.by_amount
    return max(0, max(rule.refill.to_balance, line_of(rule, need)) - balance)


def due_cycles(rule: TopUpRule, balance: int, need: Need) -> int:
    """Return what a child is due; 0: nothing."""
    return refill_of(rule, balance, need) if balance < line_of(rule, need) else 0


def plan_top_up(wanted: int, purse: Purse, now_ns: int) -> Grant | Refused:
    """Decide on a request; a grant is booked, and its books are to be kept before anything is sent."""
    least = max(1, purse.request_min)
    if wanted < least:
        return Refused(
            Reason.too_few_cycles_requested(least), f"{wanted} cycles are less than a request's {least}", None
        )
    of_fleet = allowance(purse.fleet_quota, purse.fleet_books, now_ns)
    if of_fleet is not None and of_fleet < least:
        at_ns = allowed_at_ns(purse.fleet_quota, purse.fleet_books, least, now_ns)
        text = f"the quota of the fleet allows {of_fleet} cycles now"
        return Refused(Reason.aggregate_quota_reached(), text, at_ns)
    of_child = allowance(purse.child_quota, purse.child_books, now_ns)
    if of_child is not None and of_child < least:
        at_ns = allowed_at_ns(purse.child_quota, purse.child_books, least, now_ns)
        text = f"the quota of the child allows {of_child} cycles now"
        return Refused(Reason.canister_quota_reached(), text, at_ns)
    if purse.spendable < least:
        text = f"the index can spare {max(0, purse.spendable)} cycles now: top it up"
        return Refused(Reason.battery_low(), text, None)
    bounds = [each for each in (of_fleet, of_child) if each is not None]
    cycles = min(wanted, purse.spendable, *bounds)
    fleet = book(purse.fleet_quota, purse.fleet_books, cycles, now_ns)
    child = book(purse.child_quota, purse.child_books, cycles, now_ns)
    return Grant(cycles, fleet.books, child.books, fleet.slice_ends_ns, child.slice_ends_ns)
