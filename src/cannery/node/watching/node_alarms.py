"""Alarms about the node itself: the disk, the store, the canary. Each is told once when it begins, and once
when it is over.

What is seen is given from outside; nothing here measures or asks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cannery.limits import CANARY_FAILURE_COUNT_TOLD, NODE_ALARM_COUNT_MAX
from cannery.node.vitals import Vitals
from cannery.node.watching.alarm import CANARY_FAILING, DISK_LOW, NODE_SOURCE, STORE_FAILING, Alarm
from cannery.node.watching.alarm_file import AlarmsRecord, NodeAlarmRecord

_MIB: Final = 2**20
# The disk is well again only with a tenth more than the alarm's line: one that hovers there is told once.
_WELL_AGAIN: Final = 1.1


@dataclass(frozen=True, slots=True)
class CanaryState:
    """How the canary has fared: failures in a row, and the last one's reason."""

    failures_in_a_row: int = 0
    text: str = ""


class NodeAlarms:
    """Raises and ends the node's alarms, in the record that is kept on disk."""

    def __init__(self, record: AlarmsRecord, disk_low_bytes: int) -> None:
        self._record = record
        self._disk_low_bytes = disk_low_bytes

    def look(self, vitals: Vitals | None, canary: CanaryState, now_ns: int) -> bool:
        """Take in how the node is now (`vitals` None: it did not say); True where there is news."""
        before = self._record.next_index
        if vitals is not None:
            self._set(STORE_FAILING, vitals.refusing, "updates are taken again", now_ns)
            if vitals.machine is not None:
                self._look_at_disk(vitals.machine.free_bytes, now_ns)
        if canary.failures_in_a_row >= CANARY_FAILURE_COUNT_TOLD:
            text = f"{canary.failures_in_a_row} probes in a row failed: {canary.text}"
            self._set(CANARY_FAILING, text, "", now_ns)
        elif canary.failures_in_a_row == 0:
            self._set(CANARY_FAILING, None, "a probe succeeded", now_ns)
        return self._record.next_index != before

    def page(self, after: int | None, limit: int) -> list[Alarm]:
        """Give the alarms behind a number, oldest first."""
        first = 0 if after is None else after + 1
        return [_alarm(each) for each in self._record.node_alarms if each.index >= first][:limit]

    def _look_at_disk(self, free_bytes: int, now_ns: int) -> None:
        if free_bytes < self._disk_low_bytes:
            text = f"{free_bytes // _MIB} MiB are free where the node's data stands"
            self._set(DISK_LOW, text, "", now_ns)
        elif free_bytes >= self._disk_low_bytes * _WELL_AGAIN:
            self._set(DISK_LOW, None, f"{free_bytes // _MIB} MiB are free again", now_ns)

    def _set(self, kind: str, trouble: str | None, relief: str, now_ns: int) -> None:
        """Begin an alarm with a text of trouble, or end it where there is none, unless that was told."""
        record = self._record
        if (trouble is None) == (kind not in record.open_kinds):
            return
        text = relief if trouble is None else trouble
        record.node_alarms.append(
            NodeAlarmRecord(record.next_index, now_ns, kind, text, is_over=trouble is None)
        )
        record.next_index += 1
        del record.node_alarms[:-NODE_ALARM_COUNT_MAX]
        if trouble is None:
            record.open_kinds.remove(kind)
        else:
            record.open_kinds.append(kind)


def _alarm(record: NodeAlarmRecord) -> Alarm:
    return Alarm(
        NODE_SOURCE,
        NODE_SOURCE,
        record.index,
        record.at_ns,
        record.kind,
        NODE_SOURCE,
        record.text,
        record.is_over,
    )
