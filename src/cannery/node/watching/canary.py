"""The canary's record: how many probes succeeded and failed in each hour of the last 30 days, and how long
they took. Kept in a file over restarts; nothing here sends or measures anything.

Availability is the share of probes that succeeded; the error budget is the share of failures that the goal
allows, and what is left of it.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from typing import Final

import msgspec

from cannery.limits import CANARY_HOUR_COUNT_MAX, CANARY_TEXT_SIZE_CHARS_MAX
from cannery.node.metrics import SECONDS_BUCKETS
from cannery.node.watching.node_alarms import CanaryState
from cannery.replica.records import RecordDecoder

_HOUR_NS: Final = 3_600_000_000_000
_NS_PER_S: Final = 1_000_000_000


class HourRecord(msgspec.Struct, array_like=True):
    """The probes of one hour, counted since 1970."""

    hour: int
    succeeded: int = 0
    failed: int = 0


class CanaryRecord(msgspec.Struct, array_like=True):
    """All that is kept of the canary. `latency_counts` by `SECONDS_BUCKETS` and one beyond."""

    hours: list[HourRecord] = []
    succeeded: int = 0
    failed: int = 0
    latency_counts: list[int] = []
    latency_sum_ns: int = 0
    failures_in_a_row: int = 0
    text: str = ""
    last_ns: int = 0

    def note(self, now_ns: int, duration_ns: int, failure: str) -> None:
        """Count a probe; `failure` is empty where it succeeded."""
        hour = now_ns // _HOUR_NS
        if not self.hours or self.hours[-1].hour < hour:
            self.hours.append(HourRecord(hour))
        # A clock that was set back counts into the last hour there is.
        counts = self.hours[-1]
        self.hours = [each for each in self.hours if each.hour > hour - CANARY_HOUR_COUNT_MAX] or [counts]
        self.last_ns = now_ns
        self.text = failure[:CANARY_TEXT_SIZE_CHARS_MAX]
        if failure:
            counts.failed += 1
            self.failed += 1
            self.failures_in_a_row += 1
            return
        counts.succeeded += 1
        self.succeeded += 1
        self.failures_in_a_row = 0
        if len(self.latency_counts) != len(SECONDS_BUCKETS) + 1:
            self.latency_counts = [0] * (len(SECONDS_BUCKETS) + 1)
        self.latency_counts[bisect_left(SECONDS_BUCKETS, duration_ns / _NS_PER_S)] += 1
        self.latency_sum_ns += duration_ns

    @property
    def state(self) -> CanaryState:
        return CanaryState(self.failures_in_a_row, self.text)

    def service(self, now_ns: int, goal_percent: float) -> Service:
        """Give how the last 30 days were."""
        first = now_ns // _HOUR_NS - CANARY_HOUR_COUNT_MAX
        hours = [each for each in self.hours if each.hour > first]
        succeeded, failed = sum(each.succeeded for each in hours), sum(each.failed for each in hours)
        return Service(succeeded, failed, goal_percent / 100)


CANARY: Final = RecordDecoder(CanaryRecord, "canary")


@dataclass(frozen=True, slots=True)
class Service:
    """Probes of the last 30 days against a goal (a share, as 0.999)."""

    succeeded: int
    failed: int
    goal: float

    @property
    def availability(self) -> float:
        """The share of probes that succeeded; 1 where there were none."""
        probes = self.succeeded + self.failed
        return self.succeeded / probes if probes else 1.0

    @property
    def budget_left(self) -> float:
        """What is left of the failures that the goal allows: 1 all, 0 none, below 0 more were used."""
        allowed = (1 - self.goal) * (self.succeeded + self.failed)
        return 1 - self.failed / allowed if allowed > 0 else 1.0
