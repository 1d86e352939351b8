"""A sorted map in memory behind `ports.StoreReader`, with `write` and a fixed copy of itself."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from cannery.ports import WriteBatch


class MemoryReader:
    """An ordered store for tests of the state machine, which needs no more of a store."""

    def __init__(self, values: dict[bytes, bytes] | None = None) -> None:
        self._values = dict(values or {})
        self._keys = sorted(self._values)

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self._values.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, self._values[key]) for key in (reversed(keys) if reverse else keys)])

    def write(self, batch: WriteBatch) -> None:
        for start, end in batch.deleted_ranges:
            low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
            for key in self._keys[low:high]:
                del self._values[key]
            del self._keys[low:high]
        for key, value in batch.puts.items():
            if value is None:
                if self._values.pop(key, None) is not None:
                    del self._keys[bisect_left(self._keys, key)]
            else:
                if key not in self._values:
                    insort(self._keys, key)
                self._values[key] = value

    def copy(self) -> MemoryReader:
        return MemoryReader(self._values)
