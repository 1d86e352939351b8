"""A fleet over local indexes: a library for a whole county, whose branches make the readers' shelves.

docs/shards.md walks through it. Its map part is `catalogue.py`, the next release of the shelf `shelf_2.py`.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Pending,
    Principal,
    StableCell,
    StableMap,
    encode_args,
    init,
    nat64,
    owner,
    query,
    update,
)
from cannery.fleet.index import Index
from cannery.fleet.member import Member
from cannery.fleet.place import Place
from cannery.fleet.place_types import Held, PlaceRule
from cannery.fleet.shard import Shard
from cannery.fleet.shards import Shards
from cannery.fleet.shards_types import Entry, ShardRule


class Shelf(Canister):
    """A reader's books."""

    member = Member()
    reader = StableCell(Principal, Principal.anonymous())
    books = StableMap(nat64, str, counted=True)

    @init
    def open(self, ctx: Context, reader: Principal) -> None:
        self.reader.set(reader)

    @update(only=owner("reader"))
    def put(self, ctx: Context, number: nat64, title: str) -> None:
        self.books.put(number, title)

    @query(only=owner("reader"))
    def titles(self, ctx: Context) -> list[str]:
        return [title for _, title in self.books.items(limit=100)]


class County(Canister):
    """The root: gives every reader a shelf, which one of the branches makes."""

    fleet = Index()
    place = Place()
    shards = Shards()

    @update
    def shelf(self, ctx: Context) -> Entry | Pending[Entry]:
        return self.shards.provide(ctx, "shelf", ctx.caller, encode_args(ctx.caller))

    def shard_rule(self, ctx: Context) -> ShardRule:
        return ShardRule(children_max=2, spare_min=1, entries_max=3, part_entries=1_000)

    def place_rule(self, ctx: Context) -> PlaceRule:
        return self.shards.place_rule(ctx)

    def place_arg(self, ctx: Context, held: Held) -> bytes:
        return encode_args(self.shards.place_start(ctx, held))


class Branch(Canister):
    """A local index."""

    member = Member()
    fleet = Index()
    shard = Shard()
