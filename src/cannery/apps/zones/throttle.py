"""How often something may be done: by each principal, and by all of them together.

What is let through is booked before it is done. Windows slide: no stretch of time of a window's length sees
more than its count. Principals cost nothing to make, so only those that were let through are kept, and they
are forgotten when their window is over. A refusal writes nothing.
"""

from __future__ import annotations

from cannery import Context, Principal, StableMap, StableSet, nat32, nat64, record
from cannery.cdk.component import Component
from cannery.fleet.top_up_quota import NO_BOOKS, Books, Quota, allowance, allowed_at_ns, book
from cannery.fleet.top_up_quota import Rate as Window

from .bounds import THROTTLE_FORGET_COUNT, THROTTLE_SECONDS_MAX
from .refusal import NS_PER_S, refuse

EVERYBODY = Principal.management()


@record
class Rate:
    """So many times in each stretch of so many seconds."""

    count: nat32
    seconds: nat32


@record
class Rates:
    """How often each principal may do something, and how often all of them together."""

    each: Rate
    together: Rate


@record
class Kept:
    """What somebody did, and when it counts no more."""

    books: Books
    until_ns: nat64


NOTHING = Kept(NO_BOOKS, 0)


class Throttle(Component, prefix="throttle"):
    """Count what was done."""

    kept = StableMap(tuple[str, Principal], Kept)
    ends = StableSet(tuple[nat64, str, Principal])

    def pass_or_refuse(self, ctx: Context, what: str, rates: Rates) -> None:
        """Count the caller's deed, or refuse it with the time when it may be done again."""
        self._check(ctx, what, ctx.caller, rates.each, f"you may do this {_text(rates.each)}")
        together = f"all together may do this {_text(rates.together)}"
        self._check(ctx, what, EVERYBODY, rates.together, together)
        self._forget(ctx)
        self._book(ctx, what, ctx.caller, rates.each)
        self._book(ctx, what, EVERYBODY, rates.together)

    def _check(self, ctx: Context, what: str, who: Principal, rate: Rate, text: str) -> None:
        quota, books = _quota(rate), self.kept.get((what, who), NOTHING).books
        if allowance(quota, books, ctx.now_ns) == 0:
            at_ns = allowed_at_ns(quota, books, 1, ctx.now_ns)
            refuse(ctx, text, retry_ns=None if at_ns is None else at_ns - ctx.now_ns)

    def _book(self, ctx: Context, what: str, who: Principal, rate: Rate) -> None:
        kept = self.kept.get((what, who), NOTHING)
        booked = book(_quota(rate), kept.books, 1, ctx.now_ns)
        until_ns = booked.slice_ends_ns + rate.seconds * NS_PER_S
        self.ends.discard((kept.until_ns, what, who))
        self.ends.add((until_ns, what, who))
        self.kept.put((what, who), Kept(booked.books, until_ns))

    def _forget(self, ctx: Context) -> None:
        """Drop the oldest books whose window is over, some at a time: more than one message adds."""
        for until_ns, what, who in list(self.ends.keys(limit=THROTTLE_FORGET_COUNT)):
            if until_ns > ctx.now_ns:
                return
            self.ends.discard((until_ns, what, who))
            self.kept.delete((what, who))


def rates_fault(rates: Rates) -> str | None:
    """Say what is wrong with rates, or None."""
    for rate in (rates.each, rates.together):
        if not 1 <= rate.seconds <= THROTTLE_SECONDS_MAX:
            return f"a rate's time has 1 to {THROTTLE_SECONDS_MAX} seconds, not {rate.seconds}"
    return None


def _quota(rate: Rate) -> Quota:
    return Quota.rate(Window(rate.count, rate.seconds))


def _text(rate: Rate) -> str:
    return f"{rate.count} times in {rate.seconds} s"
