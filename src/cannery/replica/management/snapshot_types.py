"""Candid types of the methods about snapshots: arguments and results, as in `ic.did` 0.66.

Wasm memory, globals and the hook of low Wasm memory stand in them for clients' sake: Python canisters have
none. What the methods do stands in `snapshots`, `snapshot_load` and `snapshot_transfer`.
"""

from __future__ import annotations

from cannery.candid.python import Case, Variant, float32, int32, int64, nat, nat64, record, variant
from cannery.protocol.principal import Principal


@record
class Snapshot:
    """A snapshot in a list; `total_size` is what it counts in its canister's memory size."""

    id: bytes
    taken_at_timestamp: nat64
    total_size: nat64


@record
class TakeSnapshotArgs:
    """Arguments of `take_canister_snapshot`."""

    canister_id: Principal
    replace_snapshot: bytes | None = None
    uninstall_code: bool | None = None
    sender_canister_version: nat64 | None = None


@record
class LoadSnapshotArgs:
    """Arguments of `load_canister_snapshot`; the snapshot may be another canister's."""

    canister_id: Principal
    snapshot_id: bytes
    sender_canister_version: nat64 | None = None


@record
class SnapshotArgs:
    """A canister and one of its snapshots."""

    canister_id: Principal
    snapshot_id: bytes


@variant
class SnapshotSource(Variant):
    """Where a snapshot comes from."""

    taken_from_canister: Case[None]
    metadata_upload: Case[None]


@variant
class SnapshotGlobal(Variant):
    """A global of a Wasm module."""

    i32: Case[int32]
    i64: Case[int64]
    f32: Case[float32]
    f64: Case[float]
    v128: Case[nat]


@variant
class GlobalTimer(Variant):
    """The next timer of a canister."""

    inactive: Case[None]
    active: Case[nat64]


@variant
class LowMemoryHook(Variant):
    """How far the hook of low Wasm memory is."""

    condition_not_satisfied: Case[None]
    ready: Case[None]
    executed: Case[None]


@record
class SnapshotChunk:
    """A chunk of the chunk store, by its hash."""

    hash: bytes


@record
class SnapshotMetadata:
    """Result of `read_canister_snapshot_metadata`; `stable_memory_size` is the size of the archive."""

    source: SnapshotSource
    taken_at_timestamp: nat64
    wasm_module_size: nat64
    globals: list[SnapshotGlobal]
    wasm_memory_size: nat64
    stable_memory_size: nat64
    wasm_chunk_store: list[SnapshotChunk]
    canister_version: nat64
    certified_data: bytes
    global_timer: GlobalTimer | None
    on_low_wasm_memory_hook_status: LowMemoryHook | None


@record
class SnapshotRange:
    """Bytes from `offset` on."""

    offset: nat64
    size: nat64


@variant
class SnapshotDataKind(Variant):
    """What is read; the archive stands for stable memory."""

    wasm_module: Case[SnapshotRange]
    wasm_memory: Case[SnapshotRange]
    stable_memory: Case[SnapshotRange]
    wasm_chunk: Case[SnapshotChunk]


@record
class ReadSnapshotDataArgs:
    """Arguments of `read_canister_snapshot_data`."""

    canister_id: Principal
    snapshot_id: bytes
    kind: SnapshotDataKind


@record
class SnapshotData:
    """Result of `read_canister_snapshot_data`."""

    chunk: bytes


@record
class UploadSnapshotMetadataArgs:
    """Arguments of `upload_canister_snapshot_metadata`; the archive has the timers, not `global_timer`."""

    canister_id: Principal
    wasm_module_size: nat64
    globals: list[SnapshotGlobal]
    wasm_memory_size: nat64
    stable_memory_size: nat64
    certified_data: bytes
    replace_snapshot: bytes | None = None
    global_timer: GlobalTimer | None = None
    on_low_wasm_memory_hook_status: LowMemoryHook | None = None


@record
class UploadedSnapshot:
    """Result of `upload_canister_snapshot_metadata`."""

    snapshot_id: bytes


@record
class SnapshotOffset:
    """The place where uploaded bytes go."""

    offset: nat64


@variant
class SnapshotDataOffset(Variant):
    """What is uploaded."""

    wasm_module: Case[SnapshotOffset]
    wasm_memory: Case[SnapshotOffset]
    stable_memory: Case[SnapshotOffset]
    wasm_chunk: Case[None]


@record
class UploadSnapshotDataArgs:
    """Arguments of `upload_canister_snapshot_data`."""

    canister_id: Principal
    snapshot_id: bytes
    kind: SnapshotDataOffset
    chunk: bytes
