"""A topic log: messages of many topics under one sequence of ids, each topic's lying side by side.

Ids begin at 1, are dense and never given twice. The same payload again in the same topic is found by its hash
and adds nothing. What goes is always the oldest, so that a topic's chain has no holes: its messages are those
with ids above `dropped_through`. Cleaning is part of the write that needs the room and costs as much as it
frees. Pages over many topics are in `topic_pages`.

State, under the attribute's name: `.entries` (topic's number, id) -> message; `.ids` id -> topic's number;
`.hashes` (first 8 bytes of the hash, topic's number) -> id; `.numbers` topic's key -> number; `.topics`
number -> topic; `.state`; `.rule`; `.marks` reader -> first id not acknowledged; `.mark_order` (mark,
reader).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from hashlib import sha256
from itertools import islice
from struct import Struct
from typing import Any, overload

from cannery import limits
from cannery.candid.python import nat32, nat64, type_of
from cannery.cdk.message_log import DEFAULT_RULE, LogRule
from cannery.cdk.part import CollectionSpec, Part, bound_view
from cannery.cdk.stable_cell import CellView, StableCell
from cannery.cdk.stable_keys import key_codec, next_prefix
from cannery.cdk.stable_map import MapView, SetView, StableMap, StableSet
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.topic_records import (
    EMPTY_STATE,
    Found,
    Posted,
    Topic,
    TopicLogFull,
    TopicLogState,
    TopicMessage,
)
from cannery.ports import System

_TYPE_SIZE_BYTES = 8
_ENTRY_KEY = Struct(">IQ")
_ENTRY_KEY_SIZE_BYTES = 12
# An id's key and value, and a hash's.
_INDEX_SIZE_BYTES = (8 + _TYPE_SIZE_BYTES + 4) + (12 + _TYPE_SIZE_BYTES + 8)
_BATCH_COUNT_MAX = 512
_HEAD_SIZE_BYTES = 8
# A stored message begins with its type, id and time; then comes the hash behind its length.
_DIGEST_AT = _TYPE_SIZE_BYTES + 8 + 8 + 1
_BLOB_KEY = key_codec(type_of(bytes))


class _Change:
    """One change of a log: its state and the topics it touches, written together by `TopicLogView._keep`."""

    __slots__ = ("kept", "numbers", "state", "topics")

    def __init__(self, state: TopicLogState) -> None:
        self.state = state
        self.topics: dict[int, Topic] = {}
        # Numbers of the topics that are written to; None for those that do not exist yet.
        self.numbers: dict[bytes, int | None] = {}
        # Numbers of topics that are written to, and hence stay though their last message goes.
        self.kept: set[int] = set()


class TopicLogView:
    """A topic log as a method sees it."""

    def __init__(self, system: System, log: TopicLog) -> None:
        self._system = system
        self._codec = log.codec
        self._id_codec = log.id_codec
        self._topic_codec = log.topic_codec
        self._slot = system.slot(log.entries_name)
        self._id_slot = system.slot(log.ids_name)
        self._state: CellView[TopicLogState] = log.state_cell.bind(system)
        self._rule: CellView[LogRule] = log.rule_cell.bind(system)
        self._hash_slot = system.slot(log.hashes_name)
        self._hash_codec = log.hash_codec
        self._numbers: MapView[bytes, int] = log.numbers_map.bind(system)
        self._topics: MapView[int, Topic] = log.topics_map.bind(system)
        self._marks: MapView[bytes, int] = log.marks_map.bind(system)
        self._mark_order: SetView[tuple[int, bytes]] = log.mark_order_set.bind(system)

    # writing

    def post(self, key: bytes, payload: bytes) -> Posted:
        """Add a message to a topic. Raises TopicLogFull, which may be caught."""
        return self.post_many([(key, payload)])[0]

    def post_many(self, items: Sequence[tuple[bytes, bytes]]) -> list[Posted]:
        """Add several messages, all or none. Raises TopicLogFull, which may be caught."""
        change = _Change(self.usage())
        digests = [sha256(payload).digest() for _, payload in items]
        for key, payload in items:
            _check(key, payload)
            if key not in change.numbers:
                change.numbers[key] = self._numbers.get(key)
        known = [
            self._known(change.numbers[key], digest)
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
            given[key, digest] = self._add(change, key, digest, payload)
        self._keep(change)
        posted, seen = [], set()
        for (key, _), digest, id in zip(items, digests, known, strict=True):
            name = (key, digest)
            posted.append(Posted(given[name] if id is None else id, id is None and name not in seen))
            seen.add(name)
        return posted

    def erase(self, id: int) -> bool:
        """Take a message's payload away; its place in the chain stays. Say whether there was a payload."""
        change = _Change(self.usage())
        number = self._number_of(id)
        if number is None:
            return False
        message = self._codec.read(self._entry(number, id), self._system)
        if not message.payload:
            return False
        erased = self._codec.write(replace(message, size=0, payload=b""))
        freed = len(self._codec.write(message)) - len(erased)
        self._system.put(self._entry_key(number, id), erased)
        topic = self._topic(change, number)
        change.topics[number] = replace(topic, size_bytes=topic.size_bytes - freed)
        change.state = replace(change.state, size_bytes=change.state.size_bytes - freed)
        self._keep(change)
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
        return self._at_ns(state.first) if state.count else None

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
        number = self._number_of(id)
        if number is None:
            return None
        before = next(self._scan(number, 0, id, True), (0, b""))[0]
        after = next(self._scan(number, id + 1, 2**64, False), (0, b""))[0]
        message = self._codec.read(self._entry(number, id), self._system)
        return Found(self._topics[number].key, message, before, after)

    def find(self, digest: bytes) -> int | None:
        """Return the id of a message by its payload's SHA-256; of several, that of the oldest topic."""
        start = self._hash_slot + digest[:_HEAD_SIZE_BYTES]
        after = next_prefix(start)
        assert after is not None, "slots do not begin with ff"
        for key, data in self._system.scan(start, after):
            id = self._hash_codec.read(data, self._system)
            number = int.from_bytes(key[len(start) :], "big")
            if self._digest(self._entry(number, id)) == digest:
                return id
        return None

    def first_of(self, key: bytes) -> int | None:
        """Return the oldest id of a topic; None where it has no messages."""
        number = self._numbers.get(key)
        return (
            None if number is None else next(self._scan(number, self._topics[number].first, 2**64, False))[0]
        )

    def scan(self, key: bytes, low: int, high: int, *, reverse: bool = False) -> Iterator[tuple[int, bytes]]:
        """Yield ids from `low` up to `high` of a topic, each with its `TopicMessage` as Candid bytes."""
        number = self._numbers.get(key)
        if number is None:
            return
        low = max(low, self._topics[number].first)
        mine, at = self._codec.number, _TYPE_SIZE_BYTES
        for id, data in self._scan(number, low, high, reverse):
            if data[:at] == mine:
                yield id, data[at:]
            else:
                yield id, self._codec.write(self._codec.read(data, self._system))[at:]

    def scan_all(self, low: int, high: int) -> Iterator[tuple[bytes, TopicMessage]]:
        """Yield the messages of all topics with ids from `low` up to `high`, each with its topic's key."""
        state = self.usage()
        keys: dict[int, bytes] = {}
        for id, number in self._ids(max(low, state.first), min(high, state.next)):
            key = keys.get(number)
            if key is None:
                key = keys[number] = self._topics[number].key
            yield key, self._codec.read(self._entry(number, id), self._system)

    def message_of(self, data: bytes) -> TopicMessage:
        """Decode a message that `scan` gave."""
        return self._codec.read(self._codec.number + data, self._system)

    def id_at(self, at_ns: int) -> int:
        """Return the first id that came at a time or later, by halving; the next id where there is none."""
        state = self.usage()
        low, high = state.first, state.next
        while low < high:
            middle = (low + high) // 2
            if self._at_ns(middle) < at_ns:
                low = middle + 1
            else:
                high = middle
        return low

    # readers

    def add_reader(self, reader: bytes) -> int:
        """Note that a reader needs what comes from now on; return the first id not acknowledged by it."""
        known = self._marks.get(reader)
        if known is not None:
            return known
        if len(self._marks) >= limits.TOPIC_LOG_READER_COUNT_MAX:
            raise ValueError(f"a topic log has at most {limits.TOPIC_LOG_READER_COUNT_MAX} readers")
        return self._mark(reader, None, self.usage().next)

    def acknowledge(self, reader: bytes, *, through: int) -> int:
        """Note that a reader has everything up to and including an id; return the first id not acknowledged.

        It only ever rises, and not beyond what was given.
        """
        known = self.add_reader(reader)
        until = max(known, min(through + 1, self.usage().next))
        return known if until == known else self._mark(reader, known, until)

    def acknowledged(self, reader: bytes) -> int | None:
        """Return the first id that a reader has not acknowledged; None for whom the log does not know."""
        return self._marks.get(reader)

    def readers(
        self, *, limit: int, after: bytes | None = None
    ) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """List readers with the first ids they have not acknowledged, and the `after` that follows."""
        page = self._marks.page(limit=limit, after=after)
        return page.items, page.next

    def acknowledged_by_all(self) -> int:
        """Return the first id that some reader has not acknowledged; the oldest id without readers."""
        first = self._mark_order.first()
        return self.usage().first if first is None else first[0]

    def forget_reader(self, reader: bytes) -> bool:
        """Forget a reader, so that nothing is kept for it; say whether it was there."""
        known = self._marks.get(reader)
        if known is None:
            return False
        self._marks.delete(reader)
        return self._mark_order.discard((known, reader))

    def _mark(self, reader: bytes, old: int | None, new: int) -> int:
        if old is not None:
            self._mark_order.discard((old, reader))
        self._marks.put(reader, new)
        self._mark_order.add((new, reader))
        return new

    # adding

    def _known(self, number: int | None, digest: bytes) -> int | None:
        """Return the id of the same payload in the same topic."""
        data = None if number is None else self._system.get(self._hash_key(number, digest))
        if number is None or data is None:
            return None
        id = self._hash_codec.read(data, self._system)
        return id if self._digest(self._entry(number, id)) == digest else None

    def _add(self, change: _Change, key: bytes, digest: bytes, payload: bytes) -> int:
        state, number = change.state, change.numbers[key]
        id, topic_next, topic_count, stored = (
            state.next,
            state.topic_next,
            state.topic_count,
            state.size_bytes,
        )
        if number is None:
            number = change.numbers[key] = topic_next
            topic = Topic(key, id, id, 0, 0, state.first - 1)
            self._numbers.put(key, number)
            topic_next, topic_count, stored = topic_next + 1, topic_count + 1, stored + self._topic_size(key)
        else:
            topic = self._topic(change, number)
        data = self._codec.write(TopicMessage(id, self._system.now_ns, digest, len(payload), payload))
        size = _ENTRY_KEY_SIZE_BYTES + len(data) + _INDEX_SIZE_BYTES
        self._system.put(self._entry_key(number, id), data)
        self._system.put(self._id_slot + id.to_bytes(8, "big"), self._id_codec.write(number))
        self._system.put(self._hash_key(number, digest), self._hash_codec.write(id))
        first = topic.first if topic.count else id
        change.topics[number] = Topic(
            key, first, id, topic.count + 1, topic.size_bytes + size, topic.dropped_through
        )
        change.state = TopicLogState(state.first, id + 1, stored + size, topic_next, topic_count)
        return id

    def _topic_size(self, key: bytes) -> int:
        """Return what a topic takes beside its messages: its number under its key, and its record."""
        record = len(self._topic_codec.write(Topic(key, 0, 0, 0, 0, 0)))
        return len(_BLOB_KEY.encode(key)) + _TYPE_SIZE_BYTES + 4 + 4 + record

    # keeping to the rule

    def _make_room(self, change: _Change, fresh: dict[tuple[bytes, bytes], bytes]) -> None:
        """Drop what the rule says until the messages fit. Raises TopicLogFull where they do not."""
        if not fresh:
            return
        rule, size = self._rule.get(), 0
        for key in {key: None for key, _ in fresh}:
            number = change.numbers[key]
            if number is None:
                size += self._topic_size(key)
            else:
                change.kept.add(number)
        overhead = (
            _ENTRY_KEY_SIZE_BYTES
            + _INDEX_SIZE_BYTES
            + len(self._codec.write(TopicMessage(0, 0, bytes(32), 0, b"")))
        )
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
            self._keep(change)
            raise TopicLogFull(reason, passes=passes)

    def _fit(self, change: _Change, rule: LogRule, count: int, size: int) -> tuple[str, bool]:
        """Drop what is too old, then what stands in the way; give a reason where that does not suffice."""
        before = change.state.first
        if rule.age_ns_max is not None:
            oldest_ns = self._system.now_ns - rule.age_ns_max
            self._drop_while(change, lambda _, data: self._codec.read(data, self._system).at_ns <= oldest_ns)
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

    def _cleaned(self, clean: Callable[[_Change], object]) -> int:
        change = _Change(self.usage())
        before = change.state.first
        clean(change)
        if change.state.first != before:
            self._keep(change)
        return change.state.first - before

    def _drop_while(self, change: _Change, condition: Callable[[int, bytes], bool]) -> None:
        """Drop the oldest messages while the condition on id and bytes holds, as many as one message may."""
        step, given = 1, 0
        while given < limits.TOPIC_LOG_CLEAN_COUNT_MAX and change.state.count:
            first = change.state.first
            # Read in steps that double, so that little is read where little is dropped.
            for id, number in list(self._ids(first, min(first + step, change.state.next))):
                data = self._entry(number, id)
                if not condition(id, data):
                    return
                self._drop(change, number, id, data)
                given += 1
            step = min(2 * step, _BATCH_COUNT_MAX, limits.TOPIC_LOG_CLEAN_COUNT_MAX - given)

    def _drop(self, change: _Change, number: int, id: int, data: bytes) -> None:
        self._system.delete(self._entry_key(number, id))
        self._system.delete(self._id_slot + id.to_bytes(8, "big"))
        # Two messages of a topic whose hashes begin alike share the place, and the later one has it.
        place = self._hash_key(number, self._digest(data))
        held = self._system.get(place)
        if held is not None and self._hash_codec.read(held, self._system) == id:
            self._system.delete(place)
        size = _ENTRY_KEY_SIZE_BYTES + len(data) + _INDEX_SIZE_BYTES
        topic, state = self._topic(change, number), change.state
        change.topics[number] = Topic(
            topic.key, id + 1, topic.last, topic.count - 1, topic.size_bytes - size, id
        )
        change.state = TopicLogState(
            id + 1, state.next, state.size_bytes - size, state.topic_next, state.topic_count
        )
        if topic.count == 1 and number not in change.kept:
            self._remove_topic(change, number, topic.key)

    def _remove_topic(self, change: _Change, number: int, key: bytes) -> None:
        del change.topics[number]
        self._numbers.delete(key)
        self._topics.delete(number)
        state = change.state
        change.state = replace(
            state, topic_count=state.topic_count - 1, size_bytes=state.size_bytes - self._topic_size(key)
        )

    def _topic(self, change: _Change, number: int) -> Topic:
        found = change.topics.get(number)
        return self._topics[number] if found is None else found

    def _keep(self, change: _Change) -> None:
        for number in sorted(change.topics):
            topic = change.topics[number]
            if topic.count:
                self._topics.put(number, topic)
            else:
                self._remove_topic(change, number, topic.key)
        self._state.set(change.state)

    # bytes

    def _entry_key(self, number: int, id: int) -> bytes:
        return self._slot + _ENTRY_KEY.pack(number, id)

    def _entry(self, number: int, id: int) -> bytes:
        data = self._system.get(self._entry_key(number, id))
        assert data is not None, "an id's topic has its message"
        return data

    def _hash_key(self, number: int, digest: bytes) -> bytes:
        return self._hash_slot + digest[:_HEAD_SIZE_BYTES] + number.to_bytes(4, "big")

    def _digest(self, data: bytes) -> bytes:
        """Return the hash in a stored message, without decoding it where its type is the present one."""
        if data[:_TYPE_SIZE_BYTES] == self._codec.number:
            return data[_DIGEST_AT : _DIGEST_AT + 32]
        return self._codec.read(data, self._system).hash

    def _number_of(self, id: int) -> int | None:
        data = self._system.get(self._id_slot + id.to_bytes(8, "big")) if 0 < id < 2**64 else None
        return None if data is None else self._id_codec.read(data, self._system)

    def _at_ns(self, id: int) -> int:
        number = self._number_of(id)
        assert number is not None, "ids are dense"
        return self._codec.read(self._entry(number, id), self._system).at_ns

    def _ids(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        if low >= high:
            return
        at = len(self._id_slot)
        start, end = (self._id_slot + id.to_bytes(8, "big") for id in (low, high))
        for key, data in islice(self._system.scan(start, end), high - low):
            yield int.from_bytes(key[at:], "big"), self._id_codec.read(data, self._system)

    def _scan(self, number: int, low: int, high: int, reverse: bool) -> Iterator[tuple[int, bytes]]:
        high = min(high, 2**64 - 1)
        if low >= high:
            return
        at = len(self._slot) + 4
        start, end = self._entry_key(number, low), self._entry_key(number, high)
        for key, data in self._system.scan(start, end, reverse=reverse):
            yield int.from_bytes(key[at:], "big"), data


class TopicLog(Part):
    """Declare a topic log: `messages = TopicLog(rule=LogRule(...))`."""

    def __init__(self, *, rule: LogRule = DEFAULT_RULE) -> None:
        self.name = ""
        self._entry_type = type_of(TopicMessage)
        self._id_type = type_of(nat32)
        self.topic_codec: ValueCodec[Topic] = ValueCodec("topics", type_of(Topic))
        self.state_cell = StableCell(TopicLogState, EMPTY_STATE)
        self.rule_cell = StableCell(LogRule, rule)
        self._hash_type = type_of(nat64)
        self.numbers_map = StableMap(bytes, nat32)
        self.topics_map = StableMap(nat32, Topic)
        self.marks_map = StableMap(bytes, nat64, counted=True)
        self.mark_order_set = StableSet(tuple[nat64, bytes])
        self.entries_name = self.ids_name = self.hashes_name = ""
        self.codec: ValueCodec[TopicMessage]
        self.id_codec: ValueCodec[int]
        self.hash_codec: ValueCodec[int]

    def __set_name__(self, owner: type, name: str) -> None:
        if self.name:
            return
        self.name = name
        self.entries_name, self.ids_name = f"{name}.entries", f"{name}.ids"
        self.hashes_name = f"{name}.hashes"
        self.hash_codec = ValueCodec(self.hashes_name, self._hash_type)
        self.codec = ValueCodec(self.entries_name, self._entry_type)
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
        return (entries, ids, hashes, *(spec for _, part in self._parts() for spec in part.collections()))

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
