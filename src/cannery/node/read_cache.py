"""What queries have read of the last durable state, kept for the queries that follow.

Many clients ask for the same: a hundred members of a zone for its last messages. What a round writes leaves
the cache when the round becomes durable, by key and by the stretch of keys that it lies in; so what is found
here is what the store would give. Kept are values and whole scans of canisters' records and stable state,
by canister, within a bound; whoever exceeds it begins anew.

A stretch is the first bytes of a stable key: space, canister, and the five bytes behind (of a collection and
the beginning of its keys). Only scans within one stretch are kept.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from cannery.limits import QUERY_CACHE_SIZE_BYTES_MAX, QUERY_CACHE_VALUE_SIZE_BYTES_MAX
from cannery.ports import StoreReader, WriteBatch
from cannery.replica.keys import ACCOUNTS, CANISTERS, META, STABLE

_SPACES: Final = frozenset((META, CANISTERS, ACCOUNTS, STABLE))
_STRETCH_SIZE_BYTES: Final = 5
_ENTRY_SIZE_BYTES: Final = 150
_KEY_SIZE_BYTES_MIN: Final = 2

Pairs = list[tuple[bytes, bytes]]
ScanKey = tuple[bytes, bytes, bool]


class _Group:
    """What is kept of one canister's keys in one space."""

    __slots__ = ("scans", "values")

    def __init__(self) -> None:
        self.values: dict[bytes, bytes | None] = {}
        self.scans: dict[bytes, dict[ScanKey, Pairs]] = {}


class ReadCache:
    """A reader over the last durable state that remembers; used by one thread, between rounds."""

    __slots__ = ("_groups", "_made", "_made_of", "_reader", "_size_bytes", "hits", "misses")

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self._groups: dict[bytes, _Group] = {}
        # What was made of values by name, and by each key or stretch that was read the names made of it.
        self._made: dict[bytes, tuple[object, int]] = {}
        self._made_of: dict[bytes, set[bytes]] = {}
        self._size_bytes = 0
        self.hits = 0
        self.misses = 0

    # --- reading

    def get(self, key: bytes) -> bytes | None:
        """Give a value."""
        if len(key) < _KEY_SIZE_BYTES_MIN:
            return self._reader.get(key)
        group = self._groups.get(key[: 2 + key[1]])
        if group is not None and key in group.values:
            self.hits += 1
            return group.values[key]
        value = self._reader.get(key)
        self.misses += 1
        group = self._room(key, _size_of(value))
        if group is not None:
            group.values[key] = value
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give several values."""
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Give the pairs of a range; a scan that goes to its end is kept."""
        stretch = _stretch_of(start, end)
        if not stretch:
            return self._reader.scan(start, end, reverse=reverse)
        group = self._groups.get(stretch[:-_STRETCH_SIZE_BYTES])
        if group is not None:
            scans = group.scans.get(stretch)
            found = None if scans is None else scans.get((start, end, reverse))
            if found is not None:
                self.hits += 1
                return iter(found)
        return self._scan(stretch, (start, end, reverse))

    def _scan(self, stretch: bytes, wanted: ScanKey) -> Iterator[tuple[bytes, bytes]]:
        self.misses += 1
        start, end, reverse = wanted
        pairs: Pairs = []
        size = _ENTRY_SIZE_BYTES
        for pair in self._reader.scan(start, end, reverse=reverse):
            if size <= QUERY_CACHE_VALUE_SIZE_BYTES_MAX:
                pairs.append(pair)
                size += _size_of(pair[1])
            yield pair
        group = self._room(start, size)
        if group is not None:
            group.scans.setdefault(stretch, {})[wanted] = pairs

    def _room(self, key: bytes, size: int) -> _Group | None:
        """Give the group that a key belongs to, with room made for so many bytes; None: it is not kept."""
        if key[0] not in _SPACES or size > QUERY_CACHE_VALUE_SIZE_BYTES_MAX:
            return None
        if self._size_bytes + size > QUERY_CACHE_SIZE_BYTES_MAX:
            self.clear()
        prefix = key[: 2 + key[1]]
        group = self._groups.get(prefix)
        if group is None:
            group = self._groups[prefix] = _Group()
        self._size_bytes += size
        return group

    # --- what was made of it

    def recall(self, name: bytes) -> object | None:
        """Give what was remembered and still holds."""
        found = self._made.get(name)
        return None if found is None else found[0]

    def remember(self, name: bytes, made: object, size_bytes: int, read: set[tuple[bytes, bytes]]) -> None:
        """Keep what was made of these keys and ranges; not, where a range lies in no one stretch."""
        size = size_bytes + _ENTRY_SIZE_BYTES * (2 + len(read))
        stretches = [_stretch_of(start, end) if end else start for start, end in read]
        if size > QUERY_CACHE_VALUE_SIZE_BYTES_MAX or not all(stretches):
            return
        if self._size_bytes + size > QUERY_CACHE_SIZE_BYTES_MAX:
            self.clear()
        for stretch in stretches:
            self._made_of.setdefault(stretch, set()).add(name)
        self._size_bytes += size
        self._made[name] = made, size

    # --- changes

    def moved(self, reader: StoreReader, batch: WriteBatch) -> None:
        """Go on with the next state, which these writes led to."""
        self._reader = reader
        for key in batch.puts:
            self._forget(key)
        if any(start[0] in _SPACES or start[0] != end[0] for start, end in batch.deleted_ranges):
            self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._groups.clear()
        self._made.clear()
        self._made_of.clear()
        self._size_bytes = 0

    def _forget(self, key: bytes) -> None:
        if len(key) < _KEY_SIZE_BYTES_MIN:
            return
        at = 2 + key[1]
        stretch = key[: at + _STRETCH_SIZE_BYTES]
        if self._made:
            for name in (*self._made_of.pop(key, ()), *self._made_of.pop(stretch, ())):
                self._size_bytes -= self._made.pop(name, (None, 0))[1]
        group = self._groups.get(key[:at])
        if group is None:
            return
        if key in group.values:
            self._size_bytes -= _size_of(group.values.pop(key))
        for pairs in group.scans.pop(stretch, {}).values():
            self._size_bytes -= _ENTRY_SIZE_BYTES + sum(_size_of(value) for _, value in pairs)


def _stretch_of(start: bytes, end: bytes) -> bytes:
    """Give the stretch that a range lies in; nothing where there is no such one."""
    if len(start) < _KEY_SIZE_BYTES_MIN:
        return b""
    size = 2 + start[1] + _STRETCH_SIZE_BYTES
    return start[:size] if len(start) >= size and end[:size] == start[:size] else b""


def _size_of(value: bytes | None) -> int:
    return _ENTRY_SIZE_BYTES + (0 if value is None else len(value))
