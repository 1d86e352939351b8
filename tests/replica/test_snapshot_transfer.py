"""Snapshots leave a node and come into another; what was uploaded is decoded before it becomes state."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st_

from cannery import Canister, Context, Principal, StableMap, nat64, update
from cannery.candid.codec import encoder
from cannery.candid.types import Bool, Nat64
from cannery.candid.wire import encode_type
from cannery.cdk.key_shapes import codec_of_shape
from cannery.cdk.manifest import type_number
from cannery.cdk.schema import decode_schema, encode_schema
from cannery.cdk.stable_keys import KeyTypeError
from cannery.limits import (
    MODULE_SIZE_BYTES_MAX,
    SNAPSHOT_PAGE_SIZE_BYTES,
    SNAPSHOT_SIZE_BYTES_MAX,
    SNAPSHOT_TRANSFER_SIZE_BYTES_MAX,
)
from cannery.node.watch import CpuWatch
from cannery.replica.management import snapshot_load
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as t
from cannery.replica.snapshot_archive import (
    ArchivedTimer,
    ArchiveError,
    ArchiveHead,
    ArchiveWriter,
    read_entries,
    read_head,
)
from tests.replica.management_world import OPERATOR, OWNER, Puppet, Rejected, World, make_puppet
from tests.replica.snapshot_world import (
    Keeper,
    begin_upload,
    download,
    load,
    read_metadata,
    state_of,
    take,
    tell,
    upload,
    upload_piece,
)

GOLDEN = Path(__file__).parents[1] / "formats" / "snapshot-1.bin"
STEPS = st_.lists(
    st_.tuples(
        st_.sampled_from(["put", "remove", "certify", "wake"]),
        st_.integers(0, 2**64 - 2_000),
        st_.sampled_from(["", "a", "b", "\x00\xff", "ü" * 80]),
    ),
    max_size=8,
)


@dataclass(frozen=True)
class Archive:
    """An archive taken apart."""

    head: ArchiveHead
    entries: tuple[tuple[bytes, bytes], ...]

    @classmethod
    def read(cls, data: bytes) -> Archive:
        head, start = read_head(data)
        return cls(head, tuple(read_entries(data, start)))

    def encode(self) -> bytes:
        pages: dict[int, bytes] = {}
        writer = ArchiveWriter(self.head, pages.__setitem__)
        for key, value in self.entries:
            writer.add(key, value)
        writer.close()
        assert list(pages) == list(range(writer.pages))
        assert all(len(page) == SNAPSHOT_PAGE_SIZE_BYTES for page in list(pages.values())[:-1])
        data = b"".join(pages.values())
        assert len(data) == writer.size_bytes
        return data

    def with_head(self, **changes: object) -> Archive:
        return replace(self, head=msgspec.structs.replace(self.head, **changes))

    def with_entry(self, key: bytes, value: bytes | None) -> Archive:
        entries = {**dict(self.entries), key: value}
        return replace(self, entries=tuple((k, v) for k, v in sorted(entries.items()) if v is not None))


def keeper_with_state(world: World, owner: Principal = OWNER) -> Principal:
    keeper = make_puppet(world, Keeper, owner=owner)
    if owner == OWNER:
        for key in (3, 5):
            tell(world, keeper, "put", key, f"text {key}")
        tell(world, keeper, "wake", 1_001, "timer")
        tell(world, keeper, "certify", 1, "proof")
    return keeper


# --- there and back ----------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(STEPS, st_.integers(1, 2_000), st_.integers(100, 3_000))
def test_a_canister_moves_to_another_node(
    steps: list[tuple[str, int, str]], read_bytes: int, write_bytes: int
) -> None:
    world, other = World(), World()
    keeper = make_puppet(world, Keeper)
    for method, key, text in steps:
        tell(world, keeper, method, 1_000 + key % 1_000 if method == "wake" else key, text)
    snapshot = take(world, keeper)
    read_bytes = max(read_bytes, snapshot.total_size // 20)
    metadata = read_metadata(world, keeper, snapshot.id)
    archive = download(world, keeper, snapshot.id, "stable_memory", read_bytes)
    module = download(world, keeper, snapshot.id, "wasm_module", 100_000)
    for number in range(3):
        make_puppet(other, Keeper if number else Puppet)
    home = make_puppet(other, Puppet)
    came = upload(other, home, archive, module, metadata.certified_data, max(write_bytes, len(archive) // 10))
    load(other, home, came)
    assert state_of(other, home) == state_of(world, keeper)
    again = take(other, home)
    assert download(other, home, again.id, "stable_memory", 100_000) == archive
    uploaded = read_metadata(other, home, came)
    assert uploaded.source.tag == "metadata_upload"
    assert (uploaded.stable_memory_size, uploaded.wasm_module_size) == (len(archive), len(module))
    assert download(other, home, came, "stable_memory", 100_000) == archive
    assert download(other, home, came, "wasm_module", 100_000) == module


def test_a_new_module_comes_with_an_operator_alone() -> None:
    world, other = World(), World()
    keeper = keeper_with_state(world)
    snapshot = take(world, keeper)
    archive = download(world, keeper, snapshot.id, "stable_memory")
    module = download(world, keeper, snapshot.id, "wasm_module", 100_000)
    home = make_puppet(other, Puppet)
    with pytest.raises(Rejected, match="is not on this node: install it first"):
        load(other, home, upload(other, home, archive))
    came = upload(other, home, archive, module)
    with pytest.raises(Rejected, match="only operators bring modules"):
        load(other, home, came)
    add_controller(other, home, OPERATOR)
    assert other.programs.module_of(Keeper) == module, "the other node can load it"
    load(other, home, came, OPERATOR)
    assert state_of(other, home)["stable"] == state_of(world, keeper)["stable"]


def test_new_types_come_with_an_operator_alone() -> None:
    world = World()
    keeper = keeper_with_state(world)
    archive = Archive.read(download(world, keeper, take(world, keeper).id, "stable_memory"))
    schema = decode_schema(archive.head.schema)
    first = schema.collections[0]
    number = type_number(Bool())
    changed = msgspec.structs.replace(
        first, name="gone", slot=b"\x40", kind="map", key="nat64", values=(number,)
    )
    wider = msgspec.structs.replace(schema, collections=(*schema.collections, changed))
    types = tuple(sorted({*archive.head.types, encode_type(Bool())}, key=lambda e: e))
    made = archive.with_head(schema=encode_schema(wider), types=types)
    made = made.with_entry(b"\x40" + (9).to_bytes(8, "big"), number + b"\x01")
    came = upload(world, keeper, made.encode())
    with pytest.raises(Rejected, match="types or collections that no canister of this node had"):
        load(world, keeper, came)
    add_controller(world, keeper, OPERATOR)
    load(world, keeper, came, OPERATOR)
    assert state_of(world, keeper)["stable"] == dict(made.entries)
    load(world, keeper, came)


def add_controller(world: World, canister: Principal, more: Principal) -> None:
    holders = t.CanisterSettings(controllers=[OWNER, more])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, holders))


# --- what does not fit -------------------------------------------------------------------------------------

CELL, COUNT, LINES, PLAIN, WORDS = b"\x01", b"\x02", b"\x03", b"\x05", b"\x06"
NOTE = PLAIN + (5).to_bytes(8, "big")


def _timer(archive: Archive, **changes: object) -> Archive:
    (timer,) = archive.head.timers
    return archive.with_head(timers=(msgspec.structs.replace(timer, **changes),))


def _value(archive: Archive, key: bytes) -> bytes:
    return dict(archive.entries)[key]


def _schema(archive: Archive, **changes: object) -> Archive:
    schema = decode_schema(archive.head.schema)
    first, *rest = schema.collections
    changed = msgspec.structs.replace(first, **changes)
    return archive.with_head(
        schema=encode_schema(msgspec.structs.replace(schema, collections=(changed, *rest)))
    )


FAULTS: dict[str, tuple[str, Callable[[Archive], Archive]]] = {
    "a value of an unknown type": (
        "plain: a value has the unknown type 3131313131313131",
        lambda a: a.with_entry(NOTE, b"11111111" + _value(a, NOTE)[8:]),
    ),
    "a value of another collection's type": (
        "plain: a value has the unknown type",
        lambda a: a.with_entry(NOTE, _value(a, CELL)),
    ),
    "a value without a type": ("plain: a value has the unknown type", lambda a: a.with_entry(NOTE, b"")),
    "a value that ends early": (
        "plain: a value of type .* does not decode",
        lambda a: a.with_entry(NOTE, _value(a, NOTE)[:-1]),
    ),
    "a value that goes on": (
        "plain: a value of type .* does not decode",
        lambda a: a.with_entry(NOTE, _value(a, NOTE) + b"\x00"),
    ),
    "a key in no slot": (
        "the key 7f00 is not of a collection's slot",
        lambda a: a.with_entry(b"\x7f\x00", b"x"),
    ),
    "a key in no long slot": (
        "the key 800100 is not of a collection's slot",
        lambda a: a.with_entry(b"\x80\x01\x00", b"x"),
    ),
    "a key of another type": (
        "plain: the key .* does not decode",
        lambda a: a.with_entry(NOTE + b"\x00", _value(a, NOTE)),
    ),
    "a value in a set": (
        "words: a set has no values",
        lambda a: a.with_entry(WORDS + b"text 3\x00\x00", b"x"),
    ),
    "a wrong count": (
        "counted: it has 2 entries and says 3",
        lambda a: a.with_entry(COUNT, (3).to_bytes(8, "big")),
    ),
    "a malformed count": ("counted: its count or bounds", lambda a: a.with_entry(COUNT, b"\x02")),
    "a count where none is kept": (
        "plain: it keeps no count",
        lambda a: a.with_entry(PLAIN, (2).to_bytes(8, "big")),
    ),
    "a log with wrong bounds": (
        "lines: an entry lies outside the bounds of the log",
        lambda a: a.with_entry(LINES, (1).to_bytes(8, "big") + (3).to_bytes(8, "big")),
    ),
    "a log without bounds": (
        "lines: an entry lies outside the bounds of the log",
        lambda a: a.with_entry(LINES, None),
    ),
    "a cell with a key": ("cell: the key .* is none of a cell", lambda a: a.with_entry(CELL + b"\x01", b"x")),
    "another module": ("module 0000.* is not on this node", lambda a: a.with_head(module_hash=bytes(32))),
    "no schema": ("collections do not fit its module", lambda a: a.with_head(schema=b"\x01")),
    "collections of another name": (
        "collections are not those of its module",
        lambda a: _schema(a, name="another"),
    ),
    "collections with other keys": ("its keys are text", lambda a: _schema(a, key="text")),
    "a slot that is none": ("ff is no slot of a collection", lambda a: _schema(a, slot=b"\xff")),
    "two collections in a slot": ("the same name or slot", lambda a: _schema(a, slot=b"\x02")),
    "a type that is none": ("a type of the archive does not decode", lambda a: a.with_head(types=(b"x",))),
    "a timer of no method": ("timers do not fit its module", lambda a: _timer(a, method="absent")),
    "a timer that was never set": ("not in order, or out of range", lambda a: _timer(a, number=0)),
    "a timer beyond all numbers": ("not in order, or out of range", lambda a: _timer(a, number=2**60)),
    "a timer before all times": ("time or interval is out of range", lambda a: _timer(a, due_ns=-1)),
    "a timer that never rests": ("time or interval is out of range", lambda a: _timer(a, every_ns=1)),
    "a timer with a damaged value": (
        "a value of type .* does not decode",
        lambda a: _timer(a, saved=a.head.timers[0].saved[:-1]),
    ),
    "a timer with a value of another type": (
        "timers do not fit its module",
        lambda a: _timer(a, saved=_value(a, CELL)),
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_does_not_decode_is_refused_with_a_clear_text(fault: str) -> None:
    text, change = FAULTS[fault]
    world = World()
    keeper = keeper_with_state(world)
    archive = Archive.read(download(world, keeper, take(world, keeper).id, "stable_memory"))
    came = upload(world, keeper, change(archive).encode())
    before = world.traces()
    with pytest.raises(Rejected, match=text) as caught:
        load(world, keeper, came)
    assert (caught.value.code, caught.value.error_code) == (4, "IC0406")
    assert world.traces() == before
    load(world, keeper, upload(world, keeper, archive.encode()))


def test_an_unfinished_upload_is_refused() -> None:
    world = World()
    keeper = keeper_with_state(world)
    archive = download(world, keeper, take(world, keeper).id, "stable_memory")
    came = begin_upload(world, keeper, len(archive))
    with pytest.raises(Rejected, match="its upload is not finished"):
        load(world, keeper, came)
    upload_piece(world, keeper, came, "stable_memory", 0, archive[:-20])
    with pytest.raises(Rejected, match=r"Snapshot .* cannot be loaded"):
        load(world, keeper, came)
    upload_piece(world, keeper, came, "stable_memory", len(archive) - 20, archive[-20:])
    load(world, keeper, came)


def test_a_module_that_is_not_the_archive_s_is_refused() -> None:
    world = World()
    keeper = keeper_with_state(world)
    archive = download(world, keeper, take(world, keeper).id, "stable_memory")
    with pytest.raises(Rejected, match="is not the one that its archive names"):
        load(world, keeper, upload(world, keeper, archive, b"\x00asm"))


class Idle(Canister):
    """Keeps values that are long to decode and short to store."""

    nothings = StableMap(nat64, list[None])

    @update
    def put(self, ctx: Context, count: nat64) -> None:
        """Keep many of nothing."""
        self.nothings.put(0, [None] * count)


@pytest.mark.parametrize("entry_count", [5, 20_000])
def test_an_archive_that_takes_too_long_to_decode_is_refused_in_a_replay_as_well(
    entry_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshot_load, "SNAPSHOT_CHECK_CPU_NS_MAX", 100_000_000)
    watch = CpuWatch()
    try:
        world = World(watch=watch)
        idle = make_puppet(world, Idle)
        world.call(OWNER, idle, "put", encoder((Nat64(),))((40_000,)))
        archive = Archive.read(download(world, idle, take(world, idle).id, "stable_memory"))
        ((key, value),) = archive.entries
        many = tuple((key[:-8] + number.to_bytes(8, "big"), value) for number in range(entry_count))
        came = upload(world, idle, replace(archive, entries=many).encode())
        if entry_count == 5:
            load(world, idle, came)
            return
        with pytest.raises(Rejected, match=r"more than 0\.1 s of CPU time"):
            load(world, idle, came)
        assert any(block.verdicts for block in world.blocks), "a replay obeys and decodes nothing"
    finally:
        watch.close()


@settings(max_examples=60, deadline=None)
@given(st_.data())
def test_a_damaged_archive_is_loaded_or_refused_and_nothing_else(data: st_.DataObject) -> None:
    world = World()
    keeper = keeper_with_state(world)
    archive = bytearray(download(world, keeper, take(world, keeper).id, "stable_memory"))
    for _ in range(data.draw(st_.integers(1, 3))):
        archive[data.draw(st_.integers(0, len(archive) - 1))] = data.draw(st_.integers(0, 255))
    came = upload(world, keeper, bytes(archive))
    before = world.traces()
    try:
        load(world, keeper, came)
    except Rejected:
        assert world.traces() == before
    else:
        assert state_of(world, keeper)["stable"] == dict(Archive.read(bytes(archive)).entries)


# --- bounds of the transfer --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"wasm_module_size": MODULE_SIZE_BYTES_MAX + 1}, "the module has"),
        ({"stable_memory_size": SNAPSHOT_SIZE_BYTES_MAX + 1}, "the archive .* has"),
        ({"stable_memory_size": 2**64 - 1}, "the archive .* has"),
        ({"wasm_memory_size": 1}, "Wasm memory has"),
        ({"certified_data": bytes(33)}, "certified data has"),
        ({"globals": [st.SnapshotGlobal.i32(5)]}, "no globals"),
    ],
)
def test_metadata_of_something_else_is_refused(change: dict[str, object], text: str) -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    args = replace(st.UploadSnapshotMetadataArgs(keeper, 5, [], 0, 5, b""), **change)  # type: ignore[arg-type]
    with pytest.raises(Rejected, match=text) as caught:
        world.manage(OWNER, "upload_canister_snapshot_metadata", args)
    assert caught.value.error_code == "IC0408"


def test_data_stays_within_its_snapshot() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    taken, came = take(world, keeper), begin_upload(world, keeper, 10, 5)
    size = read_metadata(world, keeper, taken.id).stable_memory_size
    for kind, offset, chunk, code in (
        ("stable_memory", 8, b"abc", "IC0408"),
        ("stable_memory", 2**64 - 1, b"a", "IC0408"),
        ("wasm_module", 6, b"", "IC0408"),
        ("wasm_memory", 0, b"", "IC0408"),
    ):
        with pytest.raises(Rejected) as caught:
            upload_piece(world, keeper, came, kind, offset, chunk)
        assert caught.value.error_code == code
    with pytest.raises(Rejected, match="nothing can be uploaded into it") as caught:
        upload_piece(world, keeper, taken.id, "stable_memory", 0, b"a")
    assert caught.value.error_code == "IC0409"
    for wanted in (
        st.SnapshotDataKind.stable_memory(st.SnapshotRange(size, 1)),
        st.SnapshotDataKind.stable_memory(st.SnapshotRange(2**64 - 1, 2**64 - 1)),
        st.SnapshotDataKind.wasm_memory(st.SnapshotRange(0, 1)),
        st.SnapshotDataKind.wasm_module(st.SnapshotRange(0, 2**40)),
        st.SnapshotDataKind.wasm_chunk(st.SnapshotChunk(bytes(32))),
    ):
        with pytest.raises(Rejected):
            world.manage(
                OWNER, "read_canister_snapshot_data", st.ReadSnapshotDataArgs(keeper, taken.id, wanted)
            )


def test_one_call_moves_a_bounded_part() -> None:
    world = World()
    keeper = make_puppet(world, Keeper)
    size = SNAPSHOT_TRANSFER_SIZE_BYTES_MAX
    came = begin_upload(world, keeper, 2 * size)
    upload_piece(world, keeper, came, "stable_memory", 1, bytes(range(256)) * (size // 256))
    with pytest.raises(Rejected, match="one call uploads"):
        upload_piece(world, keeper, came, "stable_memory", 0, bytes(size + 1))
    for range_, fits in ((st.SnapshotRange(5, size), True), (st.SnapshotRange(0, size + 1), False)):
        args = st.ReadSnapshotDataArgs(keeper, came, st.SnapshotDataKind.stable_memory(range_))
        if fits:
            chunk = world.manage(OWNER, "read_canister_snapshot_data", args).chunk
            assert chunk == (bytes(range(256)) * (size // 256))[4:] + bytes(4)
        else:
            with pytest.raises(Rejected, match="one call reads"):
                world.manage(OWNER, "read_canister_snapshot_data", args)


# --- the format --------------------------------------------------------------------------------------------

EXAMPLE = Archive(
    ArchiveHead(
        bytes(range(32)),
        b"\x01schema",
        (b"first type", b"second type"),
        (
            ArchivedTimer(4, "tick", 1_700_000_000_000_000_000, 0, b"12345678saved"),
            ArchivedTimer(5, "tock", 0, 7, b""),
        ),
    ),
    ((b"\x01", b"value"), (b"\x02key", b""), (b"\x80\x00long slot", b"x" * 300)),
)


def test_an_archive_is_written_and_read_as_ever() -> None:
    assert EXAMPLE.encode() == GOLDEN.read_bytes()
    assert Archive.read(GOLDEN.read_bytes()) == EXAMPLE


@given(st_.lists(st_.tuples(st_.binary(min_size=1, max_size=20), st_.binary(max_size=700_000)), max_size=4))
@settings(max_examples=30, deadline=None)
def test_archives_are_read_as_they_were_written(entries: list[tuple[bytes, bytes]]) -> None:
    made = replace(EXAMPLE, entries=tuple(sorted(dict(entries).items())))
    assert Archive.read(made.encode()) == made


@given(st_.binary(max_size=100), st_.integers(0, 500))
def test_the_decoder_takes_any_bytes(data: bytes, cut: int) -> None:
    golden = GOLDEN.read_bytes()
    for damaged in (data, golden[:cut], golden[:cut] + data + golden[cut:], golden[:cut] + data):
        with suppress(ArchiveError):
            Archive.read(damaged)


@pytest.mark.parametrize(
    "shape", ["", "(", "()", "{}", "(nat", "(nat; )", "{nat}", "nat nat", "float", "{a nat; b}", "(" * 50]
)
def test_a_shape_that_is_none_is_refused(shape: str) -> None:
    with pytest.raises(KeyTypeError):
        codec_of_shape(shape)


def test_keys_are_read_by_their_shape() -> None:
    import json

    for _, shape, _, data in json.loads((GOLDEN.parent / "stable_keys.json").read_text()):
        codec = codec_of_shape(shape)
        assert codec.encode(codec.decode(bytes.fromhex(data))).hex() == data
