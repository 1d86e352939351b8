"""Quotas: how many cycles a child, or a fleet, may be given.

A quota is looked at with the books of what was given already. Whoever grants books first and sends after;
where the cycles come back, the booking is released. A rate holds over a window that slides: no stretch of
time of the window's length sees more than its cycles, wherever it begins. Books keep a window in slices and
count each until the end of its slice has left the window, so they are short, and never generous. This
module sends nothing.
"""

from __future__ import annotations

from dataclasses import dataclass

from cannery.candid.python import Case, Variant, nat, nat64, record, variant
from cannery.limits import QUOTA_SLICE_COUNT, QUOTA_SLICE_COUNT_MAX, QUOTA_WINDOW_S_MAX

SECOND_NS = 1_000_000_000


@record
class Rate:
    """So many cycles in each stretch of so many seconds."""

    cycles: nat
    seconds: nat64


@variant
class Quota(Variant):
    """What may be given: any amount; `fixed`: so much at a time, whatever was given before; `max`: so much in
    all; `rate`: so much in a sliding window.
    """

    unlimited: Case[None]
    fixed: Case[nat]
    max: Case[nat]
    rate: Case[Rate]


UNLIMITED = Quota.unlimited()


@record
class Slice:
    """Cycles given within a slice of a window; `ends_ns` is when the slice is over."""

    ends_ns: nat64
    cycles: nat


@record
class Books:
    """What was given: in all, and by slices while they count for a rate; the oldest slice first."""

    total: nat
    slices: list[Slice]


NO_BOOKS = Books(0, [])


@dataclass(frozen=True, slots=True)
class Booked:
    """The books to keep, and the slice that a booking went into; 0: none."""

    books: Books
    slice_ends_ns: int


def check_quota(quota: Quota) -> str | None:
    """Say what is wrong with a quota; None: nothing."""
    if quota.tag != "rate":
        return None
    rate = quota.rate
    if not 0 < rate.seconds <= QUOTA_WINDOW_S_MAX:
        return f"the window of a rate has 1 to {QUOTA_WINDOW_S_MAX} seconds, not {rate.seconds}"
    return None


def allowance(quota: Quota, books: Books, now_ns: int) -> int | None:
    """Return what the quota lets be given now; None: any amount."""
    match quota.tag:
        case "unlimited":
            return None
        case "fixed":
            return quota.fixed
        case "max":
            return max(0, quota.max - books.total)
        case _:
            return max(0, quota.rate.cycles - sum(each.cycles for each in _counting(quota, books, now_ns)))


def allowed_at_ns(quota: Quota, books: Books, cycles: int, now_ns: int) -> int | None:
    """Return when so many cycles may be given, if nothing else is given before; None: never."""
    allowed = allowance(quota, books, now_ns)
    if allowed is None or allowed >= cycles:
        return now_ns
    if quota.tag != "rate" or quota.rate.cycles < cycles:
        return None
    counting = _counting(quota, books, now_ns)
    counted = sum(each.cycles for each in counting)
    for each in counting:
        counted -= each.cycles
        if counted + cycles <= quota.rate.cycles:
            return each.ends_ns + quota.rate.seconds * SECOND_NS
    return now_ns


def book(quota: Quota, books: Books, cycles: int, now_ns: int) -> Booked:
    """Book cycles that are about to be sent."""
    if quota.tag != "rate":
        return Booked(Books(books.total + cycles, books.slices), 0)
    slice_ns = max(1, -(-quota.rate.seconds * SECOND_NS // QUOTA_SLICE_COUNT))
    ends_ns = -(-now_ns // slice_ns) * slice_ns
    slices = _counting(quota, books, now_ns)
    if slices and slices[-1].ends_ns >= ends_ns:
        ends_ns = slices[-1].ends_ns
        slices[-1] = Slice(ends_ns, slices[-1].cycles + cycles)
    else:
        slices.append(Slice(ends_ns, cycles))
    while len(slices) > QUOTA_SLICE_COUNT_MAX:
        first, second = slices[0], slices[1]
        slices[:2] = [Slice(second.ends_ns, first.cycles + second.cycles)]
    return Booked(Books(books.total + cycles, slices), ends_ns)


def release(books: Books, cycles: int, slice_ends_ns: int) -> Books:
    """Take back a booking whose cycles came back; each booking once.

    A slice that has left the window, or was put together with another one, is not relieved.
    """
    slices = [
        Slice(each.ends_ns, max(0, each.cycles - cycles)) if each.ends_ns == slice_ends_ns else each
        for each in books.slices
    ]
    return Books(max(0, books.total - cycles), [each for each in slices if each.cycles])


def _counting(quota: Quota, books: Books, now_ns: int) -> list[Slice]:
    """Return the slices that count for a rate now."""
    since_ns = now_ns - quota.rate.seconds * SECOND_NS
    return [each for each in books.slices if each.ends_ns > since_ns]
