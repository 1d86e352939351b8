"""What new zones may cost the factory: the cycles that they are born with, in any stretch of a quota's time.

A birth is booked before the canister is made and released where it could not be. What the factory keeps in
reserve is for the zones that there are.
"""

from __future__ import annotations

from cannery import Context, StableCell, nat, nat64, record
from cannery.cdk.component import Component, Uses
from cannery.fleet.nursery import Nursery
from cannery.fleet.top_up_quota import NO_BOOKS, Books, Quota, allowance, allowed_at_ns, book, release
from cannery.fleet.treasury import Treasury

from .catalogue import KIND
from .refusal import NS_PER_S, refuse


@record
class Birth:
    """Cycles that a new zone is born with, as they were booked."""

    cycles: nat
    slice_ns: nat64


class Births(Component, prefix="births"):
    """Keep the books of births."""

    nursery = Uses(Nursery)
    treasury = Uses(Treasury)
    books = StableCell(Books, NO_BOOKS)

    def check(self, ctx: Context, quota: Quota) -> int:
        """Return what a zone is born with; refuse where the factory has not got it, or may not give it."""
        cycles = self.nursery.births.get(KIND, 0)
        if cycles > self.treasury.spendable(ctx):
            refuse(ctx, "the factory lacks cycles for new zones: an operator tops it up", retry_ns=NS_PER_S)
        allowed = allowance(quota, self.books.get(), ctx.now_ns)
        if allowed is not None and allowed < cycles:
            at_ns = allowed_at_ns(quota, self.books.get(), cycles, ctx.now_ns)
            retry_ns = None if at_ns is None else at_ns - ctx.now_ns
            refuse(ctx, "new zones were given all the cycles that they may be for now", retry_ns=retry_ns)
        return cycles

    def book(self, ctx: Context, quota: Quota, cycles: int) -> Birth:
        """Book a birth that was checked in this message."""
        booked = book(quota, self.books.get(), cycles, ctx.now_ns)
        self.books.set(booked.books)
        return Birth(cycles, booked.slice_ends_ns)

    def release(self, birth: Birth) -> None:
        """Take back a birth whose cycles came back."""
        self.books.set(release(self.books.get(), birth.cycles, birth.slice_ns))
