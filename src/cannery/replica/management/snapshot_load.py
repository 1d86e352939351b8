"""A snapshot becomes a canister's state, whole or not at all.

IC interface specification, "IC method load_canister_snapshot". Open incoming calls are rejected and their
cycles returned; calls in flight are forgotten, the refunds of later responses credited. Calls that wait for
their turn run on the new state. Cycles, controllers, settings, log, history and chunks stay. An uploaded
snapshot is decoded first, under the watch: `snapshot_check` says what is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

from msgspec.structs import replace

from cannery.cdk.schema import decode_schema, encode_schema
from cannery.errors import Reject, RejectCode
from cannery.limits import SNAPSHOT_CHECK_CPU_NS_MAX
from cannery.ports import EntryKind, System
from cannery.replica import cycles, fleets, keys
from cannery.replica.activation import Activation
from cannery.replica.block import message_identity
from cannery.replica.calls import abandon_calls
from cannery.replica.management.access import check_controller
from cannery.replica.management.history import ChangeKind, LoadedSnapshot, record_change
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.modules import (
    bring_module,
    hold_module,
    read_manifest,
    release_module,
    store_schema,
)
from cannery.replica.management.request import Change, Request
from cannery.replica.management.snapshot_store import (
    Part,
    SnapshotRecord,
    check_funded,
    find_snapshot,
    owner_of,
    read_part,
)
from cannery.replica.management.snapshot_types import LoadSnapshotArgs
from cannery.replica.records import SchemaRecord, encode_record, schema_id
from cannery.replica.snapshot_archive import ArchiveError, ArchiveHead, read_entries, read_head
from cannery.replica.snapshot_check import CheckedHead, check_archive
from cannery.replica.targets import replaced
from cannery.replica.timers import drop_timers, restore_timer
from cannery.replica.view import show


def _may_load(request: Request, args: LoadSnapshotArgs) -> None:
    """Let in who controls the canister and the one that the snapshot belongs to, and operators."""
    target, owner = args.canister_id.raw, owner_of(args.snapshot_id)
    request.canister(target)
    if request.state.is_operator(request.caller):
        return
    check_controller(request, target)
    if owner != target and request.state.canister(owner) is not None:
        check_controller(request, owner)


def _load(change: Change, args: LoadSnapshotArgs) -> None:
    target, owner, message = args.canister_id.raw, owner_of(args.snapshot_id), change.message
    there = change.canister(target)
    if there.replaced_by:
        raise replaced(target, there)
    if message.canister(owner) is None:
        owner = target
    record = find_snapshot(message, owner, args.snapshot_id)
    archive = read_part(message, owner, args.snapshot_id, record, Part.ARCHIVE, 0, record.archive_bytes)
    head, start = _checked_head(change, archive, owner, args.snapshot_id, record)
    cycles.settle_storage(message, target)
    abandon_calls(message, target, f"Canister {show(target)} went back to a snapshot before it answered")
    drop_timers(message, target)
    _put_state(change, target, archive, start)
    message.put(keys.owned(keys.CERTIFIED, target), record.certified_data)
    for timer in head.timers:
        restore_timer(message, target, timer.number, timer.method, timer.due_ns, timer.every_ns, timer.saved)
    _put_code(change, target, head)
    check_funded(change, target)
    record_change(
        change,
        target,
        ChangeKind.LOAD_SNAPSHOT,
        args.sender_canister_version,
        snapshot=LoadedSnapshot(
            b"" if owner == target else owner,
            args.snapshot_id,
            record.version,
            record.taken_ns,
            record.uploaded,
        ),
    )


def _checked_head(
    change: Change, archive: bytes, owner: bytes, wanted: bytes, record: SnapshotRecord
) -> tuple[ArchiveHead, int]:
    """Read an archive's head and see that its module is here; raises `Reject`."""
    try:
        head, start = read_head(archive)
    except ArchiveError as error:
        raise _unfit(wanted, str(error)) from None
    if record.module_bytes:
        module = read_part(change.message, owner, wanted, record, Part.MODULE, 0, record.module_bytes)
        if sha256(module).digest() != head.module_hash:
            raise _unfit(wanted, "the uploaded module is not the one that its archive names")
        bring_module(change, module)
    if change.message.module(head.module_hash) is None:
        raise _unfit(wanted, f"its module {head.module_hash.hex()} is not on this node: install it first")
    change.message.program(head.module_hash)
    if record.uploaded:
        _bring(change, wanted, _check(change, archive, head, start, wanted))
    return head, start


def _put_state(change: Change, target: bytes, archive: bytes, start: int) -> None:
    message, prefix = change.message, keys.owned(keys.STABLE, target)
    message.delete_range(*keys.owned_range(keys.STABLE, target))
    count = size_bytes = 0
    put = message.put
    for key, value in read_entries(archive, start):
        put(prefix + key, value)
        count += 1
        size_bytes += len(key) + len(value)
    account = change.account(target)
    account.memory_bytes, account.key_count = size_bytes, count
    message.state.note_work(count, size_bytes)


def _put_code(change: Change, target: bytes, head: ArchiveHead) -> None:
    message, canister = change.message, change.canister(target)
    schema = store_schema(message, decode_schema(head.schema))
    release_module(message, canister.module_hash)
    hold_module(message, head.module_hash)
    changed = replace(
        canister, module_hash=head.module_hash, schema_id=schema, installed_ns=change.request.now_ns
    )
    message.put_canister(target, changed)
    fleets.leave_with_module(message, target)
    change.account(target).version += 1


# --- what was uploaded ---------------------------------------------------------------------------------


@dataclass(slots=True)
class _Check:
    """The check as the watch runs it: a program that reads an archive and keeps what it found."""

    change: Change
    archive: bytes
    head: ArchiveHead
    start: int
    found: CheckedHead | None = None
    fault: str = field(default="")

    def run(self, _system: System) -> None:
        message = self.change.message
        manifest = read_manifest(message, self.head.module_hash)
        try:
            self.found = check_archive(self.archive, self.head, self.start, manifest, message.type_bytes)
        except ArchiveError as error:
            self.fault = str(error)


def _check(change: Change, archive: bytes, head: ArchiveHead, start: int, wanted: bytes) -> CheckedHead:
    """Decode an uploaded archive under the watch; raises `Reject`."""
    message, owner = change.message, owner_of(wanted)
    account, runner = change.account(owner), message.state.runner
    activation = Activation(
        message,
        account,
        owner,
        b"",
        EntryKind.HEALTH,
        "",
        wanted,
        change.caller,
        ordinal=runner.ordinal + 1,
    )
    identity = message_identity(EntryKind.HEALTH, change.caller, owner, change.request.method, wanted)
    check = _Check(change, archive, head, start)
    failure = runner.run(check, activation, identity, SNAPSHOT_CHECK_CPU_NS_MAX)
    message.state.events.activations += 1
    if failure is not None:
        message.state.events.verdicts += failure.measured
        raise _unfit(wanted, failure.text)
    if check.found is None:
        raise _unfit(wanted, check.fault)
    return check.found


def _bring(change: Change, wanted: bytes, checked: CheckedHead) -> None:
    """Store types and collections that the node does not know: as with modules, only operators bring them."""
    message = change.message
    types = {number: keys.hashed(keys.TYPES, number) for number in checked.types}
    fresh = {number: key for number, key in types.items() if message.get(key) is None}
    schema = SchemaRecord(checked.schema.slots(), encode_schema(checked.schema))
    schema_key = keys.hashed(keys.SCHEMAS, schema_id(encode_record(schema)))
    knows_schema = message.get(schema_key) is not None
    if (fresh or not knows_schema) and not message.is_operator(change.caller):
        raise _unfit(
            wanted,
            "it has types or collections that no canister of this node had, and "
            f"{show(change.caller)} is no operator: only operators bring them. Ask one to load it",
        )
    for number, key in fresh.items():
        message.put(key, checked.types[number])


def _unfit(wanted: bytes, why: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, f"Snapshot {wanted.hex()} cannot be loaded: {why}", "IC0406")


METHODS: tuple[Method, ...] = (
    update_method("load_canister_snapshot", LoadSnapshotArgs, None, _may_load, _load),
)
