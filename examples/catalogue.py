"""A part of a root index's map, as it may stand in any fleet over local indexes (docs/shards.md)."""

from __future__ import annotations

from collections.abc import Iterator

from cannery import Canister, Context, init
from cannery.fleet.map_part import MapPart
from cannery.fleet.member import Member
from cannery.fleet.place_holding import Holding
from cannery.fleet.place_types import Load
from cannery.fleet.placement_migration import Group
from cannery.fleet.shards_types import PartStart


class Catalogue(Canister):
    """A part of the root's map."""

    member = Member()
    holding = Holding()
    part = MapPart()

    @init
    def open(self, ctx: Context, start: PartStart) -> None:
        self.part.start(start)

    def place_load(self, ctx: Context) -> Load:
        return self.part.load()

    def place_groups(self, after: bytes | None) -> Iterator[Group]:
        return self.part.groups(after)

    def place_pack(self, name: bytes) -> bytes:
        return self.part.pack(name)

    def place_unpack(self, ctx: Context, name: bytes, data: bytes) -> None:
        self.part.unpack(data)

    def place_drop(self, ctx: Context, name: bytes) -> None:
        self.part.drop(name)

    def place_is_settled(self) -> bool:
        return True
