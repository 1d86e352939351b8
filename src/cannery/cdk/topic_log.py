"""A topic log: messages of many topics under one sequence of ids, each topic's lying side by side.

Ids begin at 1, are dense and never given twice. The same payload again in the same topic is found by its hash
and adds nothing. What goes is always the oldest, so that a topic's chain has no holes: its messages are those
with ids above `dropped_through`. Cleaning is part of the write that needs the room and costs as much as it
frees. Sizes count each message as if it lay alone: in a block it takes less. Pages over many topics are in
`topic_pages`; what one change writes is in `topic_change`.

State, under the attribute's name: `.entries` and `.blocks`, the messages (`topic_entries`); `.ids` and
`.hashes`, where each is (`topic_index`); `.numbers` topic's key -> number; `.topics` number -> topic;
`.state`; `.rule`; `.marks` and `.mark_order`, who reads (`topic_readers`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from hashlib import sha256
from typing import Any, overload

from cannery import limits
from cannery.candid.python import nat32, nat64, type_of
from cannery.cdk.message_log import DEFAULT_RULE, LogRule
from cannery.cdk.part import CollectionSpec, Part, bound_view
from cannery.cdk.stable_cell import CellView, StableCell
from cannery.cdk.stable_map import MapView, StableMap, StableSet
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.topic_change import OVERHEAD_SIZE_BYTES, TopicChange, TopicStores
from cannery.cdk.topic_entries import (
    TYPE_SIZE_BYTES,
    Run,
    TopicEntries,
    messages_of,
    split,
    time_of,
)
from cannery.cdk.topic_index import TopicIndex
from cannery.cdk.topic_readers import TopicReaders
from cannery.cdk.topic_records import (
    EMPTY_STATE,
    Found,
    Located,
    Posted,
    Topic,
    TopicBlock,
    TopicLogFull,
    TopicLogState,
    TopicMessage,
    Whole,
    whole_size,
)
from cannery.ports import System

_BATCH_COUNT_MAX = 512


class TopicLogView:
    """A topic log as a method sees it."""

    def __init__(self, system: System, log: TopicLog) -> None:
        self._system = system
        self._log = log
        self._codec = log.codec
        self._slot = system.slot(log.entries_name)
        self._whole_name = self._slot + b"whole"
        self._state: CellView[TopicLogState] = log.state_cell.bind(system)

    # The parts, each made when a method first needs it: a page of whole topics needs none of them.

    @cached_property
    def _entries(self) -> TopicEntries:
        slots = self._slot, self._system.slot(self._log.blocks_name)
        return TopicEntries(self._system, slots, self._log.codec, self._log.block_codec)

    @cached_property
    def _index(self) -> TopicIndex:
        slots = self._system.slot(self._log.ids_name), self._system.slot(self._log.hashes_name)
        return TopicIndex(self._system, self._entries, slots, (self._log.id_codec, self._log.hash_codec))

    @cached_property
    def _rule(self) -> CellView[LogRule]:
        return self._log.rule_cell.bind(self._system)

    @cached_property
    def _numbers(self) -> MapView[bytes, int]:
        return self._log.numbers_map.bind(self._system)

    @cached_property
    def _topics(self) -> MapView[int, Topic]:
        return self._log.topics_map.bind(self._system)

    @cached_property
    def _stores(self) -> TopicStores:
        return TopicStores(
            self._entries, self._index, self._numbers, self._topics, self._state, self._log.topic_codec
        )

    @cached_property
    def _readers(self) -> TopicReaders:
        log, system = self._log, self._system
        return TopicReaders(log.marks_map.bind(system), log.mark_order_set.bind(system))

    # writing

    def post(self, key: bytes, payload: bytes) -> Posted:
        """Add a message to a topic. Raises TopicLogFull, which may be caught."""
        return self.post_many([(key, payload)])[0]

    def post_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[Posted]:
        """Add several messages, all or none. Raises TopicLogFull, which may be caught."""
        change = TopicChange(self._stores)
        digests = [sha256(payload).digest() for _, payload in items]
        for key, payload in items:
            _check(key, payload)
        known = [
            self._index.known(change.number_of(key), digest)
            for (key, payload), digest in zip(items, digests, strict=True)
        ]
        fresh = {
            (key, digest): payload
            for (key, payload), digest, id in zip(items, digests, known, strict=True)
            if id is None
        }
        self._make_room(change, fresh)
        given: dict[tuple[bytes, bytes], int] = {}
        for (key, digest), payload in fresh.items():
            given[key, digest] = change.add(key, digest, payload, self._system.now_ns)
        change.keep()
        posted, seen = [], set()
        for (key, _), digest, id in zip(items, digests, known, strict=True):
            name = (key, digest)
            posted.append(Posted(given[name] if id is None else id, id is None and name not in seen))
            seen.add(name)
        return posted

    def erase(self, id: int) -> bool:
        """Take a message's payload away; its place in the chain stays. Say whether there was a payload."""
        number = self._index.number_of(id)
        if number is None:
            return False
        data = self._index.message(number, id)
        message = self.message_of(data)
        if not message.payload:
            return False
        erased = self._codec.write(replace(message, size=0, payload=b""))[TYPE_SIZE_BYTES:]
        change = TopicChange(self._stores)
        change.replace(number, id, erased, len(data) - len(erased))
        change.keep()
        return True

    def prune(self, *, before: int) -> int:
        """Drop messages with ids under `before`, as many as one message may; return how many."""
        return self._cleaned(lambda change: self._drop_while(change, lambda id, _: id < before))

    def clean(self) -> int:
        """Bring the log within its rule, as far as one message may; return how many messages were dropped."""
        return self._cleaned(lambda change: self._fit(change, self._rule.get(), 0, 0))

    def set_rule(self, rule: LogRule) -> None:
        """Change the rule; the log moves within it with the messages that follow, or by `clean`."""
        self._rule.set(rule)

    # reading

    @property
    def rule(self) -> LogRule:
        """The rule in force."""
        return self._rule.get()

    def usage(self) -> TopicLogState:
        """Return what the log holds."""
        return self._state.get()

    def is_within_rule(self) -> bool:
        """Tell whether there is nothing to clean."""
        state, rule = self.usage(), self._rule.get()
        oldest_ns = self.oldest_ns()
        is_young = (
            rule.age_ns_max is None or oldest_ns is None or oldest_ns > self._system.now_ns - rule.age_ns_max
        )
        return is_young and _fits(state, rule, 0, 0)

    def oldest_ns(self) -> int | None:
        """Return when the oldest message came; None where there is none."""
        state = self.usage()
        return self._index.at_ns(state.first) if state.count else None

    def topic(self, key: bytes) -> Topic | None:
        """Return a topic; None where it has no messages."""
        number = self._numbers.get(key)
        return None if number is None else self._topics[number]

    def topics(self, *, limit: int, after: bytes | None = None) -> tuple[list[Topic], bytes | None]:
        """List topics in the order of their keys, and the `after` that follows, None on the last page."""
        page = self._numbers.page(limit=limit, after=after)
        return [self._topics[number] for _, number in page.items], page.next

    def get(self, id: int) -> Found | None:
        """Return a message with its neighbours; None where it is not there (any more)."""
        number = self._index.number_of(id)
        if number is None:
            return None
        topic = self._topics[number]
        before = next(self._entries.runs(number, topic, 0, id, reverse=True), None)
        after = next(self._entries.runs(number, topic, id + 1, topic.last + 1), None)
        message = self.message_of(self._index.message(number, id))
        neighbours = 0 if before is None else before.last, 0 if after is None else after.first
        return Found(topic.key, message, *neighbours)

    def find(self, digest: bytes) -> int | None:
        """Return the id of a message by its payload's SHA-256; of several, that of the oldest topic."""
        return self._index.find(digest)

    def first_of(self, key: bytes) -> int | None:
        """Return the oldest id of a topic; None where it has no messages."""
        found = self.locate(key)
        return None if found is None else next(self.runs(found, 0, found.topic.last + 1)).first

    def locate(self, key: bytes) -> Located | None:
        """Look a topic up, for `runs`; None where it has no messages."""
        number = self._numbers.get(key)
        return None if number is None else Located(number, self._topics[number])

    def runs(self, found: Located, low: int, high: int, *, reverse: bool = False) -> Iterator[Run]:
        """Give the messages of a topic with ids from `low` up to `high` in runs, each with its oldest first;
        `reverse`: the newest run comes first.
        """
        return self._entries.runs(found.number, found.topic, low, high, reverse=reverse)

    def whole(self, key: bytes, *, newest_first: bool) -> Whole:
        """Give all messages of a topic at once, for pages over many topics."""
        name = self._whole_name + (b"\x01" if newest_first else b"\x00") + key
        return self._system.recall(name, lambda: self._make_whole(key, newest_first), whole_size)

    def _make_whole(self, key: bytes, newest_first: bool) -> Whole:
        found = self.locate(key)
        if found is None or found.topic.size_bytes > limits.TOPIC_WHOLE_SIZE_BYTES_MAX:
            return Whole(0, 0, 0, 0, b"")
        topic = found.topic
        runs = [run.data for run in self.runs(found, 0, topic.last + 1)]
        data = runs[0] if len(runs) == 1 else b"".join(runs)
        if newest_first:
            data = b"".join(reversed(messages_of(data)))
        return Whole(topic.first, topic.last, topic.count, topic.dropped_through, data)

    def scan(self, key: bytes, low: int, high: int, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yield ids from `low` up to `high` of a topic, each with its `TopicMessage` as Candid bytes."""
        found = self.locate(key)
        if found is not None:
            for run in self.runs(found, low, high, reverse=reverse):
                messages = split(run.data)
                yield from reversed(messages) if reverse else messages

    def scan_all(self, low: int, high: int) -> Iterator[tuple[bytes, TopicMessage]]:
        """Yield the messages of all topics with ids from `low` up to `high`, each with its topic's key."""
        state = self.usage()
        keys: dict[int, bytes] = {}
        for id, number in self._index.ids(max(low, state.first), min(high, state.next)):
            key = keys.get(number)
            if key is None:
                key = keys[number] = self._topics[number].key
            yield key, self.message_of(self._index.message(number, id))

    def message_of(self, data: bytes) -> TopicMessage:
        """Decode a message that `scan` gave."""
        return self._codec.read(self._codec.number + data, self._system)

    def id_at(self, at_ns: int) -> int:
        """Return the first id that came at a time or later, by halving; the next id where there is none."""
        state = self.usage()
        low, high = state.first, state.next
        while low < high:
            middle = (low + high) // 2
            if self._index.at_ns(middle) < at_ns:
                low = middle + 1
            else:
                high = middle
        return low

    # readers

    def add_reader(self, reader: bytes) -> int:
        """Note that a reader needs what comes from now on; return the first id not acknowledged by it."""
        return self._readers.add(reader, self.usage().next)

    def acknowledge(self, reader: bytes, *, through: int) -> int:
        """Note that a reader has everything up to and including an id; return the first id not acknowledged.

        It only ever rises, and not beyond what was given.
        """
        return self._readers.acknowledge(reader, through, self.usage().next)

    def acknowledged(self, reader: bytes) -> int | None:
        """Return the first id that a reader has not acknowledged; None for whom the log does not know."""
        return self._readers.mark_of(reader)

    def readers(
        self, *, limit: int, after: bytes | None = None
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """List readers with the first ids they have not acknowledged, and the `after` that follows."""
        return self._readers.page(limit, after)

    def acknowledged_by_all(self) -> int:
        """Return the first id that some reader has not acknowledged; the oldest id without readers."""
        first = self._readers.first()
        return self.usage().first if first is None else first

    def forget_reader(self, reader: bytes) -> bool:
        """Forget a reader, so that nothing is kept for it; say whether it was there."""
        return self._readers.forget(reader)

    # keeping to the rule

    def _make_room(self, change: TopicChange, fresh: dict[tuple[bytes, bytes], bytes]) -> None:
        """Drop what the rule says until the messages fit. Raises TopicLogFull where they do not."""
        if not fresh:
            return
        rule, size = self._rule.get(), 0
        for key in {key: None for key, _ in fresh}:
            number = change.number_of(key)
            if number is None:
                size += self._stores.topic_size(key)
            else:
                change.retain(number)
        empty = len(self._codec.write(TopicMessage(0, 0, bytes(32), 0, b""))) - TYPE_SIZE_BYTES
        overhead = OVERHEAD_SIZE_BYTES + empty
        # One more byte where the payload's length takes two in LEB128, and so on.
        size += sum(overhead + len(p) + (len(p).bit_length() - 1) // 7 for p in fresh.values())
        if len(fresh) > rule.count_max or size > rule.bytes_max:
            raise TopicLogFull(
                f"{len(fresh)} messages of {size} bytes are more than the limits of {rule.count_max} messages"
                f" and {rule.bytes_max} bytes"
            )
        if change.state.next + len(fresh) > limits.TOPIC_MESSAGE_ID_MAX:
            raise TopicLogFull(f"message ids end at {limits.TOPIC_MESSAGE_ID_MAX}")
        reason, passes = self._fit(change, rule, len(fresh), size)
        if reason:
            change.keep()
            raise TopicLogFull(reason, passes=passes)

    def _fit(self, change: TopicChange, rule: LogRule, count: int, size: int) -> tuple[str, bool]:
        """Drop what is too old, then what stands in the way; give a reason where that does not suffice."""
        before = change.state.first
        if rule.age_ns_max is not None:
            oldest_ns = self._system.now_ns - rule.age_ns_max
            self._drop_while(change, lambda _, data: time_of(data) <= oldest_ns)
        if _fits(change.state, rule, count, size):
            return "", False
        if rule.when_full.tag == "refuse":
            return "it is full", False
        until = change.state.next if rule.when_full.tag == "prune_oldest" else self.acknowledged_by_all()
        self._drop_while(change, lambda id, _: id < until and not _fits(change.state, rule, count, size))
        if _fits(change.state, rule, count, size):
            return "", False
        if change.state.first - before >= limits.TOPIC_LOG_CLEAN_COUNT_MAX:
            return "it is being cleaned", True
        return "it is full of messages that not all readers have acknowledged", False

    def _cleaned(self, clean: Callable[[TopicChange], object]) -> int:
        change = TopicChange(self._stores)
        before = change.state.first
        clean(change)
        if change.state.first != before:
            change.keep()
        return change.state.first - before

    def _drop_while(self, change: TopicChange, condition: Callable[[int, bytes], bool]) -> None:
        """Drop the oldest messages while the condition on id and bytes holds, as many as one message may."""
        step, given = 1, 0
        while given < limits.TOPIC_LOG_CLEAN_COUNT_MAX and change.state.count:
            first = change.state.first
            # Read in steps that double, so that little is read where little is dropped.
            for id, number in list(self._index.ids(first, min(first + step, change.state.next))):
                data = self._index.message(number, id)
                if not condition(id, data):
                    return
                change.drop(number, id, data)
                given += 1
            step = min(2 * step, _BATCH_COUNT_MAX, limits.TOPIC_LOG_CLEAN_COUNT_MAX - given)


class TopicLog(Part):
    """Declare a topic log: `messages = TopicLog(rule=LogRule(...))`."""

    def __init__(self, *, rule: LogRule = DEFAULT_RULE) -> None:
        self.name = ""
        self._entry_type = type_of(TopicMessage)
        self._block_type = type_of(TopicBlock)
        self._id_type = type_of(nat32)
        self.topic_codec: ValueCodec[Topic] = ValueCodec("topics", type_of(Topic))
        self.state_cell = StableCell(TopicLogState, EMPTY_STATE)
        self.rule_cell = StableCell(LogRule, rule)
        self._hash_type = type_of(nat64)
        self.numbers_map = StableMap(bytes, nat32)
        self.topics_map = StableMap(nat32, Topic)
        self.marks_map = StableMap(bytes, nat64, counted=True)
        self.mark_order_set = StableSet(tuple[nat64, bytes])
        self.entries_name = self.blocks_name = self.ids_name = self.hashes_name = ""
        self.codec: ValueCodec[TopicMessage]
        self.block_codec: ValueCodec[TopicBlock]
        self.id_codec: ValueCodec[int]
        self.hash_codec: ValueCodec[int]

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            return
        self.name = name
        self.entries_name, self.ids_name = f"{name}.entries", f"{name}.ids"
        self.hashes_name, self.blocks_name = f"{name}.hashes", f"{name}.blocks"
        self.hash_codec = ValueCodec(self.hashes_name, self._hash_type)
        self.codec = ValueCodec(self.entries_name, self._entry_type)
        self.block_codec = ValueCodec(self.blocks_name, self._block_type)
        self.id_codec = ValueCodec(self.ids_name, self._id_type)
        for suffix, part in self._parts():
            part.name = f"{name}.{suffix}"

    def _parts(self) -> tuple[tuple[str, Any], ...]:  # cells, maps and a set, of several types
        return (
            ("state", self.state_cell),
            ("rule", self.rule_cell),
            ("numbers", self.numbers_map),
            ("topics", self.topics_map),
            ("marks", self.marks_map),
            ("mark_order", self.mark_order_set),
        )

    def collections(self) -> tuple[CollectionSpec, ...]:
        entries = CollectionSpec(self.entries_name, "map", "(nat32; nat64)", self._entry_type)
        ids = CollectionSpec(self.ids_name, "map", "nat64", self._id_type)
        hashes = CollectionSpec(self.hashes_name, "map", "(nat64; nat32)", self._hash_type)
        blocks = CollectionSpec(self.blocks_name, "map", "(nat32; nat64)", self._block_type)
        parts = (spec for _, part in self._parts() for spec in part.collections())
        return (entries, ids, hashes, *parts, blocks)

    def bind(self, system: System) -> TopicLogView:
        """Make the view of one activation."""
        return TopicLogView(system, self)

    @overload
    def __get__(self, instance: None, owner: type) -> TopicLog: ...
    @overload
    def __get__(self, instance: object, owner: type) -> TopicLogView: ...
    def __get__(self, instance: object | None, owner: type) -> TopicLog | TopicLogView:
        return self if instance is None else bound_view(instance, self.name, self.bind)


def _fits(state: TopicLogState, rule: LogRule, count: int, size: int) -> bool:
    return state.count + count <= rule.count_max and state.size_bytes + size <= rule.bytes_max


def _check(key: bytes, payload: bytes) -> None:
    """Refuse what cannot be a message."""
    size = len(payload)
    if not 1 <= size <= limits.TOPIC_MESSAGE_SIZE_BYTES_MAX:
        raise ValueError(f"a message has 1 to {limits.TOPIC_MESSAGE_SIZE_BYTES_MAX} bytes, this one {size}")
    if not 1 <= len(key) <= limits.TOPIC_KEY_SIZE_BYTES_MAX:
        raise ValueError(f"a topic has 1 to {limits.TOPIC_KEY_SIZE_BYTES_MAX} bytes, this one {len(key)}")
