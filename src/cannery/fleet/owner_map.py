"""The map of a root index: owner and kind to canister and index, here or in map parts.

The root keeps entries itself up to `entries_max`. Beyond that `Place` makes map parts and spreads owners over
them by AnchorHash; the root's own entries go there in chunks, and each is answered for by the root until the
part has it. New entries go to the parts from then on; children that the root made itself, before it had local
indexes, stay in its directory, and are found there. What an index says of its children waits in `changes`
until the part has taken it. All steps may be repeated. A part's side is `map_part`'s.
"""

from __future__ import annotations

from typing import Final

from cannery import (
    Context,
    Outcome,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    nat32,
    nat64,
    record,
)
from cannery.cdk.component import Component, Uses
from cannery.fleet.index import Index
from cannery.fleet.place import Place
from cannery.fleet.shards_types import Entry, EntryChange, FindResult, KeepResult, MapEntry, PartDoor
from cannery.limits import (
    MAP_CHUNK_COUNT_MAX,
    MAP_HOP_COUNT_MAX,
    SHARD_CHANGE_COUNT_MAX,
    SHARD_CHANGES_PER_TICK_COUNT_MAX,
)

LOST_NS: Final = 600 * 1_000_000_000

Key = tuple[bytes, str]


@record
class SentChunk:
    """A chunk of the root's entries on its way to a part; its number rises."""

    number: nat64
    entries: list[MapEntry]


@record
class SentChange:
    """A change on its way to a part, and how many parts were asked."""

    index: Principal
    change: EntryChange
    hops: nat32


@record
class Waiting:
    """A change that the parts do not have yet: by which index, and when it was sent (0: it is due)."""

    index: Principal
    change: EntryChange
    sent_ns: nat64


class OwnerMap(Component, prefix="fleet.map"):
    """Keep and find entries."""

    fleet = Uses(Index)
    place = Uses(Place)
    entries = StableMap(tuple[bytes, str], Entry, counted=True)
    changes = StableMap(tuple[bytes, str], Waiting, counted=True)
    chunk = StableCell(tuple[nat64, nat64], (0, 0))

    def is_split(self, entries_max: int) -> bool:
        """Say whether new entries go to parts."""
        return bool(self.place.buckets()) or len(self.entries) > entries_max

    def here(self, ctx: Context, kind: str, owner: Principal) -> Entry | None:
        """Return the entry that the root has itself, or that of a child which it made itself."""
        known = self.entries.get((owner.raw, kind))
        own = self.fleet.directory.find(kind, owner) if known is None else None
        return known if own is None else Entry(own.canister, ctx.id)

    def is_changing(self, kind: str, owner: Principal) -> bool:
        """Say whether an entry is being changed in its part."""
        return self.changes.get((owner.raw, kind)) is not None

    def part_of(self, owner: Principal) -> Principal | None:
        """Return the part that has an owner's entries; None where there is none yet."""
        return self.place.where(owner.raw)

    def keep(self, kind: str, owner: Principal, entry: Entry) -> None:
        """Keep an entry here."""
        self.entries.put((owner.raw, kind), entry)

    def find_across(self, ctx: Context, kind: str, owner: Principal) -> Entry | None:
        """Find an entry wherever it is, in a composite query; Reject where it is just moving, or where its
        part does not answer.
        """
        known, asked = self.here(ctx, kind, owner), self.part_of(owner)
        if known is not None or asked is None:
            return known
        hops = 0
        while asked is not None and hops <= MAP_HOP_COUNT_MAX:
            outcome = ctx.query(PartDoor(asked).map_find(owner, kind))
            if not outcome.ok:
                ctx.reject(f"the map part {asked} does not answer: {outcome.reject_message}")
            result: FindResult = outcome.value
            if result.tag != "moved":
                return result.found if result.tag == "found" else None
            asked, hops = result.moved, hops + 1
        return ctx.reject("the entry is moving to another map part: ask again in a moment")

    # what indexes say of their children

    def change(self, ctx: Context, index: Principal, change: EntryChange) -> bool:
        """Take an index's word for its own child; False: it is to say so again later."""
        key = (change.owner.raw, change.kind)
        known, waiting = self.entries.get(key), self.changes.get(key)
        is_split = bool(self.place.buckets())
        if waiting is not None and waiting.index == index and waiting.change == change:
            return True
        is_sending = known is not None and self.chunk.get()[1] != 0
        if waiting is not None or is_sending or len(self.changes) >= SHARD_CHANGE_COUNT_MAX:
            return False
        if known is not None:
            self._change_here(key, known, index, change)
        if is_split:
            # A part may have what is here as well: from a chunk whose answer was lost.
            self.changes.put(key, Waiting(index, change, 0))
            self._send_change(ctx, key, None, 0)
        return True

    def _change_here(self, key: Key, known: Entry, index: Principal, change: EntryChange) -> None:
        changed = changed_entry(known, index, change)
        if changed is None:
            self.entries.delete(key)
        else:
            self.entries.put(key, changed)

    def _send_change(self, ctx: Context, key: Key, to: Principal | None, hops: int) -> None:
        waiting = self.changes[key]
        part = to or self.part_of(waiting.change.owner)
        if part is None:
            return
        saved = SentChange(waiting.index, waiting.change, hops)
        try:
            ctx.call(PartDoor(part).map_change(waiting.change, waiting.index), then=self.changed, saved=saved)
        except Reject as reject:
            ctx.log(f"a map part is told later: {reject.message}")
            return
        self.changes.put(key, Waiting(waiting.index, waiting.change, ctx.now_ns))

    @continuation
    def changed(self, ctx: Context, outcome: Outcome[KeepResult], saved: SentChange) -> None:
        """Forget a change that a part has taken; ask the part that it names, or later."""
        key = (saved.change.owner.raw, saved.change.kind)
        waiting = self.changes.get(key)
        if waiting is None or waiting.change != saved.change or waiting.index != saved.index:
            return
        if outcome.ok and outcome.value.tag == "ok":
            self.changes.delete(key)
            return
        self.changes.put(key, Waiting(waiting.index, waiting.change, 0))
        if not outcome.ok:
            ctx.log(f"a map part does not take a change now: {outcome.reject_message}")
        elif outcome.value.moved is not None and saved.hops < MAP_HOP_COUNT_MAX:
            self._send_change(ctx, key, outcome.value.moved, saved.hops + 1)

    # handing over

    def go_on(self, ctx: Context, entries_max: int) -> None:
        """Send what is due: a chunk of the root's own entries, and changes that wait."""
        if not self.place.buckets():
            if len(self.entries) > entries_max:
                self.place.driver.look(ctx)
            return
        self._send_chunk(ctx)
        waiting = list(self.changes.items(limit=SHARD_CHANGES_PER_TICK_COUNT_MAX))
        for key, change in waiting:
            if not change.sent_ns or ctx.now_ns - change.sent_ns >= LOST_NS:
                self._send_change(ctx, key, None, 0)

    def _send_chunk(self, ctx: Context) -> None:
        number, sent_ns = self.chunk.get()
        if sent_ns and ctx.now_ns - sent_ns < LOST_NS:
            return
        part: Principal | None = None
        chunk: list[MapEntry] = []
        for (raw, kind), entry in self.entries.items(limit=MAP_CHUNK_COUNT_MAX):
            owner = Principal(raw)
            its_part = self.part_of(owner)
            part = part or its_part
            if its_part == part:
                chunk.append(MapEntry(owner, kind, entry))
        if part is None:
            return
        try:
            ctx.call(PartDoor(part).map_take(chunk), then=self.taken, saved=SentChunk(number + 1, chunk))
        except Reject as reject:
            ctx.log(f"entries are handed over later: {reject.message}")
            return
        self.chunk.set((number + 1, ctx.now_ns))

    @continuation
    def taken(self, ctx: Context, outcome: Outcome[list[nat32]], saved: SentChunk) -> None:
        """Drop the entries that a part has, and that have not changed here meanwhile; go on with the next."""
        number, _ = self.chunk.get()
        if number != saved.number:
            return
        self.chunk.set((number, 0))
        if not outcome.ok:
            ctx.log(f"a map part did not take entries: {outcome.reject_message}")
            return
        kept = frozenset(outcome.value)
        for at, sent in enumerate(saved.entries):
            key = (sent.owner.raw, sent.kind)
            if at not in kept and self.entries.get(key) == sent.entry:
                self.entries.delete(key)
        if len(kept) < len(saved.entries):
            self._send_chunk(ctx)


def changed_entry(known: Entry, index: Principal, change: EntryChange) -> Entry | None:
    """Return an entry after what an index said; the same one where the word is not about its own child."""
    if known.index != index or known.canister != change.was:
        return known
    return None if change.now is None else Entry(change.now, index)
