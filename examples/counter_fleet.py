"""A fleet in small: an index that makes a counter canister for everybody who asks, and sums them all.

Deploy it with the hash of the counter's module as its argument (docs/canisters.md, "A fleet of your own").
"""

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    StableMap,
    composite_query,
    continuation,
    encode_args,
    init,
    method,
    nat64,
    query,
    update,
)
from cannery.cdk.management import CreateInstalledArgs, CreateInstalledResult, Management


class CounterInterface(Service):
    """What the index calls of a counter."""

    @method
    def value(self) -> nat64:
        """Return the count."""
        raise NotImplementedError


class CounterFleet(Canister):
    """Open counters, find them, sum them."""

    module_hash = StableCell(bytes, b"")
    counters = StableMap(Principal, Principal)
    opening = StableMap(Principal, bool)

    @init
    def start(self, ctx: Context, module_hash: bytes) -> None:
        """Remember which module new counters run."""
        self.module_hash.set(module_hash)

    @update
    def open(self, ctx: Context) -> Principal | Pending[Principal]:
        """Return the caller's counter; make it at the first call."""
        if self.opening.get(ctx.caller):
            ctx.reject("your counter is being made; ask again in a moment")
        known = self.counters.get(ctx.caller)
        if known is not None:
            return known
        self.opening.put(ctx.caller, True)
        args = CreateInstalledArgs(
            module_hash=self.module_hash.get(), arg=encode_args(ctx.caller), controllers=[ctx.id]
        )
        return ctx.call(Management().cannery_create_installed(args), then=self.opened, saved=ctx.caller)

    @continuation
    def opened(self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Principal) -> Principal:
        """Keep the new counter's id, or let the owner try again."""
        self.opening.delete(saved)
        if not outcome.ok:
            ctx.reject(f"no counter could be made: {outcome.reject_message}")
        self.counters.put(saved, outcome.value.canister_id)
        return outcome.value.canister_id

    @query
    def find(self, ctx: Context, owner: Principal) -> Principal | None:
        """Return somebody's counter."""
        return self.counters.get(owner)

    @composite_query
    def total(self, ctx: Context) -> nat64:
        """Sum the first 100 counters, all read from one snapshot."""
        counters = list(self.counters.values(limit=100))
        return sum(ctx.query(CounterInterface(counter).value()).unwrap() for counter in counters)
