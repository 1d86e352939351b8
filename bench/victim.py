"""The canister under attack: a method that a guard closes, one that refuses by itself."""

from cannery import Canister, Context, StableCell, controller, nat64, update


class Victim(Canister):
    """Let controllers in alone, by a guard and by hand."""

    count = StableCell(nat64, 0)

    @update(only=controller)
    def guarded(self, ctx: Context) -> None:
        """Count a call of a controller."""
        self.count.set(self.count.get() + 1)

    @update
    def refusing(self, ctx: Context) -> None:
        """Count a call, and refuse whoever does not control this canister."""
        self.count.set(self.count.get() + 1)
        if not ctx.is_controller(ctx.caller):
            ctx.reject("controllers alone")
