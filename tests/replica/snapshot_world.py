"""A canister with every kind of collection, timers and calls, for tests of snapshots; what they compare."""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Call,
    Canister,
    Context,
    Pending,
    Principal,
    RawOutcome,
    StableCell,
    StableLog,
    StableMap,
    StableSet,
    continuation,
    nat32,
    nat64,
    record,
    timer,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.replica import keys, records
from cannery.replica.management import snapshot_types as st
from cannery.replica.management import types as t
from tests.replica.management_world import OWNER, World

PIECE_BYTES = 1_000


@record
class Place:
    """A key of parts."""

    zone: str
    number: nat32


@record
class Note:
    """A value of parts."""

    text: str
    times: list[nat64]


class Keeper(Canister):
    """Keeps what it is told to, in every kind of collection."""

    plain = StableMap(nat64, Note)
    counted = StableMap(Place, str, counted=True)
    people = StableSet(Principal)
    words = StableSet(str, counted=True)
    lines = StableLog(Note)
    cell = StableCell(nat64, 7)

    @update
    def put(self, ctx: Context, key: nat64, text: str) -> None:
        """Put something everywhere."""
        self.plain.put(key, Note(text, [key, key + 1]))
        self.counted.put(Place(text, key % 7), text)
        self.people.add(Principal.self_authenticating(text.encode()))
        self.words.add(text)
        self.lines.append(Note(text, []))
        self.cell.set(key)

    @update
    def note(self, ctx: Context, key: nat64, text: str) -> None:
        """Put a value that may be long."""
        self.plain.put(key, Note(text, []))

    @update
    def remove(self, ctx: Context, key: nat64, text: str) -> None:
        """Remove something everywhere."""
        self.plain.delete(key)
        self.counted.delete(Place(text, key % 7))
        self.people.discard(Principal.self_authenticating(text.encode()))
        self.words.discard(text)
        self.lines.prune(before=self.lines.first + 1)
        self.cell.clear()

    @update
    def certify(self, ctx: Context, key: nat64, text: str) -> None:
        """Set certified data."""
        ctx.certified_data_set(text.encode()[:32])

    @update
    def wake(self, ctx: Context, key: nat64, text: str) -> None:
        """Set a timer, once or every so often."""
        if key % 2:
            ctx.timer_set(self.rung, saved=text, after_s=10 + key)
        else:
            ctx.timer_set(self.rung, saved=text, every_s=10 + key)

    @timer
    def rung(self, ctx: Context, text: str) -> None:
        """Keep what the timer brought."""
        self.words.add(f"rung {text}")

    @update
    def wait(self, ctx: Context, callee: Principal, method: str, arg: bytes) -> Pending[str]:
        """Call somebody with as many cycles as came along, and answer later."""
        return ctx.call(Call.raw(callee, method, arg), then=self.came, cycles=ctx.available)

    @continuation
    def came(self, ctx: Context, outcome: RawOutcome) -> str:
        """Answer."""
        self.words.add("came")
        return "came"


def tell(world: World, keeper: Principal, method: str, key: int, text: str) -> None:
    """Tell a keeper to do something."""
    arg = encoder((type_of(nat64), type_of(str)))((key, text))
    world.call(OWNER, keeper, method, arg)


def take(world: World, canister: Principal, **more: object) -> st.Snapshot:
    """Take a snapshot of a canister of the owner's."""
    args = st.TakeSnapshotArgs(canister, **more)  # type: ignore[arg-type]  # fields of the record
    found = world.manage(OWNER, "take_canister_snapshot", args)
    assert isinstance(found, st.Snapshot)
    return found


def load(world: World, canister: Principal, snapshot: bytes, sender: Principal = OWNER) -> None:
    """Load a snapshot into a canister."""
    world.manage(sender, "load_canister_snapshot", st.LoadSnapshotArgs(canister, snapshot))


def state_of(world: World, canister: Principal) -> dict[str, object]:
    """Give what a snapshot holds, as it stands in the store."""
    raw, store = canister.raw, world.store
    stored = store.get(keys.owned(keys.CANISTERS, raw))
    assert stored is not None
    found = records.CANISTER.decode(stored)
    timers = {
        keys.number_of(key): (timer.method, timer.due_ns, timer.every_ns, timer.saved)
        for key, data in store.scan(*keys.owned_range(keys.TIMERS, raw))
        for timer in [records.TIMER.decode(data)]
    }
    return {
        "module": found.module_hash,
        "schema": found.schema_id,
        "stable": {
            key[2 + len(raw) :]: value for key, value in store.scan(*keys.owned_range(keys.STABLE, raw))
        },
        "timers": timers,
        "certified": store.get(keys.owned(keys.CERTIFIED, raw)) or None,
    }


def read_metadata(world: World, canister: Principal, snapshot: bytes) -> st.SnapshotMetadata:
    """Read the metadata of a snapshot."""
    found = world.manage(OWNER, "read_canister_snapshot_metadata", st.SnapshotArgs(canister, snapshot))
    assert isinstance(found, st.SnapshotMetadata)
    return found


def download(
    world: World, canister: Principal, snapshot: bytes, kind: str, piece_bytes: int = PIECE_BYTES
) -> bytes:
    """Read a part of a snapshot piece by piece."""
    metadata = read_metadata(world, canister, snapshot)
    size = metadata.wasm_module_size if kind == "wasm_module" else metadata.stable_memory_size
    pieces = []
    for offset in range(0, size, piece_bytes):
        wanted = st.SnapshotRange(offset, min(piece_bytes, size - offset))
        part = getattr(st.SnapshotDataKind, kind)(wanted)
        args = st.ReadSnapshotDataArgs(canister, snapshot, part)
        pieces.append(world.manage(OWNER, "read_canister_snapshot_data", args).chunk)
    return b"".join(pieces)


def begin_upload(
    world: World, canister: Principal, archive_bytes: int, module_bytes: int = 0, certified: bytes = b""
) -> bytes:
    """Begin the upload of a snapshot and give its id."""
    args = st.UploadSnapshotMetadataArgs(canister, module_bytes, [], 0, archive_bytes, certified)
    made = world.manage(OWNER, "upload_canister_snapshot_metadata", args)
    assert isinstance(made.snapshot_id, bytes)
    return made.snapshot_id


def upload_piece(
    world: World, canister: Principal, snapshot: bytes, kind: str, offset: int, chunk: bytes
) -> None:
    """Upload some bytes of a snapshot."""
    part = getattr(st.SnapshotDataOffset, kind)(st.SnapshotOffset(offset))
    args = st.UploadSnapshotDataArgs(canister, snapshot, part, chunk)
    world.manage(OWNER, "upload_canister_snapshot_data", args)


def upload(
    world: World,
    canister: Principal,
    archive: bytes,
    module: bytes = b"",
    certified: bytes = b"",
    piece_bytes: int = 100_000,
) -> bytes:
    """Upload a snapshot, its pieces in reverse order, and give its id."""
    snapshot = begin_upload(world, canister, len(archive), len(module), certified)
    for kind, data in (("stable_memory", archive), ("wasm_module", module)):
        for offset in reversed(range(0, len(data), piece_bytes)):
            upload_piece(world, canister, snapshot, kind, offset, data[offset : offset + piece_bytes])
    return snapshot


def snapshots_of(world: World, canister: Principal) -> Iterator[st.Snapshot]:
    """Give a canister's snapshots."""
    yield from world.manage(OWNER, "list_canister_snapshots", t.CanisterIdRecord(canister))
