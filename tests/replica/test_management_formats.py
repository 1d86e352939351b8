"""Records of the management canister on disk: files written by old versions must open for ever."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from cannery.replica.management.history import CHANGE, ChangeKind, ChangeRecord
from cannery.replica.management.running import STOP_WAITER, StopWaiter
from cannery.replica.records import CallOrigin, IngressOrigin, encode_record

GOLDEN = Path(__file__).parents[1] / "formats" / "management_records.json"

CHANGES = {
    "change creation": ChangeRecord(
        5, 0, b"\x01\x02", True, None, ChangeKind.CREATION, (b"\x01", b"\x02"), b"", bytes(range(32))
    ),
    "change upgrade": ChangeRecord(6, 3, b"\x01", False, 9, ChangeKind.UPGRADE, (), bytes(32)),
    "change uninstall": ChangeRecord(7, 4, b"\x04", True, None, ChangeKind.UNINSTALL),
}
WAITERS = {
    "stop of a user": StopWaiter(IngressOrigin(bytes(32), b"\x07", 8, b""), 9, 0),
    "stop of a canister": StopWaiter(CallOrigin(b"\x01\x02", 3), 4, 5),
}


@pytest.mark.parametrize("name", sorted([*CHANGES, *WAITERS]))
def test_a_record_reads_and_writes_as_ever(name: str) -> None:
    stored = bytes.fromhex(json.loads(GOLDEN.read_text())[name])
    if name in CHANGES:
        assert CHANGE.decode(stored) == CHANGES[name]
        assert encode_record(CHANGES[name]) == stored
    else:
        assert STOP_WAITER.decode(stored) == WAITERS[name]
        assert encode_record(WAITERS[name]) == stored
