"""Alarms of a fleet: what an operator has to know, in a bounded log that the node reads and passes on.

An alarm is raised once for a subject and stays open until it is over; both are entries of the log. What to do
about each kind stands in docs/runbooks.md.
"""

from __future__ import annotations

from typing import Final, Literal

from cannery import Context, Principal, StableLog, StableMap, nat32, nat64, query, record
from cannery.cdk.component import Component
from cannery.fleet.rights import require_operator
from cannery.limits import ALARM_LOG_COUNT_MAX, ALARM_PAGE_COUNT_MAX, ALARM_TEXT_SIZE_CHARS_MAX

AlarmKind = Literal[
    "low_balance",
    "battery_low",
    "fleet_quota_reached",
    "quarantined",
    "rollout_stalled",
    "rollout_stopped",
    "custody_taken",
    "unlisted",
]
_OF_CHILDREN: Final[tuple[AlarmKind, ...]] = ("low_balance", "quarantined", "custody_taken", "unlisted")


@record
class AlarmEntry:
    """An alarm as it lies in the log."""

    at_ns: nat64
    kind: str
    subject: str
    text: str
    is_over: bool


@record
class Alarm:
    """An alarm: `kind` names its runbook, `subject` what it is about; `is_over`: an earlier one's end."""

    index: nat64
    at_ns: nat64
    kind: str
    subject: str
    text: str
    is_over: bool


class Alarms(Component, prefix="fleet.alarms"):
    """Raise, end and list alarms."""

    entries = StableLog(AlarmEntry)
    open = StableMap(tuple[str, str], nat64, counted=True)

    def begin(self, ctx: Context, kind: AlarmKind, subject: str, text: str) -> None:
        """Raise an alarm, unless it is open for this subject already."""
        if self.open.get((kind, subject)) is None:
            index = self._append(ctx, kind, subject, text, is_over=False)
            self.open.put((kind, subject), index)

    def end(self, ctx: Context, kind: AlarmKind, subject: str, text: str) -> None:
        """End an alarm, if it is open."""
        if self.open.get((kind, subject)) is not None:
            self.open.delete((kind, subject))
            self._append(ctx, kind, subject, text, is_over=True)

    def end_of(self, ctx: Context, child: Principal) -> None:
        """End the alarms about a child that is gone."""
        for kind in _OF_CHILDREN:
            self.end(ctx, kind, str(child), "it has left the fleet")

    def _append(self, ctx: Context, kind: str, subject: str, text: str, *, is_over: bool) -> int:
        text = text[:ALARM_TEXT_SIZE_CHARS_MAX]
        index = self.entries.append(AlarmEntry(ctx.now_ns, kind, subject, text, is_over))
        if index >= ALARM_LOG_COUNT_MAX:
            self.entries.prune(before=index - ALARM_LOG_COUNT_MAX + 1)
        ctx.log(f"{'alarm over' if is_over else 'alarm'} {kind} {subject}: {text}")
        return index

    @query
    def fleet_alarms(self, ctx: Context, after: nat64 | None, limit: nat32) -> list[Alarm]:
        """List alarms and their ends, oldest first, from the one behind `after`."""
        require_operator(ctx)
        page = self.entries.page(after=after, limit=max(1, min(limit, ALARM_PAGE_COUNT_MAX)))
        return [_alarm(index, entry) for index, entry in page.items]

    @query
    def fleet_alarms_open(self, ctx: Context) -> list[Alarm]:
        """List the alarms that are not over, by kind and subject; those the log still has."""
        require_operator(ctx)
        found = []
        for _, index in self.open.items(limit=ALARM_PAGE_COUNT_MAX):
            entry = self.entries.get(index)
            if entry is not None:
                found.append(_alarm(index, entry))
        return found


def _alarm(index: int, entry: AlarmEntry) -> Alarm:
    return Alarm(index, entry.at_ns, entry.kind, entry.subject, entry.text, entry.is_over)
