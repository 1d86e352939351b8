"""The entries of a bucket: values in parts, tags, orders by time, and what all of it takes.

Knows owners, readers and moderators; knows nothing of other buckets (`bucket`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from cannery import Context, Principal, StableCell, StableMap, StableSet, nat32, nat64
from cannery.cdk.component import Component

from .types import (
    FIND_COUNT_MAX,
    MODERATOR_ROLE,
    PART_SIZE_BYTES,
    Cursor,
    DeleteResult,
    Entry,
    Find,
    FindPage,
    LabelNote,
    Packed,
    Put,
    PutResult,
    Stored,
    Sum,
    Totals,
    label_of_reader,
    label_of_tag,
)

SLOTS_DEFAULT = 10_000
SLOT_SIZE_BYTES_DEFAULT = 65_536
LOOK_COUNT_MAX = 400
NOTE_COUNT_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Viewer:
    """Who looks, and whether as a moderator."""

    principal: Principal
    is_moderator: bool

    def may_see(self, entry: Entry) -> bool:
        """Tell whether an entry is for these eyes."""
        return (
            not entry.private
            or self.is_moderator
            or self.principal == entry.owner
            or self.principal in entry.readers
        )


def viewer_of(ctx: Context, principal: Principal) -> Viewer:
    """Look as somebody, with the roles that the fleet gives."""
    return Viewer(principal, ctx.has_role(MODERATOR_ROLE, principal))


def number_value(ctx: Context, name: str, default: int) -> int:
    """Read a number out of the fleet's values; what is no positive number counts as not set."""
    text = ctx.fleet_value(name) or ""
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else default


class Entries(Component, prefix="store.entries"):
    """Keep entries."""

    kept = StableMap(str, Entry)
    parts = StableMap(tuple[nat64, nat32], bytes)
    order = StableSet(tuple[str, nat64, str])
    labels = StableMap(str, nat64)
    unnoted = StableMap(str, LabelNote)
    totals = StableCell(Totals, Totals(0, 0, 0, 0, 0))

    # writing

    def put(self, ctx: Context, caller: Principal, put: Put) -> PutResult:
        """Store an entry, or say why not."""
        old = self.kept.get(put.key)
        if old is not None and old.owner != caller:
            return PutResult.refused("this key is somebody else's: choose another")
        if put.expect is not None and put.expect != (0 if old is None else old.revision):
            return PutResult.conflict(0 if old is None else old.revision)
        totals = self.totals.get()
        capacity = number_value(ctx, "bucket_slots", SLOTS_DEFAULT)
        slot_size = number_value(ctx, "slot_size_bytes", SLOT_SIZE_BYTES_DEFAULT)
        slots = max(1, -(-len(put.value) // slot_size))
        if slots > capacity:
            return PutResult.refused(
                f"this value takes {slots} slots of {slot_size} bytes, a bucket has {capacity}: "
                f"raise bucket_slots, or put less"
            )
        used = totals.used_slots - (0 if old is None else old.slots)
        if used + slots > capacity and (old is None or slots > old.slots):
            return PutResult.full("this bucket is full and another is being made: try again in a moment")
        if old is not None:
            self._take_out(old)
        totals = self.totals.get()
        revision = max(ctx.now_ns, totals.revision + 1, 0 if old is None else old.revision + 1)
        entry = Entry(
            put.key,
            caller,
            sorted(set(put.tags)),
            put.private,
            sorted(set(put.readers)),
            ctx.now_ns if old is None else old.created_ns,
            ctx.now_ns,
            revision,
            len(put.value),
            slots,
            totals.number + 1,
        )
        value = memoryview(put.value)
        self._bring_in(
            entry, [bytes(value[at : at + PART_SIZE_BYTES]) for at in range(0, entry.size, PART_SIZE_BYTES)]
        )
        return PutResult.ok(Stored(ctx.id, revision, old is None))

    def delete(self, viewer: Viewer, key: str, expect: int | None) -> DeleteResult:
        """Delete an entry, which its owner and moderators may."""
        entry = self.kept.get(key)
        if entry is None or not viewer.may_see(entry):
            return DeleteResult.absent()
        if viewer.principal != entry.owner and not viewer.is_moderator:
            return DeleteResult.refused("this entry is somebody else's: its owner or a moderator deletes it")
        if expect is not None and expect != entry.revision:
            return DeleteResult.refused(f"the entry has revision {entry.revision}, not {expect}")
        self._take_out(entry)
        return DeleteResult.ok(entry.revision)

    def _bring_in(self, entry: Entry, parts: list[bytes]) -> None:
        totals = self.totals.get()
        number = totals.number + 1
        entry = replace(entry, number=number)
        self.kept.put(entry.key, entry)
        for at, part in enumerate(parts):
            self.parts.put((number, at), part)
        for label in _labels(entry):
            self.order.add((label, entry.revision, entry.key))
        for label in _noted_labels(entry):
            count = self.labels.get(label, 0)
            self.labels.put(label, count + 1)
            if not count:
                self._note(label, is_there=True)
        self.totals.set(
            Totals(
                totals.count + 1,
                totals.size_bytes + entry.size,
                totals.used_slots + entry.slots,
                max(totals.revision, entry.revision),
                number,
            )
        )

    def _take_out(self, entry: Entry) -> None:
        self.kept.delete(entry.key)
        for at in range(_part_count(entry)):
            self.parts.delete((entry.number, at))
        for label in _labels(entry):
            self.order.discard((label, entry.revision, entry.key))
        for label in _noted_labels(entry):
            count = self.labels[label] - 1
            if count:
                self.labels.put(label, count)
            else:
                self.labels.delete(label)
                self._note(label, is_there=False)
        totals = self.totals.get()
        self.totals.set(
            replace(
                totals,
                count=totals.count - 1,
                size_bytes=totals.size_bytes - entry.size,
                used_slots=totals.used_slots - entry.slots,
            )
        )

    # labels that the index does not know of yet

    def _note(self, label: str, *, is_there: bool) -> None:
        known = self.unnoted.get(label)
        self.unnoted.put(label, LabelNote(label, is_there, 0 if known is None else known.number + 1))

    def notes(self) -> list[LabelNote]:
        """Return what the index is to be told of labels."""
        return list(self.unnoted.values(limit=NOTE_COUNT_MAX))

    def noted(self, notes: list[LabelNote]) -> None:
        """Forget what the index has been told, unless it has changed since."""
        for note in notes:
            if self.unnoted.get(note.label) == note:
                self.unnoted.delete(note.label)

    # reading

    def part(self, entry: Entry, at: int) -> bytes:
        """Return a part of a value; empty behind its end."""
        return self.parts.get((entry.number, at), b"")

    def find(self, viewer: Viewer, wanted: Find) -> FindPage:
        """List entries, newest first, at most so many, and look at so many at the most."""
        limit = max(1, min(wanted.limit, FIND_COUNT_MAX))
        found: list[Entry] = []
        for entry, end in self._looked_at(viewer, wanted):
            if entry is None:
                return FindPage(found, end, False)
            if self._passes(viewer, wanted, entry):
                found.append(entry)
                if len(found) == limit:
                    return FindPage(found, Cursor(entry.revision, entry.key), False)
        return FindPage(found, None, False)

    def sum(self, viewer: Viewer, wanted: Find) -> Sum:
        """Count entries and their bytes, looking at so many at the most."""
        count = size = 0
        for entry, end in self._looked_at(viewer, wanted):
            if entry is None:
                return Sum(count, size, True, end)
            if self._passes(viewer, wanted, entry):
                count, size = count + 1, size + entry.size
        return Sum(count, size, True, None)

    def _looked_at(self, viewer: Viewer, wanted: Find) -> Iterator[tuple[Entry | None, Cursor | None]]:
        """List candidates, and last, where it stops before the end, None with the place to go on from."""
        last: Entry | None = None
        for looked, entry in enumerate(self._candidates(wanted)):
            if last is not None and looked >= LOOK_COUNT_MAX:
                end = _place_between(viewer, last, entry)
                if end is not None:
                    yield None, end
                    return
            yield entry, None
            last = entry

    def _candidates(self, wanted: Find) -> Iterator[Entry]:
        """List entries by the rarest tag, the owner, or all of them."""
        label = ""
        if wanted.tags:
            label = min(map(label_of_tag, wanted.tags), key=lambda label: self.labels.get(label, 0))
        elif wanted.owner is not None:
            label = f"o{wanted.owner}"
        end = None if wanted.before is None else (label, wanted.before.revision, wanted.before.key)
        for _, _, key in self.order.keys(prefix=(label,), end=end, reverse=True):
            yield self.kept[key]

    @staticmethod
    def _passes(viewer: Viewer, wanted: Find, entry: Entry) -> bool:
        return (
            viewer.may_see(entry)
            and (wanted.owner is None or entry.owner == wanted.owner)
            and all(tag in entry.tags for tag in wanted.tags)
        )

    # moving

    def pack(self, key: str) -> Packed:
        """Return an entry with its value."""
        entry = self.kept[key]
        return Packed(entry, [self.parts[entry.number, at] for at in range(_part_count(entry))])

    def unpack(self, packed: Packed) -> None:
        """Store an entry that comes from another bucket, as it was there."""
        old = self.kept.get(packed.entry.key)
        if old is not None:
            # Only where a bucket was lost and its keys began anew: the later one counts.
            if old.revision >= packed.entry.revision:
                return
            self._take_out(old)
        self._bring_in(packed.entry, packed.parts)

    def drop(self, key: str) -> None:
        """Drop an entry that another bucket has now."""
        entry = self.kept.get(key)
        if entry is not None:
            self._take_out(entry)


def _place_between(viewer: Viewer, last: Entry, following: Entry) -> Cursor | None:
    """Return a place between two entries that names none which the viewer may not see, or None."""
    if viewer.may_see(last):
        return Cursor(last.revision, last.key)
    return Cursor(last.revision, "") if following.revision < last.revision else None


def _labels(entry: Entry) -> list[str]:
    """Return what an entry is found by in its bucket."""
    return ["", f"o{entry.owner}", *map(label_of_tag, entry.tags)]


def _noted_labels(entry: Entry) -> list[str]:
    """Return what the index is told of an entry: tags of a public one, readers of a private one."""
    if entry.private:
        return sorted({label_of_reader(who) for who in (entry.owner, *entry.readers)})
    return [label_of_tag(tag) for tag in entry.tags]


def _part_count(entry: Entry) -> int:
    return -(-entry.size // PART_SIZE_BYTES)
