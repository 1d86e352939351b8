"""Snapshots leave the node and come in: metadata and data are read and uploaded in chunks.

IC interface specification, "IC method read_canister_snapshot_metadata" and those around it. The archive
(module `snapshot_archive`) stands for stable memory, the module's file for the Wasm module; Wasm memory and
globals do not exist here, and chunks of the chunk store are no part of a snapshot. What is uploaded is looked
at when it is loaded, as its chunks come in any order.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import (
    CERTIFIED_DATA_SIZE_BYTES_MAX,
    MODULE_SIZE_BYTES_MAX,
    SNAPSHOT_SIZE_BYTES_MAX,
    SNAPSHOT_TRANSFER_SIZE_BYTES_MAX,
)
from cannery.replica import keys
from cannery.replica.management.access import controllers_or_operators, snapshot_readers
from cannery.replica.management.methods import Method, status_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.snapshot_store import (
    Part,
    SnapshotRecord,
    begin_snapshot,
    check_funded,
    find_snapshot,
    read_part,
    snapshot_id,
    store_snapshot,
    write_part,
)
from cannery.replica.management.snapshot_types import (
    GlobalTimer,
    LowMemoryHook,
    ReadSnapshotDataArgs,
    SnapshotArgs,
    SnapshotData,
    SnapshotMetadata,
    SnapshotSource,
    UploadedSnapshot,
    UploadSnapshotDataArgs,
    UploadSnapshotMetadataArgs,
)

_PARTS = {"wasm_module": Part.MODULE, "stable_memory": Part.ARCHIVE}


def _module_bytes(request: Request, record: SnapshotRecord) -> int:
    if record.uploaded:
        return record.module_bytes
    module = request.state.module(record.module_hash)
    return 0 if module is None else module.size_bytes


def _read_metadata(request: Request, args: SnapshotArgs) -> SnapshotMetadata:
    record = find_snapshot(request.reader, args.canister_id.raw, args.snapshot_id)
    uploaded = record.uploaded
    return SnapshotMetadata(
        source=SnapshotSource.metadata_upload() if uploaded else SnapshotSource.taken_from_canister(),
        taken_at_timestamp=record.taken_ns,
        wasm_module_size=_module_bytes(request, record),
        globals=[],
        wasm_memory_size=0,
        stable_memory_size=record.archive_bytes,
        wasm_chunk_store=[],
        canister_version=record.version,
        certified_data=record.certified_data or b"",
        global_timer=GlobalTimer.active(record.timer_ns) if record.timer_ns else GlobalTimer.inactive(),
        on_low_wasm_memory_hook_status=LowMemoryHook.condition_not_satisfied(),
    )


def _read_data(request: Request, args: ReadSnapshotDataArgs) -> SnapshotData:
    canister_id, kind = args.canister_id.raw, args.kind
    record = find_snapshot(request.reader, canister_id, args.snapshot_id)
    if kind.tag == "wasm_chunk":
        raise _refused("A snapshot holds no chunks of the chunk store", "IC0406")
    wanted = getattr(kind, kind.tag)
    size_max = {
        "wasm_module": _module_bytes(request, record),
        "stable_memory": record.archive_bytes,
    }.get(kind.tag, 0)
    if wanted.size > SNAPSHOT_TRANSFER_SIZE_BYTES_MAX or wanted.offset + wanted.size > size_max:
        raise _refused(
            f"The bytes {wanted.offset} to {wanted.offset + wanted.size} cannot be read: the {kind.tag} of "
            f"this snapshot has {size_max} bytes, and one call reads {SNAPSHOT_TRANSFER_SIZE_BYTES_MAX}",
            "IC0408",
        )
    if kind.tag == "wasm_module" and not record.uploaded:
        stored = request.reader.get(keys.hashed(keys.MODULE_FILES, record.module_hash)) or b""
        return SnapshotData(stored[wanted.offset : wanted.offset + wanted.size])
    part = _PARTS.get(kind.tag, Part.ARCHIVE)
    data = read_part(request.reader, canister_id, args.snapshot_id, record, part, wanted.offset, wanted.size)
    return SnapshotData(data)


def _upload_metadata(change: Change, args: UploadSnapshotMetadataArgs) -> UploadedSnapshot:
    canister_id = args.canister_id.raw
    for name, size, size_max in (
        ("the module", args.wasm_module_size, MODULE_SIZE_BYTES_MAX),
        ("the archive (stable_memory_size)", args.stable_memory_size, SNAPSHOT_SIZE_BYTES_MAX),
        ("Wasm memory", args.wasm_memory_size, 0),
        ("certified data", len(args.certified_data), CERTIFIED_DATA_SIZE_BYTES_MAX),
    ):
        if size > size_max:
            raise _refused(f"{name} has {size} bytes, and may have {size_max} at most", "IC0408")
    if args.globals:
        raise _refused("A Python canister has no globals: this is no snapshot of one", "IC0408")
    number = begin_snapshot(change, canister_id, args.replace_snapshot)
    timer = args.global_timer
    record = SnapshotRecord(
        taken_ns=change.request.now_ns,
        version=change.account(canister_id).version,
        uploaded=True,
        module_hash=b"",
        archive_bytes=args.stable_memory_size,
        module_bytes=args.wasm_module_size,
        certified_data=args.certified_data or None,
        timer_ns=timer.active if timer is not None and timer.tag == "active" else 0,
    )
    store_snapshot(change, canister_id, number, record)
    check_funded(change, canister_id)
    return UploadedSnapshot(snapshot_id(canister_id, number))


def _upload_data(change: Change, args: UploadSnapshotDataArgs) -> None:
    canister_id, kind = args.canister_id.raw, args.kind
    record = find_snapshot(change.message, canister_id, args.snapshot_id)
    if not record.uploaded:
        raise _refused("This snapshot was taken of a canister: nothing can be uploaded into it", "IC0409")
    part = _PARTS.get(kind.tag)
    if part is None:
        raise _refused(f"A snapshot of a Python canister has no {kind.tag}", "IC0408")
    offset = getattr(kind, kind.tag).offset
    size_max = record.part_bytes(part)
    if len(args.chunk) > SNAPSHOT_TRANSFER_SIZE_BYTES_MAX or offset + len(args.chunk) > size_max:
        raise _refused(
            f"{len(args.chunk)} bytes at {offset} do not fit: the {kind.tag} of this snapshot has {size_max} "
            f"bytes, and one call uploads {SNAPSHOT_TRANSFER_SIZE_BYTES_MAX}",
            "IC0408",
        )
    write_part(change.message, canister_id, args.snapshot_id, part, offset, args.chunk)
    change.message.state.note_work(0, len(args.chunk))


def _refused(text: str, error_code: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, text, error_code)


METHODS: tuple[Method, ...] = (
    status_method(
        "read_canister_snapshot_metadata",
        SnapshotArgs,
        SnapshotMetadata,
        snapshot_readers,
        _read_metadata,
        as_query=False,
    ),
    status_method(
        "read_canister_snapshot_data",
        ReadSnapshotDataArgs,
        SnapshotData,
        snapshot_readers,
        _read_data,
        as_query=False,
    ),
    update_method(
        "upload_canister_snapshot_metadata",
        UploadSnapshotMetadataArgs,
        UploadedSnapshot,
        controllers_or_operators,
        _upload_metadata,
    ),
    update_method(
        "upload_canister_snapshot_data", UploadSnapshotDataArgs, None, controllers_or_operators, _upload_data
    ),
)
