"""A fleet: a library that gives every reader a shelf of their own, and brings new releases to all of them.

docs/fleet.md walks through it. The next release of the shelf is `shelf_2.py`.
"""

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    encode_args,
    init,
    nat64,
    owner,
    query,
    same_fleet,
    update,
)
from cannery.fleet.directory_types import Child
from cannery.fleet.index import Index
from cannery.fleet.member import Member


class Shelf(Canister):
    """One reader's books."""

    member = Member()
    reader = StableCell(Principal, Principal.anonymous())
    books = StableMap(nat64, str, counted=True)

    @init
    def open(self, ctx: Context, reader: Principal) -> None:
        """Belong to a reader."""
        self.reader.set(reader)

    @update(only=owner("reader"))
    def put(self, ctx: Context, number: nat64, title: str) -> None:
        """Put a book on the shelf, or give it another title."""
        self.books.put(number, title)

    @query(only=owner("reader") | same_fleet)
    def titles(self, ctx: Context) -> list[str]:
        """List the first 100 titles; other shelves of this library may ask too."""
        return [title for _, title in self.books.items(limit=100)]


class Library(Canister):
    """The index: knows whose shelf is whose."""

    fleet = Index()

    @update
    def shelf(self, ctx: Context) -> Child | Pending[Child]:
        """Return the caller's shelf; make it at the first call."""
        known = self.fleet.directory.find("shelf", ctx.caller)
        if known is not None:
            return known
        if self.fleet.is_making(ctx, "shelf", ctx.caller):
            ctx.reject("your shelf is being made; ask again in a moment")
        arg = encode_args(ctx.caller)
        try:
            return self.fleet.create(ctx, "shelf", ctx.caller, arg, then=self.made, saved=ctx.caller)
        except Reject as reject:
            ctx.reject(f"no shelf can be made now: {reject.message}")

    @continuation
    def made(self, ctx: Context, outcome: Outcome[Child], saved: Principal) -> Child:
        """Answer with the new shelf; where none could be made its reader may ask again."""
        if not outcome.ok:
            ctx.reject(f"no shelf could be made for {saved}: {outcome.reject_message}")
        return outcome.value
