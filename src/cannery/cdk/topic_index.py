"""Which message lies where in a topic log: by its id, by its payload's hash.

State: `.ids` id -> topic's number; `.hashes` (first 8 bytes of the hash, topic's number) -> id. Two messages
of a topic whose hashes begin alike share the place, and the later one has it: whoever finds an id there
compares the whole hash. The messages themselves are `topic_entries`'.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice

from cannery.cdk.stable_keys import next_prefix
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.topic_entries import TYPE_SIZE_BYTES, TopicEntries, digest_of, time_of
from cannery.ports import System

# What a message takes in the index: an id's key and value, and a hash's.
INDEX_SIZE_BYTES = (8 + TYPE_SIZE_BYTES + 4) + (12 + TYPE_SIZE_BYTES + 8)
_HASH_HEAD_SIZE_BYTES = 8


class TopicIndex:
    """The index of one log over its entries."""

    def __init__(
        self,
        system: System,
        entries: TopicEntries,
        slots: tuple[bytes, bytes],
        codecs: tuple[ValueCodec[int], ValueCodec[int]],
    ) -> None:
        """`slots` and `codecs` are those of ids and of hashes."""
        self._system = system
        self._entries = entries
        self._id_slot, self._hash_slot = slots
        self._id_codec, self._hash_codec = codecs

    def put(self, number: int, id: int, digest: bytes) -> None:
        """Note a new message."""
        self._system.put(self._id_key(id), self._id_codec.write(number))
        self._system.put(self._hash_key(number, digest), self._hash_codec.write(id))

    def drop(self, number: int, id: int, digest: bytes) -> None:
        """Forget a message."""
        self._system.delete(self._id_key(id))
        place = self._hash_key(number, digest)
        held = self._system.get(place)
        if held is not None and self._hash_codec.read(held, self._system) == id:
            self._system.delete(place)

    def message(self, number: int, id: int) -> bytes:
        """Give a message that is there, as Candid bytes."""
        data = self._entries.get(number, id)
        assert data is not None, "an id's topic has its message"
        return data

    def number_of(self, id: int) -> int | None:
        """Give the number of a message's topic; None where it is not there."""
        data = self._system.get(self._id_key(id)) if 0 < id < 2**64 else None
        return None if data is None else self._id_codec.read(data, self._system)

    def at_ns(self, id: int) -> int:
        """Give the time of a message that is there."""
        number = self.number_of(id)
        assert number is not None, "ids are dense"
        return time_of(self.message(number, id))

    def ids(self, low: int, high: int) -> Iterator[tuple[int, int]]:
        """Yield ids from `low` up to `high`, each with its topic's number."""
        if low >= high:
            return
        at = len(self._id_slot)
        scanned = self._system.scan(self._id_key(low), self._id_key(high))
        for key, data in islice(scanned, high - low):
            yield int.from_bytes(key[at:], "big"), self._id_codec.read(data, self._system)

    def known(self, number: int | None, digest: bytes) -> int | None:
        """Return the id of the same payload in a topic; None where it is not there."""
        data = None if number is None else self._system.get(self._hash_key(number, digest))
        if number is None or data is None:
            return None
        id = self._hash_codec.read(data, self._system)
        return id if digest_of(self.message(number, id)) == digest else None

    def find(self, digest: bytes) -> int | None:
        """Return the id of a payload in any topic; of several, that of the oldest topic."""
        start = self._hash_slot + digest[:_HASH_HEAD_SIZE_BYTES]
        after = next_prefix(start)
        assert after is not None, "slots do not begin with ff"
        for key, data in self._system.scan(start, after):
            id = self._hash_codec.read(data, self._system)
            number = int.from_bytes(key[len(start) :], "big")
            if digest_of(self.message(number, id)) == digest:
                return id
        return None

    def _id_key(self, id: int) -> bytes:
        return self._id_slot + id.to_bytes(8, "big")

    def _hash_key(self, number: int, digest: bytes) -> bytes:
        return self._hash_slot + digest[:_HASH_HEAD_SIZE_BYTES] + number.to_bytes(4, "big")
