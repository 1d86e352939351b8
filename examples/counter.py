"""A counter of one's own: the child of examples/counter_fleet.py."""

from cannery import Canister, Context, Principal, StableCell, init, nat64, query, update


class Counter(Canister):
    """Count, for one owner only."""

    owner = StableCell(Principal, Principal.anonymous())
    count = StableCell(nat64, 0)

    @init
    def start(self, ctx: Context, owner: Principal) -> None:
        """Give the counter its owner."""
        self.owner.set(owner)

    @update
    def increment(self, ctx: Context) -> nat64:
        """Add one."""
        if ctx.caller != self.owner.get():
            ctx.reject("this counter is somebody else's; open one of your own at the fleet")
        self.count.set(self.count.get() + 1)
        return self.count.get()

    @query
    def value(self, ctx: Context) -> nat64:
        """Return the count."""
        return self.count.get()
