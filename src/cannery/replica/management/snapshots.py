"""Snapshots of canisters are taken, listed and deleted.

IC interface specification, "IC method take_canister_snapshot" and those around it. A snapshot holds the hash
of the module, collections with all keys and values, certified data and timers: never cycles, waiting
messages, calls, controllers, settings, log or chunks. It is taken between two messages, so it is one state
that the canister was in; nothing is stopped. The copy costs time in its round, hence its bounds.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import SNAPSHOT_KEY_COUNT_MAX, SNAPSHOT_SIZE_BYTES_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.access import controllers, controllers_or_operators, snapshot_readers
from cannery.replica.management.empty import uninstall
from cannery.replica.management.methods import Method, status_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.snapshot_store import (
    Part,
    SnapshotRecord,
    begin_snapshot,
    check_funded,
    list_records,
    remove_snapshot,
    snapshot_id,
    store_snapshot,
)
from cannery.replica.management.snapshot_types import Snapshot, SnapshotArgs, TakeSnapshotArgs
from cannery.replica.management.types import CanisterIdRecord
from cannery.replica.snapshot_archive import ArchiveHead, ArchiveWriter
from cannery.replica.snapshot_build import build_head


def _take(change: Change, args: TakeSnapshotArgs) -> Snapshot:
    canister_id, message = args.canister_id.raw, change.message
    canister, account = change.canister(canister_id), change.account(canister_id)
    if canister.module_hash is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {args.canister_id} is empty: there is nothing to take a snapshot of",
            "IC0537",
        )
    if account.memory_bytes > SNAPSHOT_SIZE_BYTES_MAX:
        raise _too_large(args.canister_id, f"{account.memory_bytes} bytes")
    number = begin_snapshot(change, canister_id, args.replace_snapshot)
    head = build_head(message, canister_id, canister, canister.module_hash)
    size_bytes = _copy(change, args.canister_id, number, head)
    record = SnapshotRecord(
        taken_ns=change.request.now_ns,
        version=account.version,
        uploaded=False,
        module_hash=canister.module_hash,
        archive_bytes=size_bytes,
        module_bytes=0,
        certified_data=message.get(keys.owned(keys.CERTIFIED, canister_id)),
        timer_ns=min((timer.due_ns for timer in head.timers), default=0),
    )
    store_snapshot(change, canister_id, number, record)
    if args.uninstall_code:
        uninstall(change, canister_id, args.sender_canister_version)
    check_funded(change, canister_id)
    return _show(canister_id, number, record)


def _copy(change: Change, canister: Principal, number: int, head: ArchiveHead) -> int:
    """Copy the stable state behind a head into the pages of a snapshot; give the archive's size."""
    message, canister_id = change.message, canister.raw

    def put(page: int, data: bytes) -> None:
        message.put(keys.snapshot_page_key(canister_id, number, Part.ARCHIVE, page), data)

    writer = ArchiveWriter(head, put)
    start, end = keys.owned_range(keys.STABLE, canister_id)
    for key, value in message.scan(start, end):
        writer.add(key[len(start) :], value)
        if writer.entry_count > SNAPSHOT_KEY_COUNT_MAX:
            raise _too_large(canister, f"more than {SNAPSHOT_KEY_COUNT_MAX} keys")
        if writer.size_bytes > SNAPSHOT_SIZE_BYTES_MAX:
            raise _too_large(canister, f"{writer.size_bytes} bytes and more")
    writer.close()
    message.state.note_work(writer.entry_count, writer.size_bytes)
    return writer.size_bytes


def _too_large(canister: Principal, what: str) -> Reject:
    return Reject(
        RejectCode.CANISTER_REJECT,
        f"Canister {canister} has {what} of stable state: a snapshot has at most {SNAPSHOT_SIZE_BYTES_MAX} "
        f"bytes and {SNAPSHOT_KEY_COUNT_MAX} keys, as it is copied in one message",
        "IC0406",
    )


def _list(request: Request, args: CanisterIdRecord) -> list[Snapshot]:
    canister_id = args.canister_id.raw
    return [_show(canister_id, number, found) for number, found in list_records(request.reader, canister_id)]


def _show(canister_id: bytes, number: int, record: SnapshotRecord) -> Snapshot:
    return Snapshot(snapshot_id(canister_id, number), record.taken_ns, record.size_bytes)


def _delete(change: Change, args: SnapshotArgs) -> None:
    remove_snapshot(change, args.canister_id.raw, args.snapshot_id)


METHODS: tuple[Method, ...] = (
    update_method("take_canister_snapshot", TakeSnapshotArgs, Snapshot, controllers, _take),
    status_method(
        "list_canister_snapshots", CanisterIdRecord, list[Snapshot], snapshot_readers, _list, as_query=False
    ),
    update_method("delete_canister_snapshot", SnapshotArgs, None, controllers_or_operators, _delete),
)
