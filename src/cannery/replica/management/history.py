"""The history of a canister: who created it, changed its code and its controllers, and when.

IC interface specification, "IC method canister_info". The last `HISTORY_CHANGE_COUNT_MAX` changes are kept;
the count of all goes on in the canister's record.
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import IntEnum

import msgspec
from msgspec.structs import replace

from cannery.limits import HISTORY_CHANGE_COUNT_MAX
from cannery.ports import StoreReader
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.request import Change
from cannery.replica.management.snapshot_types import SnapshotSource
from cannery.replica.management.types import Change as ChangeShown
from cannery.replica.management.types import (
    ChangeDetails,
    ChangeOrigin,
    CodeDeployment,
    ControllersChange,
    Creation,
    DeploymentMode,
    FromCanister,
    FromUser,
    SnapshotLoad,
)
from cannery.replica.records import RecordDecoder, encode_record


class ChangeKind(IntEnum):
    """What changed."""

    CREATION = 1
    UNINSTALL = 2
    INSTALL = 3
    REINSTALL = 4
    UPGRADE = 5
    CONTROLLERS = 6
    LOAD_SNAPSHOT = 7


class LoadedSnapshot(msgspec.Struct, frozen=True, array_like=True):
    """Which snapshot was loaded; `owner` is empty where it is the canister's own."""

    owner: bytes
    snapshot_id: bytes
    version: int
    taken_ns: int
    uploaded: bool


class ChangeRecord(msgspec.Struct, frozen=True, array_like=True):
    """A change on disk. `controllers`, `module_hash` and `environment_hash` stand where the kind has them."""

    time_ns: int
    version: int
    by: bytes
    by_user: bool
    by_version: int | None
    kind: ChangeKind
    controllers: tuple[bytes, ...] = ()
    module_hash: bytes = b""
    environment_hash: bytes | None = None
    snapshot: LoadedSnapshot | None = None


CHANGE = RecordDecoder(ChangeRecord, "change")

_MODES = {
    ChangeKind.INSTALL: DeploymentMode.install,
    ChangeKind.REINSTALL: DeploymentMode.reinstall,
    ChangeKind.UPGRADE: DeploymentMode.upgrade,
}


def record_change(
    change: Change,
    canister_id: bytes,
    kind: ChangeKind,
    sender_version: int | None,
    *,
    controllers: tuple[bytes, ...] = (),
    module_hash: bytes = b"",
    environment_hash: bytes | None = None,
    snapshot: LoadedSnapshot | None = None,
) -> None:
    """Add a change, under the version that the canister has now, to its history; drop the oldest."""
    message, request = change.message, change.request
    canister = change.canister(canister_id)
    number = canister.change_count
    entry = ChangeRecord(
        request.now_ns,
        change.account(canister_id).version,
        request.caller,
        request.from_user,
        sender_version,
        kind,
        controllers,
        module_hash,
        environment_hash,
        snapshot,
    )
    message.put(keys.numbered(keys.HISTORY, canister_id, number), encode_record(entry))
    if number >= HISTORY_CHANGE_COUNT_MAX:
        message.put(keys.numbered(keys.HISTORY, canister_id, number - HISTORY_CHANGE_COUNT_MAX), None)
    message.put_canister(canister_id, replace(canister, change_count=number + 1))


def list_changes(reader: StoreReader, canister_id: bytes, count: int) -> list[ChangeShown]:
    """Give the last `count` changes, oldest first."""
    latest: list[ChangeShown] = []
    if count > 0:
        for _, data in reader.scan(*keys.owned_range(keys.HISTORY, canister_id), reverse=True):
            latest.append(_show(CHANGE.decode(data)))
            if len(latest) >= count:
                break
    latest.reverse()
    return latest


def history_size_bytes(reader: StoreReader, canister_id: bytes) -> int:
    """Give the bytes that a canister's history takes."""
    return sum(len(k) + len(v) for k, v in _entries(reader, canister_id))


def _entries(reader: StoreReader, canister_id: bytes) -> Iterator[tuple[bytes, bytes]]:
    return reader.scan(*keys.owned_range(keys.HISTORY, canister_id))


def _show(entry: ChangeRecord) -> ChangeShown:
    by = Principal(entry.by)
    origin = (
        ChangeOrigin.from_user(FromUser(by))
        if entry.by_user
        else ChangeOrigin.from_canister(FromCanister(by, entry.by_version))
    )
    return ChangeShown(entry.time_ns, entry.version, origin, _show_details(entry))


def _show_details(entry: ChangeRecord) -> ChangeDetails:
    controllers = [Principal(raw) for raw in entry.controllers]
    if entry.kind is ChangeKind.CREATION:
        return ChangeDetails.creation(Creation(controllers, entry.environment_hash))
    if entry.kind is ChangeKind.UNINSTALL:
        return ChangeDetails.code_uninstall()
    if entry.kind is ChangeKind.CONTROLLERS:
        return ChangeDetails.controllers_change(ControllersChange(controllers))
    if entry.snapshot is not None:
        return ChangeDetails.load_snapshot(_show_loaded(entry.snapshot))
    return ChangeDetails.code_deployment(CodeDeployment(_MODES[entry.kind](), entry.module_hash))


def _show_loaded(loaded: LoadedSnapshot) -> SnapshotLoad:
    return SnapshotLoad(
        Principal(loaded.owner) if loaded.owner else None,
        loaded.snapshot_id,
        loaded.version,
        loaded.taken_ns,
        SnapshotSource.metadata_upload() if loaded.uploaded else SnapshotSource.taken_from_canister(),
    )
