"""An index for the bench: makes, installs and initialises as many children as it is told, within one call."""

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    StableCell,
    continuation,
    encode_args,
    init,
    nat32,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.management import CreateInstalledArgs, CreateInstalledResult, Management

AT_ONCE = 50


@record
class Left:
    """How many children are still to be asked for by this chain of calls."""

    count: nat32


class Creator(Canister):
    """Make children."""

    module_hash = StableCell(bytes, b"")
    made = StableCell(nat64, 0)

    @init
    def start(self, ctx: Context, module_hash: bytes) -> None:
        """Remember the module of the children."""
        self.module_hash.set(module_hash)

    @update
    def create(self, ctx: Context, count: nat32) -> nat64 | Pending[nat64]:
        """Make `count` children, one after the other, and return how many there are."""
        return self._next(ctx, count)

    @continuation
    def created(
        self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Left
    ) -> nat64 | Pending[nat64]:
        """Count one child and ask for the next."""
        outcome.unwrap()
        self.made.set(self.made.get() + 1)
        return self._next(ctx, saved.count)

    def _next(self, ctx: Context, count: int) -> nat64 | Pending[nat64]:
        if count == 0:
            return self.made.get()
        args = CreateInstalledArgs(
            module_hash=self.module_hash.get(), arg=encode_args(), controllers=[ctx.id]
        )
        return ctx.call(Management().cannery_create_installed(args), then=self.created, saved=Left(count - 1))

    @query
    def count(self, ctx: Context) -> nat64:
        """Return how many children there are."""
        return self.made.get()
