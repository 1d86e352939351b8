"""A message log: what a mailbox, a channel or a feed is made of.

Entries get dense ids that are never given twice. A client may choose an id of its own: the same one again is
found and adds nothing. Readers acknowledge up to an id. The log keeps to a rule (count, bytes, age) and says
what it does when full; what it dropped shows as a gap in every page. Cleaning costs as much as it frees and
is bounded per message.

State, under the attribute's name: `.entries` id -> (time, client id, value); `.ids` client id -> id;
`.retired` id -> client id of entries that are gone, the last of them, so that a late repeat is still found;
`.readers` reader -> first id not acknowledged; `.state`; `.rule`.
"""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.python import Case, Variant, nat64, record, type_of, variant
from cannery.cdk.pages import checked_limit
from cannery.cdk.part import CollectionSpec, Part, bound_view
from cannery.cdk.stable_cell import CellView, StableCell
from cannery.cdk.stable_keys import next_prefix
from cannery.cdk.stable_map import MapView, StableMap
from cannery.cdk.stable_values import ValueCodec
from cannery.ports import System

if TYPE_CHECKING:
    from typing_extensions import TypeForm

V = TypeVar("V")


@variant
class WhenFull(Variant):
    """What a full log does with a new message: refuse it, drop what all readers have read, or drop the
    oldest."""

    refuse: Case[None]
    prune_acknowledged: Case[None]
    prune_oldest: Case[None]


@record
class LogRule:
    """How much a log keeps. Entries older than `age_ns_max` go whatever `when_full` says."""

    count_max: nat64
    bytes_max: nat64
    age_ns_max: nat64 | None
    when_full: WhenFull


DEFAULT_RULE = LogRule(1_000_000, 1_000_000_000, None, WhenFull.refuse())


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of a message: `new` and `repeated` have its id, `full` a reason."""

    state: Literal["new", "repeated", "full"]
    id: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LogItem(Generic[V]):
    """An entry: its id, when it came, and the message."""

    id: int
    at_ns: int
    client_id: bytes
    value: V


@dataclass(frozen=True, slots=True)
class LogGap:
    """Ids that are no longer there: from `start` up to, not including, `end`."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class LogPage(Generic[V]):
    """Entries and gaps in scan order; `next` goes into `after=` for what follows, None where this is all."""

    items: list[LogItem[V]]
    gaps: list[LogGap]
    next: int | None


@dataclass(frozen=True, slots=True)
class LogUsage:
    """What a log holds: ids from `first` to `next` - 1 at the most, `count` of them, in `size_bytes`."""

    first: int
    next: int
    count: int
    size_bytes: int
    retired: int


class MessageLogView(Generic[V]):
    """A message log as a method sees it."""

    def __init__(self, system: System, log: MessageLog[V]) -> None:
        self._system = system
        self._slot = system.slot(log.entries_name)
        self._codec = log.codec
        self._retired_max = log.retired_count_max
        self._state: CellView[tuple[int, int, int, int, int]] = log.state_cell.bind(system)
        self._rule: CellView[LogRule] = log.rule_cell.bind(system)
        self._ids: MapView[bytes, int] = log.ids_map.bind(system)
        self._retired: MapView[int, bytes] = log.retired_map.bind(system)
        self._readers: MapView[str, int] = log.readers_map.bind(system)

    # writing

    def append(self, value: V, *, client_id: bytes = b"") -> Appended:
        """Add a message; an empty client id means that repeats are not looked for."""
        if client_id:
            known = self._ids.get(client_id)
            if known is not None:
                return Appended("repeated", known)
        usage, rule, now_ns = self.usage(), self._rule.get(), self._system.now_ns
        data = self._codec.write((now_ns, client_id, value))
        size = len(data) + _KEY_SIZE_BYTES
        usage, reason = self._make_room(usage, rule, size, now_ns)
        if reason:
            self._keep(usage)
            return Appended("full", reason=reason)
        self._system.put(self._key(usage.next), data)
        if client_id:
            self._ids.put(client_id, usage.next)
        grown = replace(usage, next=usage.next + 1, count=usage.count + 1, size_bytes=usage.size_bytes + size)
        self._keep(grown)
        return Appended("new", usage.next)

    def delete(self, id: int) -> bool:
        """Delete one entry, which leaves a gap; say whether it was there."""
        data = self._system.get(self._key(id)) if 0 <= id < 2**64 else None
        if data is None:
            return False
        usage = self.usage()
        self._keep(self._drop(usage, id, data, is_oldest=id == usage.first))
        return True

    def prune(self, *, before: int) -> int:
        """Drop entries with ids under `before`, oldest first, as many as one message may; return how many."""
        usage = self.usage()
        pruned = self._drop_while(usage, lambda item_id, _: item_id < before)
        self._keep(pruned)
        return usage.count - pruned.count

    def clean(self) -> int:
        """Bring the log within its rule, as far as one message may; return how many entries were dropped."""
        usage = self.usage()
        cleaned, _ = self._make_room(usage, self._rule.get(), 0, self._system.now_ns)
        self._keep(cleaned)
        return usage.count - cleaned.count

    def set_rule(self, rule: LogRule) -> None:
        """Change the rule; the log moves within it with the messages that follow, or by `clean`."""
        self._rule.set(rule)

    # reading

    @property
    def rule(self) -> LogRule:
        """The rule in force."""
        return self._rule.get()

    def usage(self) -> LogUsage:
        """Return what the log holds."""
        return LogUsage(*self._state.get())

    def __len__(self) -> int:
        return self.usage().count

    def get(self, id: int) -> LogItem[V] | None:
        """Return an entry; None where there is none any more."""
        data = self._system.get(self._key(id)) if 0 <= id < 2**64 else None
        return None if data is None else self._item(id, data)

    def find(self, client_id: bytes) -> int | None:
        """Return the id that a client's own id led to; it may be gone since."""
        return self._ids.get(client_id)

    def page(
        self, *, limit: int, after: int | None = None, reverse: bool = False, bytes_max: int | None = None
    ) -> LogPage[V]:
        """Return entries after a cursor, oldest or (reverse) newest first, with the gaps between them.

        At most `limit` entries of together `bytes_max` bytes; always one, if there is one.
        """
        usage = self.usage()
        low = usage.first if after is None or reverse else max(usage.first, after + 1)
        high = usage.next if after is None or not reverse else min(usage.next, after)
        edge = high if reverse else after + 1 if after is not None else 0
        items: list[LogItem[V]] = []
        gaps: list[LogGap] = []
        size, limit = 0, checked_limit(limit)
        for id, data in self._scan(low, high, reverse):
            size += len(data)
            if len(items) == limit or (items and bytes_max is not None and size > bytes_max):
                return LogPage(items, gaps, items[-1].id)
            _note_gap(gaps, edge, id, reverse)
            items.append(self._item(id, data))
            edge = id if reverse else id + 1
        _note_gap(gaps, edge, -1 if reverse else usage.next, reverse)
        return LogPage(items, gaps, None)

    # readers

    def acknowledge(self, reader: str, *, through: int) -> int:
        """Note that a reader has everything up to and including an id; return the first id not acknowledged.

        It only ever rises, and not beyond what was given.
        """
        known = self._readers.get(reader)
        if known is None and sum(1 for _ in self._readers.keys(limit=_READERS_MAX)) >= _READERS_MAX:
            raise ValueError(f"a message log has at most {_READERS_MAX} readers")
        until = max(known or 0, min(through + 1, self.usage().next))
        if until != known:
            self._readers.put(reader, until)
        return until

    def acknowledged(self, reader: str) -> int:
        """Return the first id that a reader has not acknowledged."""
        return self._readers.get(reader, 0)

    def forget_reader(self, reader: str) -> bool:
        """Forget a reader, so that nothing is kept for it; say whether it was there."""
        return self._readers.delete(reader)

    # keeping to the rule

    def _make_room(self, usage: LogUsage, rule: LogRule, size: int, now_ns: int) -> tuple[LogUsage, str]:
        """Drop what the rule says until `size` bytes more fit (0: nothing more); give a reason where they do
        not."""
        more = 1 if size else 0
        if size > rule.bytes_max:
            return usage, f"the message has {size} bytes, more than the log's {rule.bytes_max}"
        if rule.age_ns_max is not None and usage.count:
            oldest_ns = now_ns - rule.age_ns_max
            usage = self._drop_while(usage, lambda _, data: self._at_ns(data) <= oldest_ns)
        if _fits(usage, rule, size, more):
            return usage, ""
        if rule.when_full.tag == "refuse":
            return usage, "the log is full"
        until = usage.next if rule.when_full.tag == "prune_oldest" else self._read_by_all(usage)
        usage = self._drop_until_it_fits(usage, rule, size, more, until)
        return usage, "" if _fits(usage, rule, size, more) else "the log is full of what is not to be dropped"

    def _read_by_all(self, usage: LogUsage) -> int:
        marks = list(self._readers.values(limit=_READERS_MAX))
        return min(marks) if marks else usage.first

    def _drop_until_it_fits(
        self, usage: LogUsage, rule: LogRule, size: int, more: int, until: int
    ) -> LogUsage:
        for id, data in self._oldest(usage, limits.MESSAGE_LOG_CLEAN_COUNT_MAX):
            if id >= until or _fits(usage, rule, size, more):
                break
            usage = self._drop(usage, id, data, is_oldest=True)
        return usage

    def _drop_while(self, usage: LogUsage, condition: typing.Callable[[int, bytes], bool]) -> LogUsage:
        for id, data in self._oldest(usage, limits.MESSAGE_LOG_CLEAN_COUNT_MAX):
            if not condition(id, data):
                break
            usage = self._drop(usage, id, data, is_oldest=True)
        return usage

    def _oldest(self, usage: LogUsage, limit: int) -> Iterator[tuple[int, bytes]]:
        """Yield the oldest entries, read in steps that double, so that little is read where little is
        dropped."""
        first, step, given = usage.first, 1, 0
        while given < limit:
            batch = []
            for pair in self._scan(first, usage.next, False):
                batch.append(pair)
                if len(batch) == step:
                    break
            yield from batch
            if len(batch) < step:
                return
            given += len(batch)
            first, step = batch[-1][0] + 1, step * 2

    def _drop(self, usage: LogUsage, id: int, data: bytes, *, is_oldest: bool) -> LogUsage:
        self._system.delete(self._key(id))
        client_id = self._item(id, data).client_id
        first = id + 1 if is_oldest else usage.first
        size = usage.size_bytes - len(data) - _KEY_SIZE_BYTES
        usage = replace(usage, first=first, count=usage.count - 1, size_bytes=size)
        return self._retire(usage, id, client_id) if client_id else usage

    def _retire(self, usage: LogUsage, id: int, client_id: bytes) -> LogUsage:
        """Keep a dropped entry's client id for a while; forget the oldest of them where there are too
        many."""
        self._retired.put(id, client_id)
        usage = replace(usage, retired=usage.retired + 1)
        if usage.retired > self._retired_max:
            oldest = self._retired.first()
            assert oldest is not None, "a retired id was just put"
            self._retired.delete(oldest[0])
            self._ids.delete(oldest[1])
            usage = replace(usage, retired=usage.retired - 1)
        return usage

    # bytes

    def _keep(self, usage: LogUsage) -> None:
        self._state.set((usage.first, usage.next, usage.count, usage.size_bytes, usage.retired))

    def _key(self, id: int) -> bytes:
        return self._slot + id.to_bytes(8, "big")

    def _scan(self, low: int, high: int, reverse: bool) -> Iterator[tuple[int, bytes]]:
        if low >= high:
            return
        at = len(self._slot)
        end = self._key(high) if high < 2**64 else next_prefix(self._slot)
        assert end is not None, "slots do not begin with ff"
        for key, data in self._system.scan(self._key(low), end, reverse=reverse):
            yield int.from_bytes(key[at:], "big"), data

    def _item(self, id: int, data: bytes) -> LogItem[V]:
        at_ns, client_id, value = self._codec.read(data, self._system)
        return LogItem(id, at_ns, client_id, value)

    def _at_ns(self, data: bytes) -> int:
        return self._codec.read(data, self._system)[0]


class MessageLog(Part, Generic[V]):
    """Declare a message log: `mailbox = MessageLog(Message, rule=LogRule(...))`.

    `retired_count_max` client ids of dropped entries are remembered beside those of the entries that are
    there.
    """

    def __init__(
        self, value: TypeForm[V], *, rule: LogRule = DEFAULT_RULE, retired_count_max: int = 10_000
    ) -> None:
        self.name = ""
        self.retired_count_max = retired_count_max
        self._entry_type = ct.tuple_record(ct.Nat64(), ct.BLOB, type_of(value))
        self.state_cell = StableCell(tuple[nat64, nat64, nat64, nat64, nat64], (0, 0, 0, 0, 0))
        self.rule_cell = StableCell(LogRule, rule)
        self.ids_map = StableMap(bytes, nat64)
        self.retired_map = StableMap(nat64, bytes)
        self.readers_map = StableMap(str, nat64)
        self.entries_name = ""
        self.codec: ValueCodec[tuple[int, bytes, V]]

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            return
        self.name = name
        self.entries_name = f"{name}.entries"
        self.codec = ValueCodec(self.entries_name, self._entry_type)
        for suffix, part in self._parts():
            part.name = f"{name}.{suffix}"

    def _parts(
        self,
    ) -> tuple[tuple[str, StableCell[Any] | StableMap[Any, Any]], ...]:  # parts of several types
        return (
            ("state", self.state_cell),
            ("rule", self.rule_cell),
            ("ids", self.ids_map),
            ("retired", self.retired_map),
            ("readers", self.readers_map),
        )

    def collections(self) -> tuple[CollectionSpec, ...]:
        entries = CollectionSpec(self.entries_name, "map", "nat64", self._entry_type)
        return (entries, *(spec for _, part in self._parts() for spec in part.collections()))

    def bind(self, system: System) -> MessageLogView[V]:
        """Make the view of one activation."""
        return MessageLogView(system, self)

    @overload
    def __get__(self, instance: None, owner: type) -> MessageLog[V]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> MessageLogView[V]: ...
    def __get__(self, instance: object | None, owner: type) -> MessageLog[V] | MessageLogView[V]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)


def _fits(usage: LogUsage, rule: LogRule, size: int, more: int) -> bool:
    return usage.count + more <= rule.count_max and usage.size_bytes + size <= rule.bytes_max


def _note_gap(gaps: list[LogGap], edge: int, id: int, reverse: bool) -> None:
    start, end = (id + 1, edge) if reverse else (edge, id)
    if start < end:
        gaps.append(LogGap(start, end))


_KEY_SIZE_BYTES = 8
_READERS_MAX = limits.MESSAGE_LOG_READER_COUNT_MAX
