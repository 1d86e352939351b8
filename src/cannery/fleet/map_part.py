"""A part of a root index's map, as one component: `part = MapPart()`, beside `holding = Holding()`.

It holds entries of owners that `Place` gives it. The root alone writes and reads here; neighbours get entries
as chunks (`place_holding`). The canister's `Keeper` methods lead here. The root's side is `owner_map`'s.
"""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Context,
    Principal,
    StableCell,
    StableMap,
    encode_args,
    index,
    nat32,
    nat64,
    operator,
    query,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.component import Component, Uses
from cannery.fleet.owner_map import changed_entry
from cannery.fleet.place_holding import Holding
from cannery.fleet.place_types import Load
from cannery.fleet.placement_migration import Group, Serve
from cannery.fleet.shards_types import Entry, EntryChange, FindResult, KeepResult, MapEntry, PartStart

ENTRY_SIZE_BYTES = 128


class MapPart(Component, prefix="fleet.part"):
    """Hold entries."""

    holding = Uses(Holding)
    entries = StableMap(tuple[bytes, str], Entry, counted=True)
    entries_max = StableCell(nat64, 1)

    def start(self, start: PartStart) -> None:
        """Begin empty; call it in `@init`."""
        self.holding.start(start.held)
        self.entries_max.set(start.entries_max)

    # the root

    @query(only=index | operator)
    def map_find(self, ctx: Context, owner: Principal, kind: str) -> FindResult:
        """Find an entry, or say who has it; one that is on its way to another part is still told here,
        as it was when it was sent.
        """
        entry = self.entries.get((owner.raw, kind))
        if entry is not None:
            return FindResult.found(entry)
        to = self._elsewhere(ctx, owner)
        return FindResult.absent() if to is None else FindResult.moved(to.moved)

    @update(only=index)
    def map_keep(self, ctx: Context, entry: MapEntry) -> KeepResult:
        """Keep an entry."""
        to = self._elsewhere(ctx, entry.owner)
        if to is not None:
            return to
        self.entries.put((entry.owner.raw, entry.kind), entry.entry)
        self.holding.note_change(ctx)
        return KeepResult.ok()

    @update(only=index)
    def map_take(self, ctx: Context, entries: list[MapEntry]) -> list[nat32]:
        """Keep entries that the root had itself; give the places of those that are for other parts."""
        left: list[int] = []
        for at, each in enumerate(entries):
            if self._elsewhere(ctx, each.owner) is None:
                self.entries.put((each.owner.raw, each.kind), each.entry)
            else:
                left.append(at)
        self.holding.note_change(ctx)
        return left

    @update(only=index)
    def map_change(self, ctx: Context, change: EntryChange, index: Principal) -> KeepResult:
        """Change or drop an entry as its own index says."""
        to = self._elsewhere(ctx, change.owner)
        if to is not None:
            return to
        key = (change.owner.raw, change.kind)
        known = self.entries.get(key)
        changed = None if known is None else changed_entry(known, index, change)
        if changed is not None:
            self.entries.put(key, changed)
        elif known is not None:
            self.entries.delete(key)
            self.holding.note_change(ctx)
        return KeepResult.ok()

    def _elsewhere(self, ctx: Context, owner: Principal) -> KeepResult | None:
        """Say who answers for an owner, where this part does not."""
        route = self.holding.route(ctx, owner.raw)
        return None if isinstance(route, Serve) else KeepResult.moved(route.to)

    # what `Holding` asks of its `Keeper`

    def load(self) -> Load:
        """Say how full this part is."""
        count = len(self.entries)
        return Load(self.entries_max.get(), count, count, count * ENTRY_SIZE_BYTES)

    def groups(self, after: bytes | None) -> Iterator[Group]:
        """List owners behind one, in order, each with all entries of theirs."""
        start = None if after is None else (after + b"\x00", "")
        name, count = b"", 0
        for owner, _ in self.entries.keys(start=start):
            if owner != name and count:
                yield Group(name, count, count * ENTRY_SIZE_BYTES)
                count = 0
            name, count = owner, count + 1
        if count:
            yield Group(name, count, count * ENTRY_SIZE_BYTES)

    def pack(self, name: bytes) -> bytes:
        """Write the entries of an owner."""
        found = self.entries.items(prefix=(name,))
        packed = [MapEntry(Principal(name), kind, entry) for (_, kind), entry in found]
        return encode_args(packed, types=[list[MapEntry]])

    def unpack(self, data: bytes) -> None:
        """Store the entries of an owner."""
        (entries,) = decoder((type_of(list[MapEntry]),))(data)
        assert isinstance(entries, list), "that is the hint"
        for each in entries:
            self.entries.put((each.owner.raw, each.kind), each.entry)

    def drop(self, name: bytes) -> None:
        """Drop the entries of an owner."""
        for key in [key for key, _ in self.entries.items(prefix=(name,))]:
            self.entries.delete(key)
