"""Which keys were written to a store of late: what a reader of an earlier state must not take from the live
one.

Kept are the keys of the last writes, within a bound; whoever asks for more is told that it is not known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from typing import Final

from cannery.limits import (
    STORE_JOURNAL_CHANGED_COUNT_MAX,
    STORE_JOURNAL_SIZE_BYTES_MAX,
    STORE_JOURNAL_WRITE_COUNT_MAX,
)

_KEY_OVERHEAD_BYTES: Final = 50


class _Write:
    """One write: its number, its keys, and the ranges that it deleted whole."""

    __slots__ = ("deleted_ranges", "is_sorted", "keys", "number", "size_bytes")

    def __init__(self, number: int, keys: list[bytes], deleted_ranges: Sequence[tuple[bytes, bytes]]) -> None:
        self.number = number
        self.keys = keys
        self.deleted_ranges = deleted_ranges
        self.is_sorted = False
        overhead = _KEY_OVERHEAD_BYTES * (len(keys) + 2 * len(deleted_ranges))
        self.size_bytes = sum(map(len, keys)) + overhead

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        """Give the keys of a range; they are sorted when somebody first asks, for few do."""
        if not self.is_sorted:
            self.keys.sort()
            self.is_sorted = True
        return self.keys[bisect_left(self.keys, start) : bisect_left(self.keys, end)]


class WriteJournal:
    """The last writes of one store; used by the thread that writes."""

    __slots__ = ("_forgotten", "_size_bytes", "_writes", "number")

    def __init__(self) -> None:
        self.number = 0
        """The last write's; a state that has it needs to ask for later ones only."""
        self._writes: deque[_Write] = deque()
        self._size_bytes = 0
        self._forgotten = 0

    def note(self, keys: list[bytes], deleted_ranges: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep what a write is going to change; it must come before the write shows."""
        self.number += 1
        write = _Write(self.number, keys, deleted_ranges)
        self._writes.append(write)
        self._size_bytes += write.size_bytes
        while (
            self._size_bytes > STORE_JOURNAL_SIZE_BYTES_MAX
            or len(self._writes) > STORE_JOURNAL_WRITE_COUNT_MAX
        ):
            oldest = self._writes.popleft()
            self._forgotten = oldest.number
            self._size_bytes -= oldest.size_bytes

    def changed_since(self, number: int, start: bytes, end: bytes) -> set[bytes] | None:
        """Give the keys of a range that were written after the write with a number.

        None where that is not known: the write is too long ago, a range of many keys was deleted, or too many
        were changed.
        """
        if number < self._forgotten:
            return None
        changed: set[bytes] = set()
        for write in reversed(self._writes):
            if write.number <= number:
                break
            if any(low < end and start < high for low, high in write.deleted_ranges):
                return None
            changed.update(write.between(start, end))
            if len(changed) > STORE_JOURNAL_CHANGED_COUNT_MAX:
                return None
        return changed
