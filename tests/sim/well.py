"""A well of the simulated world: it gives cycles away, asks its index for more, and counts what it gave."""

from __future__ import annotations

from cannery import (
    Call,
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    continuation,
    encode_args,
    nat,
    query,
    update,
)
from cannery.fleet.funding_types import TopUpResult


class Well(Canister):
    """A child of a fleet whose balance can be worked out."""

    given = StableCell(nat, 0)

    @update
    def draw(self, ctx: Context, gift: nat, to: Principal) -> nat:
        """Send cycles to somebody, as far as there are any; return how many were ever sent."""
        gift = min(gift, ctx.balance)
        self.given.set(self.given.get() + gift)
        if gift:
            ctx.notify(Call.of(to, "take", ()), cycles=gift)
        return self.given.get()

    @update
    def take(self, ctx: Context) -> None:
        """Keep the cycles that came."""
        ctx.accept(ctx.available)

    @update
    def ask(self, ctx: Context, cycles: nat) -> Pending[TopUpResult]:
        """Ask the index for cycles, and answer with what it said."""
        assert ctx.fleet is not None
        call = Call(ctx.fleet.raw, "fleet_request_cycles", encode_args(cycles, types=[nat]))
        return ctx.call(call, then=self.told)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[TopUpResult]) -> TopUpResult:
        """Pass the index's word on."""
        return outcome.unwrap()

    @query
    def gave(self, ctx: Context) -> nat:
        """Return all that was given away."""
        return self.given.get()
