"""What the store app's canisters and their clients say to each other, and what is a fault in it."""

from __future__ import annotations

from cannery import Case, Context, Principal, Service, Variant, method, nat32, nat64, record, variant

VALUE_SIZE_BYTES_MAX = 100_000_000
PART_SIZE_BYTES = 1_048_576
KEY_SIZE_BYTES_MAX = 512
TAG_SIZE_BYTES_MAX = 128
TAG_COUNT_MAX = 20
READER_COUNT_MAX = 100
FIND_COUNT_MAX = 1_000
LOCATE_COUNT_MAX = 10_000
SUM_PART_COUNT_MAX = 10
MODERATOR_ROLE = "moderator"
WRITER_ROLE = "writer"
NO_IDENTITY = "write with an identity of your own: cannery identity new NAME, then --identity NAME"


@record
class Put:
    """What is put: `expect` is the revision that the entry must have now, 0 where there must be none."""

    key: str
    value: bytes
    tags: list[str]
    private: bool
    readers: list[Principal]
    expect: nat64 | None


@record
class Entry:
    """An entry without its value. `revision` rises with every put anywhere, so that it orders entries by
    time; `number` and `slots` are the bucket's own."""

    key: str
    owner: Principal
    tags: list[str]
    private: bool
    readers: list[Principal]
    created_ns: nat64
    updated_ns: nat64
    revision: nat64
    size: nat64
    slots: nat64
    number: nat64


@record
class Stored:
    """An entry is stored: where, under which revision, and whether the key is new."""

    canister: Principal
    revision: nat64
    is_new: bool


@variant
class PutResult(Variant):
    """What became of a put. `moved`: ask that bucket, or the index; `full`: in a moment there is another
    bucket; `conflict`: the entry has this revision now."""

    ok: Case[Stored]
    moved: Case[Principal | None]
    full: Case[str]
    conflict: Case[nat64]
    refused: Case[str]


@record
class Found:
    """An entry, the first part of its value (all of it up to `PART_SIZE_BYTES`), and who holds it."""

    entry: Entry
    value: bytes
    canister: Principal


@variant
class GetResult(Variant):
    """An entry, or who to ask; `absent` is also what a stranger hears of a private one."""

    ok: Case[Found]
    absent: Case[None]
    moved: Case[Principal | None]


@variant
class PartResult(Variant):
    """A part of a value; `changed`: the entry has another revision by now, get it anew."""

    ok: Case[bytes]
    changed: Case[None]
    absent: Case[None]
    moved: Case[Principal | None]


@variant
class DeleteResult(Variant):
    """What became of a deletion; `ok` says of which revision."""

    ok: Case[nat64]
    absent: Case[None]
    moved: Case[Principal | None]
    refused: Case[str]


@record
class Cursor:
    """A place in the order of entries, newest first: behind the entry with this revision and key."""

    revision: nat64
    key: str


@record
class Find:
    """Which entries: those with all of the tags, of an owner, behind a cursor; at most `limit`."""

    tags: list[str]
    owner: Principal | None
    before: Cursor | None
    limit: nat32


@record
class FindPage:
    """Entries of one bucket, newest first. `next` is where it stopped looking, None at the end;
    `on_its_way`: some are moving to another bucket this moment, ask again."""

    entries: list[Entry]
    next: Cursor | None
    on_its_way: bool


@record
class Where:
    """The buckets to ask; those of `arriving` once more, after the others, where there are any. Where the
    number of the table is another one afterwards, or others are arriving, entries moved meanwhile: ask again.
    """

    buckets: list[Principal]
    arriving: list[Principal]
    number: nat64


@record
class Sum:
    """How many entries the caller may see, and their bytes; not exact while some are on their way."""

    count: nat64
    size_bytes: nat64
    is_exact: bool
    next: Cursor | None


@record
class SumPlace:
    """Where counting goes on: in this bucket, behind a cursor or from its beginning, and then in those after
    it; `table_number` as it was when counting began."""

    bucket: Principal
    before: Cursor | None
    table_number: nat64


@record
class SumPage:
    """What was counted, and where to go on; None at the end."""

    sum: Sum
    next: SumPlace | None


@record
class Totals:
    """What a bucket holds, and the last revision and number that it gave."""

    count: nat64
    size_bytes: nat64
    used_slots: nat64
    revision: nat64
    number: nat64


@record
class BucketStats:
    """A bucket at a glance; one that cannot be asked now has the size and slots of its last report, and the
    count 0."""

    canister: Principal
    count: nat64
    size_bytes: nat64
    used_slots: nat64
    capacity_slots: nat64
    is_reached: bool


@record
class StoreStats:
    """The store at a glance: sums over all buckets."""

    count: nat64
    size_bytes: nat64
    used_slots: nat64
    capacity_slots: nat64
    table_number: nat64
    is_changing: bool
    buckets: list[BucketStats]


@record
class LabelNote:
    """A bucket has entries under a label, or has none any more; `number` tells later notes from earlier.

    Public entries stand under their tags, private ones under those who may read them: nobody learns from the
    index which tags others keep to themselves.
    """

    label: str
    is_there: bool
    number: nat64


@record
class Packed:
    """An entry with its value, on its way to another bucket."""

    entry: Entry
    parts: list[bytes]


class BucketDoor(Service):
    """A bucket, as its sisters and the index see it."""

    @method
    def put_for(self, caller: Principal, put: Put) -> PutResult: ...

    @method
    def delete_for(self, caller: Principal, key: str, expect: nat64 | None) -> DeleteResult: ...

    @method
    def totals(self) -> Totals: ...

    @method
    def sum_for(self, caller: Principal, wanted: Find) -> Sum: ...


class IndexDoor(Service):
    """The index, as its buckets see it."""

    @method
    def labels_note(self, notes: list[LabelNote]) -> None: ...


def label_of_tag(tag: str) -> str:
    """Return the label of public entries with a tag."""
    return f"t{tag}"


def label_of_reader(reader: Principal) -> str:
    """Return the label of private entries that somebody may read."""
    return f"p{reader}"


def fault_of_key(key: str) -> str | None:
    """Say what is wrong with a key, or None."""
    size = len(key.encode())
    if 1 <= size <= KEY_SIZE_BYTES_MAX:
        return None
    return f"a key has 1 to {KEY_SIZE_BYTES_MAX} bytes, this one {size}"


def fault_of(put: Put) -> str | None:
    """Say what is wrong with what is put, or None."""
    fault = fault_of_key(put.key) or fault_of_tags(put.tags)
    if fault is not None:
        return fault
    if len(put.value) > VALUE_SIZE_BYTES_MAX:
        return f"a value has at most {VALUE_SIZE_BYTES_MAX} bytes, this one {len(put.value)}"
    if len(put.readers) > READER_COUNT_MAX:
        return f"an entry has at most {READER_COUNT_MAX} readers, this one {len(put.readers)}"
    return None


def require_tags(ctx: Context, tags: list[str]) -> None:
    """Reject a question for tags that no entry can have."""
    fault = fault_of_tags(tags)
    if fault is not None:
        ctx.reject(fault)


def fault_of_tags(tags: list[str]) -> str | None:
    """Say what is wrong with tags, or None."""
    if len(tags) > TAG_COUNT_MAX:
        return f"an entry has at most {TAG_COUNT_MAX} tags, this one {len(tags)}"
    for tag in tags:
        size = len(tag.encode())
        if not 1 <= size <= TAG_SIZE_BYTES_MAX:
            return f"a tag has 1 to {TAG_SIZE_BYTES_MAX} bytes, {tag[:40]!r} has {size}"
    return None
