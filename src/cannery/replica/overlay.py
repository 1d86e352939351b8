"""A layer of changes over an ordered reader: the round lays one over the store, each message one over the
round.

Reads fall through to what lies under; writes stay here until they are merged down or dropped. Scans merge
both ways and see deletions and deleted ranges. This module knows nothing of canisters but that stable state
is sorted for each one apart, so that a scan never sorts other canisters' keys.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Sequence
from typing import Final

from cannery.errors import StoreError
from cannery.limits import READ_CACHE_SIZE_BYTES_MAX, SORTED_INSERT_COUNT_MAX, SORTED_LATE_COUNT_MAX
from cannery.ports import StoreReader, WriteBatch
from cannery.replica.keys import STABLE


def _bucket_of(key: bytes) -> bytes:
    """Name the group that a key is sorted in: one canister's stable state, or a whole other space."""
    return key[: 2 + key[1]] if key[0] == STABLE else key[:1]


class _Ranges:
    """Disjoint ranges of deleted keys in order."""

    __slots__ = ("ends", "starts")

    def __init__(self) -> None:
        self.starts: list[bytes] = []
        self.ends: list[bytes] = []

    def covers(self, key: bytes) -> bool:
        place = bisect_right(self.starts, key) - 1
        return place >= 0 and key < self.ends[place]

    def add(self, start: bytes, end: bytes) -> None:
        low = bisect_left(self.ends, start)
        high = bisect_right(self.starts, end)
        if low < high:
            start = min(start, self.starts[low])
            end = max(end, self.ends[high - 1])
        self.starts[low:high] = [start]
        self.ends[low:high] = [end]


class _SortedKeys:
    """Keys written in one bucket, in order; of many, those that came late wait until somebody scans."""

    __slots__ = ("keys", "late")

    def __init__(self) -> None:
        self.keys: list[bytes] = []
        self.late: list[bytes] = []

    def add(self, key: bytes) -> None:
        keys = self.keys
        if not keys or key > keys[-1]:
            keys.append(key)
        elif len(keys) < SORTED_INSERT_COUNT_MAX:
            insort(keys, key)
        else:
            self.late.append(key)

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        low, high = self._bounds(start, end)
        return self.keys[low:high]

    def remove_between(self, start: bytes, end: bytes) -> list[bytes]:
        low, high = self._bounds(start, end)
        removed = self.keys[low:high]
        del self.keys[low:high]
        return removed

    def _bounds(self, start: bytes, end: bytes) -> tuple[int, int]:
        if len(self.late) > SORTED_LATE_COUNT_MAX:
            self.keys += self.late
            self.keys.sort()
            self.late.clear()
        elif self.late:
            # A sort looks at every key, also where a few are out of order.
            for key in self.late:
                insort(self.keys, key)
            self.late.clear()
        return bisect_left(self.keys, start), bisect_left(self.keys, end)


class Layer:
    """Changes over a reader; itself a reader. Keys are never empty."""

    __slots__ = ("_ranges", "_sorted", "_under", "values")

    def __init__(self, under: StoreReader) -> None:
        self._under = under
        self.values: dict[bytes, bytes | None] = {}
        self._sorted: dict[bytes, _SortedKeys] = {}
        self._ranges: _Ranges | None = None

    def get(self, key: bytes) -> bytes | None:
        """Give the value under a key as it is with this layer's changes."""
        values = self.values
        if key in values:
            return values[key]
        if self._ranges is not None and self._ranges.covers(key):
            return None
        return self._under.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give the values under several keys."""
        return [self.get(key) for key in keys]

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set a value; None deletes the key."""
        values = self.values
        if key not in values:
            bucket = _bucket_of(key)
            group = self._sorted.get(bucket)
            if group is None:
                group = self._sorted[bucket] = _SortedKeys()
            group.add(key)
        values[key] = value

    def delete(self, key: bytes) -> None:
        """Delete a key."""
        self.put(key, None)

    def delete_range(self, start: bytes, end: bytes) -> None:
        """Delete all keys from `start` up to `end`, within one space (in stable state, one canister)."""
        if start >= end:
            return
        group = self._sorted.get(_bucket_of(start))
        if group is not None:
            for key in group.remove_between(start, end):
                del self.values[key]
        if self._ranges is None:
            self._ranges = _Ranges()
        self._ranges.add(start, end)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs from `start` up to `end`, within one space (and, in stable state, one canister).

        A change made while the scan is open shows where its key had been written or stored before it began.
        """
        if start >= end:
            return iter(())
        group = self._sorted.get(_bucket_of(start))
        keys = group.between(start, end) if group is not None else []
        return self._merged(keys, start, end, reverse)

    def _merged(
        self, keys: list[bytes], start: bytes, end: bytes, reverse: bool
    ) -> Iterator[tuple[bytes, bytes]]:
        values = self.values
        if reverse:
            keys.reverse()
        place, count = 0, len(keys)
        for pair in self._under.scan(start, end, reverse=reverse):
            key = pair[0]
            while place < count and (keys[place] > key if reverse else keys[place] < key):
                value = values.get(keys[place])
                if value is not None:
                    yield keys[place], value
                place += 1
            if key in values:
                if place < count and keys[place] == key:
                    place += 1
                value = values[key]
                if value is not None:
                    yield key, value
            elif self._ranges is None or not self._ranges.covers(key):
                yield pair
        for key in keys[place:]:
            value = values.get(key)
            if value is not None:
                yield key, value

    def merge_into(self, lower: Layer) -> None:
        """Apply this layer's changes to the one it lies on."""
        if self._ranges is not None:
            for start, end in zip(self._ranges.starts, self._ranges.ends, strict=True):
                lower.delete_range(start, end)
        for key, value in self.values.items():
            lower.put(key, value)

    def covers(self, key: bytes) -> bool:
        """Say whether a key lies in a deleted range."""
        return self._ranges is not None and self._ranges.covers(key)

    @property
    def deleted_ranges(self) -> list[tuple[bytes, bytes]]:
        """Give the deleted ranges in key order."""
        if self._ranges is None:
            return []
        return list(zip(self._ranges.starts, self._ranges.ends, strict=True))


READ: Final[type] = type(iter([0]))
"""The type of a scan whose pairs are all there."""


class CachedReader:
    """Keeps what a round has read from the store, up to `READ_CACHE_SIZE_BYTES_MAX`; itself a reader.

    It also keeps the first failure of the store: a program that reads may turn it into a trap, or take it for
    an answer, and whoever runs programs must not believe what they made of it (`check`).
    """

    __slots__ = ("_reader", "_size_bytes", "failure", "known")

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self.known: dict[bytes, bytes | None] = {}
        self._size_bytes = 0
        self.failure: StoreError | None = None

    def check(self) -> None:
        """Raise the first `StoreError` that any read met, whoever caught it."""
        if self.failure is not None:
            raise self.failure

    def get(self, key: bytes) -> bytes | None:
        """Give the stored value."""
        known = self.known
        if key in known:
            return known[key]
        try:
            value = self._reader.get(key)
        except StoreError as error:
            self.failure = self.failure or error
            raise
        self._keep(key, value)
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give several stored values with one look into the store."""
        missing = [key for key in keys if key not in self.known]
        if missing:
            try:
                values = self._reader.multi_get(missing)
            except StoreError as error:
                self.failure = self.failure or error
                raise
            for key, value in zip(missing, values, strict=True):
                self._keep(key, value)
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Scan the store itself."""
        try:
            found = self._reader.scan(start, end, reverse=reverse)
        except StoreError as error:
            self.failure = self.failure or error
            raise
        # Pairs that were read before cannot fail.
        return found if type(found) is READ else self._scan(found)

    def _scan(self, found: Iterator[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
        try:
            yield from found
        except StoreError as error:
            self.failure = self.failure or error
            raise

    def _keep(self, key: bytes, value: bytes | None) -> None:
        self._size_bytes += len(key) + (len(value) if value is not None else 0) + 128
        if self._size_bytes > READ_CACHE_SIZE_BYTES_MAX:
            self.known.clear()
            self._size_bytes = len(key) + (len(value) if value is not None else 0) + 128
        self.known[key] = value


def batch_of(layer: Layer, reader: CachedReader) -> WriteBatch:
    """Give a layer's changes as a batch, without puts that change nothing and deletions of what is not there.

    It compares with what is stored, never with what happened to be read: a message that was stopped
    half-way has read more in one execution than in another, and the batch must not show it.
    """
    stored = reader.multi_get(list(layer.values))
    ranges = layer.deleted_ranges
    puts: dict[bytes, bytes | None] = {}
    for (key, value), before in zip(layer.values.items(), stored, strict=True):
        if ranges and layer.covers(key):
            before = None
        if value != before:
            puts[key] = value
    return WriteBatch(puts=puts, deleted_ranges=ranges)
