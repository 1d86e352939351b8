"""The second release of the library's shelf: finds books by their first letter."""

from cannery import (
    Canister,
    Context,
    Principal,
    StableCell,
    StableMap,
    init,
    nat64,
    owner,
    post_upgrade,
    query,
    same_fleet,
    update,
)
from cannery.fleet.member import Member


class Shelf(Canister):
    """One reader's books, with a card index."""

    member = Member()
    reader = StableCell(Principal, Principal.anonymous())
    books = StableMap(nat64, str, counted=True)
    cards = StableMap(tuple[str, nat64], bool)

    @init
    def open(self, ctx: Context, reader: Principal) -> None:
        """Belong to a reader."""
        self.reader.set(reader)

    @post_upgrade
    def file(self, ctx: Context) -> None:
        """Write a card for each book that is there; a book without a title stops the upgrade."""
        for number, title in self.books.items():
            if not title:
                ctx.trap(f"book {number} has no title")
            self.cards.put((title[0].lower(), number), True)

    @update(only=owner("reader"))
    def put(self, ctx: Context, number: nat64, title: str) -> None:
        """Put a book on the shelf, or give it another title."""
        if not title:
            ctx.reject("a book has a title")
        before = self.books.get(number)
        if before is not None:
            self.cards.delete((before[0].lower(), number))
        self.books.put(number, title)
        self.cards.put((title[0].lower(), number), True)

    @query(only=owner("reader") | same_fleet)
    def titles(self, ctx: Context) -> list[str]:
        """List the first 100 titles; other shelves of this library may ask too."""
        return [title for _, title in self.books.items(limit=100)]

    @query(only=owner("reader"))
    def find(self, ctx: Context, letter: str) -> list[str]:
        """List the first 100 titles that begin with a letter."""
        found = self.cards.items(prefix=(letter.lower(),), limit=100)
        return [self.books[number] for (_, number), _ in found]
