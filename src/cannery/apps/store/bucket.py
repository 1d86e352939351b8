"""A bucket: holds entries, answers clients directly, and says who holds what it does not.

Nobody but an entry's owner, those whom the owner names, and moderators read a private entry, and no call
between canisters is needed to tell them apart: the node stamps callers and roles. A put or deletion for
another bucket's entry is passed on once; a read says whom to ask.
"""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    continuation,
    encode_args,
    init,
    inspect_message,
    nat32,
    nat64,
    query,
    record,
    same_fleet,
    timer,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.fleet.member import Member
from cannery.fleet.place_holding import Holding
from cannery.fleet.place_types import Held, Load
from cannery.fleet.placement_migration import Forward, Group, Serve

from .entries import SLOTS_DEFAULT, Entries, Viewer, number_value, viewer_of
from .types import (
    MODERATOR_ROLE,
    NO_IDENTITY,
    WRITER_ROLE,
    BucketDoor,
    DeleteResult,
    Find,
    FindPage,
    Found,
    GetResult,
    IndexDoor,
    LabelNote,
    Packed,
    PartResult,
    Put,
    PutResult,
    Sum,
    Totals,
    fault_of,
    require_tags,
)

NOTE_RETRY_S = 10


@record
class Noting:
    """A put whose answer waits until the index knows of its labels."""

    result: PutResult
    notes: list[LabelNote]


class Bucket(Canister):
    """Hold entries."""

    member = Member()
    holding = Holding()
    entries = Entries()
    note_due = StableCell(bool, False)

    @init
    def start(self, ctx: Context, held: Held) -> None:
        """Begin empty, with the index's table."""
        self.holding.start(held)

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let nobody write without an identity; the methods check further."""
        return ctx.caller != Principal.anonymous()

    # writing

    @update
    def put(self, ctx: Context, put: Put) -> PutResult | Pending[PutResult]:
        """Store an entry under its key, in the place of the caller's own that was there."""
        return self._put(ctx, ctx.caller, put, is_forwarded=False)

    @update(only=same_fleet)
    def put_for(self, ctx: Context, caller: Principal, put: Put) -> PutResult | Pending[PutResult]:
        """Store an entry for somebody who asked another bucket."""
        return self._put(ctx, caller, put, is_forwarded=True)

    def _put(
        self, ctx: Context, caller: Principal, put: Put, *, is_forwarded: bool
    ) -> PutResult | Pending[PutResult]:
        fault = fault_of(put) or _fault_of_writer(ctx, caller)
        if fault is not None:
            return PutResult.refused(fault)
        route = self.holding.route(ctx, put.key.encode(), is_forwarded=is_forwarded)
        if isinstance(route, Forward):
            return ctx.call(BucketDoor(route.to).put_for(caller, put))
        if not isinstance(route, Serve):
            return PutResult.moved(route.to)
        result = self.entries.put(ctx, caller, put)
        if result.tag == "full":
            self.holding.tell(ctx)
        if result.tag != "ok":
            return result
        self.holding.note_change(ctx)
        return self._note_labels(ctx, result)

    @update
    def delete(self, ctx: Context, key: str, expect: nat64 | None) -> DeleteResult | Pending[DeleteResult]:
        """Delete an entry of the caller's own, or as a moderator; `expect` is the revision it must have."""
        return self._delete(ctx, ctx.caller, key, expect, is_forwarded=False)

    @update(only=same_fleet)
    def delete_for(
        self, ctx: Context, caller: Principal, key: str, expect: nat64 | None
    ) -> DeleteResult | Pending[DeleteResult]:
        """Delete an entry for somebody who asked another bucket."""
        return self._delete(ctx, caller, key, expect, is_forwarded=True)

    def _delete(
        self, ctx: Context, caller: Principal, key: str, expect: int | None, *, is_forwarded: bool
    ) -> DeleteResult | Pending[DeleteResult]:
        route = self.holding.route(ctx, key.encode(), is_forwarded=is_forwarded)
        if isinstance(route, Forward):
            return ctx.call(BucketDoor(route.to).delete_for(caller, key, expect))
        if not isinstance(route, Serve):
            return DeleteResult.moved(route.to)
        result = self.entries.delete(viewer_of(ctx, caller), key, expect)
        if result.tag == "ok":
            self.holding.note_change(ctx)
            self._note_later(ctx)
        return result

    # reading

    @query
    def get(self, ctx: Context, key: str) -> GetResult:
        """Return an entry with the first part of its value."""
        route = self.holding.route(ctx, key.encode())
        if not isinstance(route, Serve):
            return GetResult.moved(route.to)
        entry = self.entries.kept.get(key)
        if entry is None or not viewer_of(ctx, ctx.caller).may_see(entry):
            return GetResult.absent()
        return GetResult.ok(Found(entry, self.entries.part(entry, 0), ctx.id))

    @query
    def get_part(self, ctx: Context, key: str, revision: nat64, part: nat32) -> PartResult:
        """Return a part of an entry's value, counted from 0."""
        route = self.holding.route(ctx, key.encode())
        if not isinstance(route, Serve):
            return PartResult.moved(route.to)
        entry = self.entries.kept.get(key)
        if entry is None or not viewer_of(ctx, ctx.caller).may_see(entry):
            return PartResult.absent()
        return (
            PartResult.ok(self.entries.part(entry, part))
            if entry.revision == revision
            else PartResult.changed()
        )

    @query
    def find(self, ctx: Context, wanted: Find) -> FindPage:
        """List entries of this bucket that the caller may see, newest first."""
        require_tags(ctx, wanted.tags)
        page = self.entries.find(viewer_of(ctx, ctx.caller), wanted)
        if not self.holding.is_moving:
            return page
        mine = [entry for entry in page.entries if self._serves(ctx, entry.key)]
        return FindPage(mine, page.next, self.holding.has_on_its_way())

    @query
    def totals(self, ctx: Context) -> Totals:
        """Say how much this bucket holds."""
        return self.entries.totals.get()

    @query(only=same_fleet)
    def sum_for(self, ctx: Context, caller: Principal, wanted: Find) -> Sum:
        """Count entries that somebody may see who asked the index."""
        viewer: Viewer = viewer_of(ctx, caller)
        found = self.entries.sum(viewer, wanted)
        return Sum(found.count, found.size_bytes, not self.holding.has_on_its_way(), found.next)

    def _serves(self, ctx: Context, key: str) -> bool:
        return isinstance(self.holding.route(ctx, key.encode()), Serve)

    # labels that the index is told of

    def _note_labels(self, ctx: Context, result: PutResult) -> PutResult | Pending[PutResult]:
        """Tell the index of labels that are new here, before the put is answered: whoever asks it for them
        afterwards finds this bucket.
        """
        notes = self.entries.notes()
        if not any(note.is_there for note in notes):
            if notes:
                self._note_later(ctx)
            return result
        if ctx.fleet is None:
            return result
        try:
            return ctx.call(
                IndexDoor(ctx.fleet).labels_note(notes), then=self.noted, saved=Noting(result, notes)
            )
        except Reject as reject:
            ctx.log(f"the index is told of labels later: {reject.message}")
            self._note_later(ctx, after_s=NOTE_RETRY_S)
            return result

    @continuation
    def noted(self, ctx: Context, outcome: Outcome[None], saved: Noting) -> PutResult:
        """Answer a put; what the index does not know yet it is told later."""
        self._note_outcome(ctx, outcome, saved.notes)
        return saved.result

    def _note_later(self, ctx: Context, *, after_s: float = 0) -> None:
        if not self.note_due.get() and self.entries.notes():
            self.note_due.set(True)
            ctx.timer_set(self.note_now, after_s=after_s)

    @timer
    def note_now(self, ctx: Context) -> None:
        """Tell the index of labels that came and went."""
        self.note_due.set(False)
        notes = self.entries.notes()
        if not notes or ctx.fleet is None:
            return
        try:
            ctx.call(IndexDoor(ctx.fleet).labels_note(notes), then=self.noted_later, saved=notes)
        except Reject as reject:
            ctx.log(f"the index is told of labels later: {reject.message}")
            self._note_later(ctx, after_s=NOTE_RETRY_S)

    @continuation
    def noted_later(self, ctx: Context, outcome: Outcome[None], saved: list[LabelNote]) -> None:
        """Go on where nobody waits."""
        self._note_outcome(ctx, outcome, saved)

    def _note_outcome(self, ctx: Context, outcome: Outcome[None], notes: list[LabelNote]) -> None:
        if not outcome.ok:
            ctx.log(f"the index is told of labels later: {outcome.reject_message}")
            self._note_later(ctx, after_s=NOTE_RETRY_S)
            return
        self.entries.noted(notes)
        self._note_later(ctx)
        if self.holding.is_moving and self.place_is_settled():
            self.holding.tell(ctx)

    # what placement asks

    def place_load(self, ctx: Context) -> Load:
        """Say how full this bucket is."""
        totals = self.entries.totals.get()
        capacity = number_value(ctx, "bucket_slots", SLOTS_DEFAULT)
        return Load(capacity, totals.used_slots, totals.count, totals.size_bytes)

    def place_groups(self, after: bytes | None) -> Iterator[Group]:
        """List entries behind a key, in order."""
        start = None if after is None else after.decode() + "\x00"
        for key, entry in self.entries.kept.items(start=start):
            yield Group(key.encode(), entry.slots, entry.size)

    def place_pack(self, name: bytes) -> bytes:
        """Write an entry with its value."""
        return encode_args(self.entries.pack(name.decode()))

    def place_unpack(self, ctx: Context, name: bytes, data: bytes) -> None:
        """Store an entry that comes from another bucket."""
        (packed,) = decoder((type_of(Packed),))(data)
        assert isinstance(packed, Packed), "that is the hint's class"
        self.entries.unpack(packed)
        self._note_later(ctx)

    def place_drop(self, ctx: Context, name: bytes) -> None:
        """Drop an entry that another bucket has now."""
        self.entries.drop(name.decode())
        self._note_later(ctx)

    def place_is_settled(self) -> bool:
        """Say whether the index knows of all labels here."""
        return not any(note.is_there for note in self.entries.notes())


def _fault_of_writer(ctx: Context, caller: Principal) -> str | None:
    """Say why somebody may not write, or None: without the value `writers` everybody with an identity may."""
    if caller == Principal.anonymous():
        return NO_IDENTITY
    if ctx.fleet_value("writers") != "role":
        return None
    if ctx.has_role(WRITER_ROLE, caller) or ctx.has_role(MODERATOR_ROLE, caller):
        return None
    return f"{caller} may not write here: an operator gives the role {WRITER_ROLE}"
