"""One change of a topic log: messages that come and go, with what is counted of them, written together.

A change gathers the log's state and the topics that it touches; `keep` writes them. What it may add and must
drop is for `topic_log` to say.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from cannery import limits
from cannery.candid.python import type_of
from cannery.cdk.stable_cell import CellView
from cannery.cdk.stable_keys import key_codec
from cannery.cdk.stable_map import MapView
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.topic_entries import TYPE_SIZE_BYTES, TopicEntries, digest_of
from cannery.cdk.topic_index import INDEX_SIZE_BYTES, TopicIndex
from cannery.cdk.topic_records import Topic, TopicLogState, TopicMessage

# What a message takes beside its own bytes: its key and type, and its places in the index.
OVERHEAD_SIZE_BYTES = 12 + TYPE_SIZE_BYTES + INDEX_SIZE_BYTES
# Of 256.
_SEAL_CHANCE = 4
_BLOB_KEY = key_codec(type_of(bytes))


@dataclass(frozen=True, slots=True)
class TopicStores:
    """The collections of a log, as one activation has them."""

    entries: TopicEntries
    index: TopicIndex
    numbers: MapView[bytes, int]
    topics: MapView[int, Topic]
    state: CellView[TopicLogState]
    topic_codec: ValueCodec[Topic]

    def topic_size(self, key: bytes) -> int:
        """Return what a topic takes beside its messages: its number under its key, and its record."""
        record = len(self.topic_codec.write(Topic(key, 0, 0, 0, 0, 0)))
        return len(_BLOB_KEY.encode(key)) + TYPE_SIZE_BYTES + 4 + 4 + record


class TopicChange:
    """A change that has begun; `state` is what the log's state will be."""

    __slots__ = ("_kept", "_numbers", "_stores", "_topics", "state")

    def __init__(self, stores: TopicStores) -> None:
        self._stores = stores
        self.state = stores.state.get()
        self._topics: dict[int, Topic] = {}
        # Numbers of the topics that are written to; None for those that do not exist yet.
        self._numbers: dict[bytes, int | None] = {}
        # Numbers of topics that are written to, and hence stay though their last message goes.
        self._kept: set[int] = set()

    def number_of(self, key: bytes) -> int | None:
        """Give the number of a topic that is to be written to; None where it does not exist yet."""
        if key not in self._numbers:
            self._numbers[key] = self._stores.numbers.get(key)
        return self._numbers[key]

    def retain(self, number: int) -> None:
        """Let a topic stay though its last message goes: it will be written to."""
        self._kept.add(number)

    def add(self, key: bytes, digest: bytes, payload: bytes, now_ns: int) -> int:
        """Add a message; return its id."""
        stores, state, number = self._stores, self.state, self.number_of(key)
        id, topic_next, topic_count, stored = (
            state.next,
            state.topic_next,
            state.topic_count,
            state.size_bytes,
        )
        if number is None:
            number = self._numbers[key] = topic_next
            topic = Topic(key, id, id, 0, 0, state.first - 1)
            stores.numbers.put(key, number)
            topic_next, topic_count, stored = topic_next + 1, topic_count + 1, stored + stores.topic_size(key)
        else:
            topic = self._topic(number)
        message = TopicMessage(id, now_ns, digest, len(payload), payload)
        size = stores.entries.add(number, id, message) + OVERHEAD_SIZE_BYTES
        stores.index.put(number, id, digest)
        first = topic.first if topic.count else id
        self._topics[number] = Topic(
            key, first, id, topic.count + 1, topic.size_bytes + size, topic.dropped_through
        )
        self.state = TopicLogState(state.first, id + 1, stored + size, topic_next, topic_count)
        # By the count while a topic grows; by chance, the same in every run, where as many go as come.
        if (topic.count + 1) % limits.TOPIC_BLOCK_EVERY_COUNT == 0 or digest[-1] < _SEAL_CHANCE:
            stores.entries.seal(number, id)
        return id

    def replace(self, number: int, id: int, message: bytes, freed_bytes: int) -> None:
        """Put a shorter message in the place of one."""
        self._stores.entries.replace(number, id, message)
        topic = self._topic(number)
        self._topics[number] = replace(topic, size_bytes=topic.size_bytes - freed_bytes)
        self.state = replace(self.state, size_bytes=self.state.size_bytes - freed_bytes)

    def drop(self, number: int, id: int, message: bytes) -> None:
        """Drop the log's oldest message."""
        self._stores.entries.drop(number, id)
        self._stores.index.drop(number, id, digest_of(message))
        size = len(message) + OVERHEAD_SIZE_BYTES
        topic, state = self._topic(number), self.state
        self._topics[number] = Topic(
            topic.key, id + 1, topic.last, topic.count - 1, topic.size_bytes - size, id
        )
        self.state = TopicLogState(
            id + 1, state.next, state.size_bytes - size, state.topic_next, state.topic_count
        )
        if topic.count == 1 and number not in self._kept:
            self._remove_topic(number, topic.key)

    def keep(self) -> None:
        """Write the topics that were touched and the state."""
        for number in sorted(self._topics):
            topic = self._topics[number]
            if topic.count:
                self._stores.topics.put(number, topic)
            else:
                self._remove_topic(number, topic.key)
        self._stores.state.set(self.state)

    def _topic(self, number: int) -> Topic:
        found = self._topics.get(number)
        return self._stores.topics[number] if found is None else found

    def _remove_topic(self, number: int, key: bytes) -> None:
        del self._topics[number]
        self._stores.numbers.delete(key)
        self._stores.topics.delete(number)
        size = self.state.size_bytes - self._stores.topic_size(key)
        self.state = replace(self.state, topic_count=self.state.topic_count - 1, size_bytes=size)
