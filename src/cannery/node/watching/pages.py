"""Canary and alarms on `/metrics` and `/health?verbose`, as the files of the watching process tell.

Any gateway process shows them, though only the first one watches.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from cannery.node.metrics import SECONDS_BUCKETS, Labels, render_family, render_histogram
from cannery.node.watching.alarm_file import ALARMS, AlarmsRecord, ReceiverRecord, StateFile
from cannery.node.watching.canary import CANARY, CanaryRecord
from cannery.node.watching.settings import WatchSettings

_NS_PER_S: Final = 1_000_000_000


class WatchPages:
    """Shows what the watching process has saved."""

    def __init__(
        self, alarms: Path, canary: Path, settings: WatchSettings, now_ns: Callable[[], int]
    ) -> None:
        self._alarms = StateFile(alarms, ALARMS, AlarmsRecord)
        self._canary = StateFile(canary, CANARY, CanaryRecord)
        self._settings = settings
        self._now_ns = now_ns

    def metrics(self) -> str:
        """Give the text for `/metrics`."""
        text = render_alarms(self._alarms.peek())
        if self._settings.canary_every_s:
            text += render_canary(self._canary.peek(), self._settings.canary_goal_percent, self._now_ns())
        return text

    def health(self) -> dict[str, object]:
        """Give the part for `/health?verbose`."""
        alarms = self._alarms.peek()
        return {
            "canary": self._canary_health() if self._settings.canary_every_s else None,
            "alarms": {
                "open_on_node": sorted(alarms.open_kinds),
                "receivers": {
                    label: {"told": record.told, "failures": record.failures, "failing": record.failing}
                    for label, record in labelled(alarms)
                },
            },
        }

    def _canary_health(self) -> dict[str, object]:
        record = self._canary.peek()
        service = record.service(self._now_ns(), self._settings.canary_goal_percent)
        return {
            "failures_in_a_row": record.failures_in_a_row,
            "last_failure": record.text,
            "last_ns": record.last_ns,
            "availability_30d": service.availability,
            "goal": service.goal,
            "error_budget_left": service.budget_left,
        }


def labelled(alarms: AlarmsRecord) -> list[tuple[str, ReceiverRecord]]:
    """Give the receivers under the names that may be shown: a webhook's URL may be a secret."""
    found: list[tuple[str, ReceiverRecord]] = []
    for name, record in alarms.receivers.items():
        found.append((name if name == "log" else f"webhook-{len(found)}", record))
    return found


def render_alarms(alarms: AlarmsRecord) -> str:
    """Give the alarms' metrics."""
    numbers: list[tuple[str, str, Callable[[ReceiverRecord], float]]] = [
        ("cannery_alarms_told_total", "Alarms and ends of alarms told.", lambda r: r.told),
        ("cannery_alarm_failures_total", "Deliveries of alarms that failed.", lambda r: r.failures),
        ("cannery_alarms_missed_total", "Alarms that were gone before told.", lambda r: r.missed),
        ("cannery_alarm_lag_seconds", "Age of the last alarm when told.", lambda r: r.lag_ns / _NS_PER_S),
        ("cannery_alarm_receiver_failing", "1 while deliveries fail.", lambda r: int(bool(r.failing))),
    ]
    parts = []
    for name, help_text, value in numbers:
        kind = "counter" if name.endswith("_total") else "gauge"
        samples: dict[Labels, float] = {
            (("receiver", label),): value(record) for label, record in labelled(alarms)
        }
        parts.append(render_family(name, kind, help_text, samples))
    kinds: dict[Labels, float] = {(("kind", kind),): 1 for kind in sorted(alarms.open_kinds)}
    parts.append(render_family("cannery_node_alarms", "gauge", "Alarms of the node that are open.", kinds))
    return "".join(parts)


def render_canary(record: CanaryRecord, goal_percent: float, now_ns: int) -> str:
    """Give the canary's metrics."""
    service = record.service(now_ns, goal_percent)
    numbers = (
        ("probes_succeeded_total", "Probes with a certified answer.", record.succeeded),
        ("probes_failed_total", "Probes without one.", record.failed),
        ("failures_in_a_row", "Probes that failed since the last success.", record.failures_in_a_row),
        ("availability_ratio", "Share of successes in 30 days.", service.availability),
        ("goal_ratio", "The share that is wanted.", service.goal),
        ("error_budget_left_ratio", "Share of the allowed failures that is left.", service.budget_left),
    )
    parts = []
    for name, help_text, value in numbers:
        kind = "counter" if name.endswith("_total") else "gauge"
        parts.append(render_family(f"cannery_canary_{name}", kind, help_text, {(): value}))
    counts = record.latency_counts or [0] * (len(SECONDS_BUCKETS) + 1)
    parts.append(
        render_histogram(
            "cannery_canary_seconds",
            "Successful probes, from sending to the certificate.",
            SECONDS_BUCKETS,
            counts,
            record.latency_sum_ns / _NS_PER_S,
        )
    )
    return "".join(parts)
