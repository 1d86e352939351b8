"""A canister with one method for each thing that a client meets: replies, rejects, traps, callers, sizes."""

from cannery import Canister, Context, Principal, StableCell, nat32, nat64, query, update


class Probe(Canister):
    """Count, echo, refuse and fail on demand."""

    count = StableCell(nat64, 0)

    @update
    def increment(self, ctx: Context) -> nat64:
        """Add one and return the new count."""
        after = self.count.get() + 1
        self.count.set(after)
        return after

    @query
    def value(self, ctx: Context) -> nat64:
        """Return the count."""
        return self.count.get()

    @query
    def whoami(self, ctx: Context) -> Principal:
        """Return the caller of a query."""
        return ctx.caller

    @update
    def whoami_update(self, ctx: Context) -> Principal:
        """Return the caller of an update."""
        return ctx.caller

    @query
    def greet(self, ctx: Context, name: str) -> str:
        """Greet."""
        return f"Hello, {name}!"

    @update
    def echo(self, ctx: Context, data: bytes) -> bytes:
        """Return the argument."""
        return data

    @query
    def fill(self, ctx: Context, size: nat32) -> bytes:
        """Return `size` zero bytes."""
        return bytes(size)

    @update
    def fail(self, ctx: Context, text: str) -> None:
        """Trap after a write that must not stay."""
        self.count.set(self.count.get() + 1000)
        ctx.trap(text)

    @update
    def refuse(self, ctx: Context, text: str) -> None:
        """Reject."""
        ctx.reject(text)

    @query
    def refuse_query(self, ctx: Context, text: str) -> None:
        """Reject a query."""
        ctx.reject(text)
