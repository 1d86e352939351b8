"""Files of the watching on disk: what old versions wrote must open for ever."""

from __future__ import annotations

import json
from pathlib import Path

from cannery.node.watching.alarm_file import (
    ALARMS,
    AlarmsRecord,
    NodeAlarmRecord,
    Position,
    ReceiverRecord,
)
from cannery.node.watching.canary import CANARY, CanaryRecord, HourRecord
from cannery.replica.records import encode_record

GOLDEN = Path(__file__).parents[1] / "formats" / "watch.json"
ALARMS_FILE = AlarmsRecord(
    {"log": ReceiverRecord({"aaaaa-aa": Position(5, 17), "node": Position(0, 3)}, 6, 1, 2, 9, "down")},
    [NodeAlarmRecord(0, 3, "disk_low", "5 MiB are free", False)],
    1,
    ["disk_low"],
)
CANARY_FILE = CanaryRecord([HourRecord(4, 5, 6)], 5, 6, [1, 2], 9, 1, "down", 17)


def test_files_are_written_and_read_as_in_the_golden_file() -> None:
    stored = json.loads(GOLDEN.read_text())
    assert encode_record(ALARMS_FILE).hex() == stored["alarms"]
    assert encode_record(CANARY_FILE).hex() == stored["canary"]
    assert ALARMS.decode(bytes.fromhex(stored["alarms"])) == ALARMS_FILE
    assert CANARY.decode(bytes.fromhex(stored["canary"])) == CANARY_FILE
