"""An alarm as the node passes it on: as a line for its log, as JSON for webhooks, with its runbook.

Kind, subject and text may come from an index, which is a canister: they are foreign text.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cannery.limits import ALARM_LINE_SIZE_CHARS_MAX, ALARM_WORD_SIZE_CHARS_MAX

NODE_SOURCE: Final = "node"
LOW_BALANCE: Final = "low_balance"
BATTERY_LOW: Final = "battery_low"
QUOTA_REACHED: Final = "fleet_quota_reached"
QUARANTINED: Final = "quarantined"
ROLLOUT_STALLED: Final = "rollout_stalled"
ROLLOUT_STOPPED: Final = "rollout_stopped"
CUSTODY_TAKEN: Final = "custody_taken"
UNLISTED: Final = "unlisted"
CANARY_FAILING: Final = "canary_failing"
DISK_LOW: Final = "disk_low"
STORE_FAILING: Final = "store_failing"
KINDS: Final = (
    LOW_BALANCE,
    BATTERY_LOW,
    QUOTA_REACHED,
    QUARANTINED,
    ROLLOUT_STALLED,
    ROLLOUT_STOPPED,
    CUSTODY_TAKEN,
    UNLISTED,
    CANARY_FAILING,
    DISK_LOW,
    STORE_FAILING,
)
"""The kinds that have a runbook; docs/runbooks.md has a section for each."""


@dataclass(frozen=True, slots=True)
class Alarm:
    """An alarm or, with `is_over`, its end. `source` is the id of a fleet's index, or `NODE_SOURCE`; `index`
    rises with each alarm of a source, so that both together name it.
    """

    source: str
    source_name: str
    index: int
    at_ns: int
    kind: str
    subject: str
    text: str
    is_over: bool

    def line(self, runbooks: str) -> str:
        """Give the alarm as one line for people."""
        head = "alarm over" if self.is_over else "alarm"
        kind, subject = (
            _plain(self.kind, ALARM_WORD_SIZE_CHARS_MAX),
            _plain(self.subject, ALARM_WORD_SIZE_CHARS_MAX),
        )
        text = _plain(self.text, ALARM_LINE_SIZE_CHARS_MAX)
        return f"{head}: {kind} in {self.source_name}, {subject}: {text} ({self.runbook(runbooks)})"

    def fields(self, runbooks: str) -> dict[str, object]:
        """Give the alarm as a JSON object."""
        return {
            "id": f"{self.source}/{self.index}",
            "source": self.source,
            "source_name": self.source_name,
            "index": self.index,
            "at_ns": str(self.at_ns),
            "at": datetime.fromtimestamp(self.at_ns // 1_000_000_000, UTC).isoformat(),
            "kind": self.kind,
            "subject": self.subject,
            "text": self.text,
            "is_over": self.is_over,
            "runbook": self.runbook(runbooks),
        }

    def runbook(self, runbooks: str) -> str:
        """Give the link to what is to be done."""
        return f"{runbooks}#{self.kind}" if self.kind in KINDS else runbooks


def _plain(text: str, size_chars_max: int) -> str:
    """Make foreign text safe for a log: one line, printable, bounded."""
    return "".join(char if char.isprintable() else " " for char in text[:size_chars_max])
