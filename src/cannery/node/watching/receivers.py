"""Who is told of alarms: the protocol, and the node's log. Webhooks stand in `webhook`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from cannery.node.watching.alarm import Alarm
from cannery.node.watching.alarm_file import Report


class Receiver(Protocol):
    """Somebody who is told of alarms. `name` is the same over restarts."""

    @property
    def name(self) -> str: ...
    @property
    def failing(self) -> str:
        """Why the last delivery failed; empty where it did not."""
        ...

    @property
    def next_ns(self) -> int:
        """The monotonic time from which on a delivery may be tried."""
        ...

    async def deliver(self, alarms: Sequence[Alarm], now_ns: int) -> bool:
        """Tell of alarms, in their order; False where they must be told again later."""
        ...


class LogReceiver:
    """The node's own log: one line for each alarm."""

    name: Final = "log"
    failing: Final = ""
    next_ns: Final = 0

    def __init__(self, report: Report, runbooks: str) -> None:
        self._report = report
        self._runbooks = runbooks

    async def deliver(self, alarms: Sequence[Alarm], now_ns: int) -> bool:  # noqa: ARG002  (the protocol's)
        for alarm in alarms:
            self._report(alarm.line(self._runbooks))
        return True
