"""Records of the management canister on disk: files written by old versions must open for ever."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest

from cannery.replica.fleet_records import FLEET, FLEET_MODULE, FleetModule, FleetRecord
from cannery.replica.management.history import CHANGE, ChangeKind, ChangeRecord, LoadedSnapshot
from cannery.replica.management.running import STOP_WAITER, StopWaiter
from cannery.replica.management.snapshot_store import SNAPSHOT, SnapshotRecord
from cannery.replica.management.upgrade_batch import (
    TARGET_RESULT,
    UPGRADE_BATCH,
    TargetResult,
    UpgradeBatch,
    UpgradeEnd,
)
from cannery.replica.records import CallOrigin, IngressOrigin, RecordDecoder, encode_record

GOLDEN = Path(__file__).parents[1] / "formats" / "management_records.json"

CHANGES = {
    "change creation": ChangeRecord(
        5, 0, b"\x01\x02", True, None, ChangeKind.CREATION, (b"\x01", b"\x02"), b"", bytes(range(32))
    ),
    "change upgrade": ChangeRecord(6, 3, b"\x01", False, 9, ChangeKind.UPGRADE, (), bytes(32)),
    "change uninstall": ChangeRecord(7, 4, b"\x04", True, None, ChangeKind.UNINSTALL),
    "change snapshot": ChangeRecord(
        8,
        5,
        b"\x04",
        True,
        None,
        ChangeKind.LOAD_SNAPSHOT,
        snapshot=LoadedSnapshot(b"\x05", bytes(7) + b"\x09\x05", 3, 6, True),
    ),
}
SNAPSHOTS = {
    "snapshot taken": SnapshotRecord(6, 3, False, bytes(32), 1000, 0, b"data", 7),
    "snapshot uploaded": SnapshotRecord(6, 3, True, b"", 1000, 500),
}
BATCHES = {
    "upgrade batch": UpgradeBatch(CallOrigin(b"\x01\x02", 3), 5, bytes(32), b"arg", True, b"\x06", 7, 8),
}
TARGET_RESULTS = {
    "upgrade result upgraded": TargetResult(b"\x01", UpgradeEnd.UPGRADED, bytes(32)),
    "upgrade result failed": TargetResult(b"\x01", UpgradeEnd.FAILED, b"", 5, "text", "IC0503"),
}
WAITERS = {
    "stop of a user": StopWaiter(IngressOrigin(bytes(32), b"\x07", 8, b""), 9, 0),
    "stop of a canister": StopWaiter(CallOrigin(b"\x01\x02", 3, b"\x06"), 4, 5),
}
FLEETS = [
    ("fleet", FleetRecord(5, 4, 3, 6, 2, 1, True), FLEET),
    ("fleet just founded", FleetRecord(5), FLEET),
    ("fleet module", FleetModule("user", 7), FLEET_MODULE),
]

ALL = (
    [(name, record, CHANGE) for name, record in CHANGES.items()]
    + [(name, record, STOP_WAITER) for name, record in WAITERS.items()]
    + [(name, record, SNAPSHOT) for name, record in SNAPSHOTS.items()]
    + FLEETS
    + [(name, record, UPGRADE_BATCH) for name, record in BATCHES.items()]
    + [(name, record, TARGET_RESULT) for name, record in TARGET_RESULTS.items()]
)


@pytest.mark.parametrize(("name", "record", "decoder"), ALL, ids=[name for name, _, _ in ALL])
def test_a_record_reads_and_writes_as_ever(
    name: str, record: msgspec.Struct, decoder: RecordDecoder[msgspec.Struct]
) -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())[name])
    assert decoder.decode(stored) == record
    assert encode_record(record) == stored


@pytest.mark.parametrize("name", ["change creation", "change upgrade", "change uninstall"])
def test_a_change_from_before_there_were_snapshots_opens(name: str) -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())[f"{name} before snapshots"])
    assert CHANGE.decode(stored) == CHANGES[name]


def test_a_waiter_from_before_there_were_fleets_opens() -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())["stop of a canister before fleets"])
    assert STOP_WAITER.decode(stored) == StopWaiter(CallOrigin(b"\x01\x02", 3), 4, 5)


@pytest.mark.parametrize("name", sorted(WAITERS))
def test_a_waiter_from_before_canisters_could_delete_themselves_opens(name: str) -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())[f"{name} before deletions"])
    assert STOP_WAITER.decode(stored) == WAITERS[name]
    assert WAITERS[name].heir is None


def test_a_fleet_from_before_there_were_subnets_opens() -> None:
    stored = json.loads(GOLDEN.read_text())
    assert FLEET.decode(bytes.fromhex(stored["fleet before subnets"])) == FleetRecord(5, 4, 3, 6, 2, 1)
    assert FLEET.decode(bytes.fromhex(stored["fleet just founded before subnets"])) == FleetRecord(5)


def test_a_batch_from_before_hooks_could_be_skipped_opens() -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())["upgrade batch before skipping"])
    assert UPGRADE_BATCH.decode(stored) == BATCHES["upgrade batch"]
    assert not BATCHES["upgrade batch"].skip_pre_upgrade
