"""A subnet's watched canisters: whose events go to which gateway, and whether they still may.

A watch is a query that says which events its sender may have. It is run once, and again only when a durable
round changes something that it read: until then its word holds, however much else the canister does. A round
that does change it makes it stale at once, before the round's events leave; it is decided again between
rounds, a bounded number at a time. A gateway that does not take what it is sent is sent nothing more until it
does, and then all its watches are decided again: whoever missed events reads them from the canister's log.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from cannery.errors import Reject, RejectCode, StoreError
from cannery.limits import (
    EVENT_PAGE_COUNT_MAX,
    EVENT_PAGE_SIZE_BYTES_MAX,
    INLINE_SIZE_BYTES_MAX,
    WATCH_COUNT_MAX,
    WATCH_DECIDING_NS_MAX,
)
from cannery.node.answers import query_of, rejected, replied
from cannery.node.handover import (
    Answered,
    Decided,
    EventItem,
    Events,
    EventsRead,
    ReadEvents,
    Stale,
    ToGateway,
    Watch,
)
from cannery.node.read_trace import ReadTrace, key_prefix, owner_prefix
from cannery.node.service import Subnet
from cannery.node.submitted import Durable
from cannery.ports import StoreReader, WriteBatch
from cannery.replica.events import EventPage, event_size_bytes
from cannery.replica.keys import LOCAL_SPACE
from cannery.replica.records import EventRecord
from cannery.replica.state import Emitted

_TOO_MANY: Final = Reject(
    RejectCode.SYS_TRANSIENT, f"this gateway watches {WATCH_COUNT_MAX} times already: try again later"
)
_TOO_LARGE: Final = Reject(
    RejectCode.CANISTER_ERROR, "the canister's answer to a watch is too large: it gives topics back"
)


class Outlet(Protocol):
    """A gateway, as its watches see it."""

    @property
    def is_full(self) -> bool:
        """Say whether it has not taken what it was sent before."""
        ...

    def post(self, message: ToGateway) -> None: ...


class _Entry:
    """One watch."""

    __slots__ = ("id", "is_stale", "outlet", "trace", "watch")

    def __init__(self, outlet: Outlet, watch: Watch) -> None:
        self.outlet = outlet
        self.watch = watch
        self.id = watch.id
        self.trace: ReadTrace | None = None
        self.is_stale = True


class Watches:
    """All watches of a subnet. `ask` runs a job between rounds, and says whether it will."""

    def __init__(self, subnet: Callable[[], Subnet], ask: Callable[[Callable[[], None]], bool]) -> None:
        self._subnet = subnet
        self._ask = ask
        self._entries: dict[Outlet, dict[int, _Entry]] = {}
        self._watchers: dict[bytes, dict[Outlet, int]] = {}
        # Gateways that have not taken what they were sent, and those of them that were not sent events.
        self._lagging: set[Outlet] = set()
        self._missing: set[Outlet] = set()
        self._by_key: dict[bytes, dict[_Entry, None]] = {}
        self._by_prefix: dict[bytes, dict[_Entry, None]] = {}
        self._broad: dict[_Entry, None] = {}
        self._stale: deque[_Entry] = deque()
        self._is_asked = False

    def __len__(self) -> int:
        return sum(map(len, self._entries.values()))

    # --- what gateways ask for

    def watch(self, outlet: Outlet, message: Watch) -> None:
        """Begin a watch."""
        entries = self._entries.setdefault(outlet, {})
        if len(entries) >= WATCH_COUNT_MAX or message.id in entries:
            outlet.post(Decided(message.id, rejected(_TOO_MANY), 0))
            return
        entry = entries[message.id] = _Entry(outlet, message)
        watchers = self._watchers.setdefault(message.query.canister_id, {})
        watchers[outlet] = watchers.get(outlet, 0) + 1
        self._stale.append(entry)
        self._decide_soon()

    def unwatch(self, outlet: Outlet, id: int) -> None:
        """End a watch."""
        entry = self._entries.get(outlet, {}).pop(id, None)
        if entry is None:
            return
        self._forget_reads(entry)
        entry.is_stale = False
        canister_id = entry.watch.query.canister_id
        watchers = self._watchers[canister_id]
        watchers[outlet] -= 1
        if not watchers[outlet]:
            del watchers[outlet]
        if not watchers:
            del self._watchers[canister_id]

    def drop(self, outlet: Outlet) -> None:
        """End all watches of a gateway that is gone."""
        for id in list(self._entries.get(outlet, ())):
            self.unwatch(outlet, id)
        self._entries.pop(outlet, None)
        self._lagging.discard(outlet)
        self._missing.discard(outlet)

    def resume(self, outlet: Outlet) -> None:
        """Go on with a gateway that has taken what it was sent."""
        if outlet in self._lagging:
            self._lagging.discard(outlet)
            entries = list(self._entries.get(outlet, {}).values())
            # Who was not decided comes before those that are only to be decided again.
            self._stale.extend([entry for entry in entries if entry.is_stale])
            if outlet in self._missing:
                self._missing.discard(outlet)
                self._make_stale(entries)
            self._decide_soon()

    def read(self, message: ReadEvents) -> EventsRead:
        """Read a page of a canister's events."""
        try:
            page = self._subnet().events(
                message.canister_id, message.since, EVENT_PAGE_COUNT_MAX, EVENT_PAGE_SIZE_BYTES_MAX
            )
        except StoreError as error:
            return EventsRead(message.id, 0, 0, (), str(error))
        if page is None:
            return EventsRead(message.id, 0, 0, (), "the canister is gone")
        return EventsRead(message.id, page.first, page.next, _items(page))

    # --- what rounds bring

    def deliver(self, durable: Durable) -> None:
        """Take what became durable: first what makes watches stale, then the events."""
        if not self._entries:
            return
        self._make_stale(list(self._touched(durable.batches)))
        self._send(durable.emitted)
        self._decide_soon()

    def _touched(self, batches: Iterable[WriteBatch]) -> dict[_Entry, None]:
        found: dict[_Entry, None] = {}
        for batch in batches:
            found.update(self._broad)
            for key in batch.puts:
                found.update(self._by_key.get(key, {}))
                for entry in self._by_prefix.get(key_prefix(key), ()):
                    assert entry.trace is not None, "whoever stands here has read"
                    if any(start <= key < end for start, end in entry.trace.ranges):
                        found[entry] = None
            for start, end in batch.deleted_ranges:
                if start[0] < LOCAL_SPACE:
                    self._touched_by_range(start, end, found)
        return found

    def _touched_by_range(self, start: bytes, end: bytes, found: dict[_Entry, None]) -> None:
        prefix = owner_prefix(start, end)
        for key, entries in self._by_key.items():
            if start <= key < end:
                found.update(entries)
        for known, entries in self._by_prefix.items():
            if prefix is None or known == prefix:
                found.update(entries)

    def _make_stale(self, entries: list[_Entry]) -> None:
        ids: dict[Outlet, list[int]] = {}
        for entry in entries:
            if not entry.is_stale:
                entry.is_stale = True
                self._stale.append(entry)
                ids.setdefault(entry.outlet, []).append(entry.id)
        for outlet, each in ids.items():
            outlet.post(Stale(tuple(each)))

    def _send(self, emitted: tuple[Emitted, ...]) -> None:
        by_canister: dict[bytes, list[Emitted]] = {}
        for each in emitted:
            if each.canister_id in self._watchers:
                by_canister.setdefault(each.canister_id, []).append(each)
        for canister_id, events in by_canister.items():
            messages = _messages(canister_id, events)
            for outlet in self._watchers[canister_id]:
                if outlet.is_full:
                    self._lagging.add(outlet)
                if outlet in self._lagging:
                    self._missing.add(outlet)
                    continue
                for message in messages:
                    outlet.post(message)

    # --- decisions

    def _decide_soon(self) -> None:
        if self._stale and not self._is_asked:
            self._is_asked = self._ask(self._decide_some)

    def _decide_some(self) -> None:
        self._is_asked = False
        end_ns = time.monotonic_ns() + WATCH_DECIDING_NS_MAX
        while self._stale:
            entry = self._stale.popleft()
            if entry.is_stale and entry.outlet.is_full:
                # Nothing more is sent there: it is decided when the gateway has taken what it was sent.
                self._lagging.add(entry.outlet)
            elif entry.is_stale:
                self._decide(entry)
            if time.monotonic_ns() > end_ns:
                break
        self._decide_soon()

    def _decide(self, entry: _Entry) -> None:
        self._forget_reads(entry)
        query = entry.watch.query
        traces: list[ReadTrace] = []

        def trace(reader: StoreReader) -> StoreReader:
            traces.append(ReadTrace(reader))
            return traces[0]

        answer: Answered
        next_number = 0
        try:
            result = self._subnet().query(query_of(query), trace)
            answer = replied(result.reply, None) if result.reject is None else rejected(result.reject)
            if len(answer.reply) > INLINE_SIZE_BYTES_MAX:
                answer = rejected(_TOO_LARGE)
            page = self._subnet().events(query.canister_id, 2**63, 0, 0)
            next_number = 0 if page is None else page.next
        except StoreError as error:
            answer = rejected(Reject(RejectCode.SYS_TRANSIENT, str(error)))
        entry.is_stale = False
        if traces:
            traces[0].close()
            self._remember_reads(entry, traces[0])
        entry.outlet.post(Decided(entry.id, answer, next_number))

    def _remember_reads(self, entry: _Entry, trace: ReadTrace) -> None:
        entry.trace = trace
        if trace.is_broad:
            self._broad[entry] = None
            return
        for key in trace.keys:
            self._by_key.setdefault(key, {})[entry] = None
        for start, _ in trace.ranges:
            self._by_prefix.setdefault(key_prefix(start), {})[entry] = None

    def _forget_reads(self, entry: _Entry) -> None:
        trace, entry.trace = entry.trace, None
        if trace is None:
            return
        self._broad.pop(entry, None)
        for key in trace.keys:
            _discard(self._by_key, key, entry)
        for start, _ in trace.ranges:
            _discard(self._by_prefix, key_prefix(start), entry)


def _discard(index: dict[bytes, dict[_Entry, None]], key: bytes, entry: _Entry) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(entry, None)
        if not entries:
            del index[key]


def _item(number: int, record: EventRecord) -> EventItem:
    return EventItem(number, record.time_ns, record.topic, record.payload)


def _items(page: EventPage) -> tuple[EventItem, ...]:
    return tuple(_item(number, record) for number, record in page.events)


def _messages(canister_id: bytes, emitted: list[Emitted]) -> list[Events]:
    """Put events into messages of a bounded size."""
    messages: list[Events] = []
    items: list[EventItem] = []
    size_bytes = 0
    for each in emitted:
        items.append(_item(each.number, each.record))
        size_bytes += event_size_bytes(each.record)
        if size_bytes >= EVENT_PAGE_SIZE_BYTES_MAX or len(items) >= EVENT_PAGE_COUNT_MAX:
            messages.append(Events(canister_id, tuple(items)))
            items, size_bytes = [], 0
    if items:
        messages.append(Events(canister_id, tuple(items)))
    return messages
