"""A canister of nobody's fleet, which says to another whatever it is told."""

from cannery import Call, Canister, Context, Pending, Principal, RawOutcome, continuation, update


class Stranger(Canister):
    """Call anything."""

    @update
    def say(self, ctx: Context, to: Principal, method: str, arg: bytes) -> Pending[str]:
        """Call a method; return how it was rejected, or nothing."""
        return ctx.call(Call.raw(to, method, arg), then=self.heard)

    @continuation
    def heard(self, ctx: Context, outcome: RawOutcome) -> str:
        """Say what came back."""
        return outcome.reject_message
