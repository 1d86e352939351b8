"""Tells alarms to their receivers: looks at each fleet's index and at the node, and passes on what is new.

An alarm stays where it was raised: an index keeps its last alarms, and each receiver has a position in each
index, kept on disk and moved only after the receiver took them. So nothing queues here, a receiver that is
gone for an hour gets everything when it is back (at least once; as far as the index still has it), and one
receiver waits for no other longer than its time.

Looking is reading: queries and no rounds. Where no block was made since everybody had everything, fleets are
not even asked.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from cannery.errors import StoreError
from cannery.limits import (
    ALARM_BATCH_COUNT_MAX,
    ALARM_FLEET_COUNT_MAX,
    ALARM_QUIET_NS_MAX,
    ALARM_QUIET_NS_MIN,
    ALARM_SERVE_NS_MAX,
    ALARM_VITALS_WAIT_MS_MAX,
)
from cannery.node.gateway.app import Clocks
from cannery.node.gateway.asking import AskError, Fleet, Questions
from cannery.node.subnet_port import SubnetPort
from cannery.node.vitals import Vitals
from cannery.node.watching.alarm import NODE_SOURCE, Alarm
from cannery.node.watching.alarm_file import AlarmsRecord, Position, ReceiverRecord, Report, StateFile
from cannery.node.watching.node_alarms import CanaryState, NodeAlarms
from cannery.node.watching.receivers import Receiver

_LOG: Final = "log"
_NEVER_NS: Final = 2**63


@dataclass(slots=True)
class _Quiet:
    """A fleet whose index failed: until when it is left alone, and how long that is."""

    until_ns: int = 0
    pause_ns: int = 0


@dataclass(slots=True)
class _Look:
    """One look: its fleets, the pages read so far, when the next look is worth while if no block is made."""

    fleets: list[Fleet]
    wake_ns: int = _NEVER_NS
    pages: dict[tuple[str, int | None], list[Alarm]] = field(default_factory=dict)
    has_news: bool = False

    def wake_at(self, monotonic_ns: int) -> None:
        self.wake_ns = min(self.wake_ns, monotonic_ns)


class AlarmWatcher:
    """Looks whenever `look` is called; one look at a time."""

    def __init__(
        self,
        port: SubnetPort,
        questions: Questions,
        receivers: Sequence[Receiver],
        file: StateFile[AlarmsRecord],
        disk_low_bytes: int,
        report: Report,
        clocks: Clocks,
    ) -> None:
        """Go on where the file says."""
        self._port = port
        self._questions = questions
        self._receivers = receivers
        self._file = file
        self._report = report
        self._clocks = clocks
        self.record = file.read(report)
        self._node = NodeAlarms(self.record, disk_low_bytes)
        self._quiet: dict[str, _Quiet] = {}
        self._fleets: list[Fleet] = []
        self._still_block: int | None = None
        self._wake_ns = 0
        self._is_unsaved = False
        self._has_told: set[str] = set()
        self._begin_receivers()

    async def look(self, canary: CanaryState) -> None:
        """Look once at everything, and tell what is new."""
        vitals = await self._vitals()
        has_news = self._node.look(vitals, canary, self._clocks.now_ns())
        block = vitals.block_number if vitals is not None else None
        is_still = block is not None and block == self._still_block
        if is_still and not has_news and self._clocks.monotonic_ns() < self._wake_ns:
            return
        look = _Look(self._fleets, has_news=has_news)
        is_listed = await self._list_fleets(look)
        await asyncio.gather(*(self._serve(receiver, look) for receiver in self._receivers))
        if is_listed:
            self._forget(look)
        self._still_block, self._wake_ns = block, look.wake_ns
        if look.has_news or self._is_unsaved:
            self._save()

    # --- inside

    def _begin_receivers(self) -> None:
        """Give receivers that are new the log's positions: what was told before them is not told again."""
        known = self.record.receivers
        start = known[_LOG].positions if _LOG in known else {}
        self.record.receivers = {
            receiver.name: known.get(receiver.name) or ReceiverRecord(dict(start))
            for receiver in self._receivers
        }

    async def _vitals(self) -> Vitals | None:
        try:
            async with asyncio.timeout(ALARM_VITALS_WAIT_MS_MAX / 1000):
                return await self._port.examine()
        except TimeoutError:
            return None

    async def _list_fleets(self, look: _Look) -> bool:
        """Take in which fleets there are; False where nobody knows, and those known before count."""
        try:
            self._fleets, left_out = await self._questions.fleets(ALARM_FLEET_COUNT_MAX)
        except AskError as error:
            self._tell_once("list", f"the fleets cannot be watched: {error}")
            look.wake_at(0)
            return False
        self._has_told.discard("list")
        look.fleets = self._fleets
        if left_out:
            self._tell_once("many", f"{left_out} fleets more than {ALARM_FLEET_COUNT_MAX} are not watched")
        return True

    async def _serve(self, receiver: Receiver, look: _Look) -> None:
        """Tell a receiver what it does not have yet, within its time."""
        record = self.record.receivers[receiver.name]
        end_ns = self._clocks.monotonic_ns() + ALARM_SERVE_NS_MAX
        while receiver.next_ns <= self._clocks.monotonic_ns():
            batch = await self._collect(record, look)
            if not batch:
                return
            if self._clocks.monotonic_ns() >= end_ns:
                look.wake_at(0)
                return
            look.has_news = True
            is_told = await receiver.deliver(batch, self._clocks.now_ns())
            record.failing = receiver.failing
            if is_told:
                _advance(record, batch, self._clocks.now_ns())
                if len(batch) < ALARM_BATCH_COUNT_MAX:
                    return
            else:
                record.failures += 1
        look.wake_at(receiver.next_ns)

    async def _collect(self, record: ReceiverRecord, look: _Look) -> list[Alarm]:
        """Give the next alarms that a receiver does not have, of all sources together."""
        found: list[Alarm] = []
        for fleet in (None, *look.fleets):
            room = ALARM_BATCH_COUNT_MAX - len(found)
            if room <= 0:
                break
            source = NODE_SOURCE if fleet is None else str(fleet.index)
            found += (await self._behind(fleet, source, record.positions.get(source), look))[:room]
        return found

    async def _behind(
        self, fleet: Fleet | None, source: str, position: Position | None, look: _Look
    ) -> list[Alarm]:
        """Give a source's alarms behind a position.

        The page begins with the alarm at the position. Where that is another one, or none, the source's log
        has begun anew (the index was reinstalled, or an older state restored): what is newer counts then.
        """
        if position is None:
            return await self._page(fleet, source, None, look)
        after = position.index - 1 if position.index else None
        page = await self._page(fleet, source, after, look)
        if page and page[0].index == position.index and page[0].at_ns == position.at_ns:
            return page[1:]
        if page and page[0].index > position.index:
            return page
        if self._is_quiet(source):
            return []
        anew = await self._page(fleet, source, None, look)
        return [alarm for alarm in anew if alarm.at_ns > position.at_ns]

    async def _page(self, fleet: Fleet | None, source: str, after: int | None, look: _Look) -> list[Alarm]:
        limit = ALARM_BATCH_COUNT_MAX + 1
        if fleet is None:
            return self._node.page(after, limit)
        if (source, after) not in look.pages:
            look.pages[source, after] = await self._ask(fleet, source, after, limit, look)
        return look.pages[source, after]

    async def _ask(
        self, fleet: Fleet, source: str, after: int | None, limit: int, look: _Look
    ) -> list[Alarm]:
        quiet = self._quiet.setdefault(source, _Quiet())
        now_ns = self._clocks.monotonic_ns()
        if now_ns < quiet.until_ns:
            look.wake_at(quiet.until_ns)
            return []
        try:
            found = await self._questions.alarms(fleet.index, after, limit)
        except AskError as error:
            self._tell_once(source, f"the alarms of {fleet.name} cannot be read: {error}")
            quiet.pause_ns = min(max(2 * quiet.pause_ns, ALARM_QUIET_NS_MIN), ALARM_QUIET_NS_MAX)
            quiet.until_ns = now_ns + quiet.pause_ns
            look.wake_at(quiet.until_ns)
            return []
        quiet.pause_ns = 0
        self._has_told.discard(source)
        return [
            Alarm(source, fleet.name, a.index, a.at_ns, a.kind, a.subject, a.text, a.is_over) for a in found
        ]

    def _is_quiet(self, source: str) -> bool:
        return self._clocks.monotonic_ns() < self._quiet.get(source, _Quiet()).until_ns

    def _forget(self, look: _Look) -> None:
        """Forget fleets that are not there any more."""
        sources = {NODE_SOURCE, *(str(fleet.index) for fleet in look.fleets)}
        self._quiet = {source: quiet for source, quiet in self._quiet.items() if source in sources}
        for record in self.record.receivers.values():
            gone = record.positions.keys() - sources
            for source in sorted(gone):
                del record.positions[source]

    def _tell_once(self, what: str, text: str) -> None:
        if what not in self._has_told:
            self._has_told.add(what)
            self._report(text)

    def _save(self) -> None:
        try:
            self._file.save(self.record)
            self._is_unsaved = False
            self._has_told.discard("file")
        except StoreError as error:
            self._is_unsaved = True
            self._tell_once("file", f"{error}: after a restart alarms may be told again")


def _advance(record: ReceiverRecord, batch: Sequence[Alarm], now_ns: int) -> None:
    """Note that a receiver has these alarms."""
    for alarm in batch:
        before = record.positions.get(alarm.source)
        if before is not None and alarm.index > before.index + 1:
            record.missed += alarm.index - before.index - 1
        record.positions[alarm.source] = Position(alarm.index, alarm.at_ns)
    record.told += len(batch)
    record.lag_ns = max(0, now_ns - min(alarm.at_ns for alarm in batch))
