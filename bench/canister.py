"""The canister under load: one small write for an update, one read for a query."""

from cannery import Canister, Context, StableCell, StableMap, nat64, query, update


class Bench(Canister):
    """Keep small values."""

    values = StableMap(nat64, bytes)
    count = StableCell(nat64, 0)

    @update
    def put(self, ctx: Context, key: nat64, value: bytes) -> nat64:
        """Keep a value and return how many writes there were."""
        self.values.put(key, value)
        after = self.count.get() + 1
        self.count.set(after)
        return after

    @query
    def get(self, ctx: Context, key: nat64) -> bytes | None:
        """Return a value."""
        return self.values.get(key)
