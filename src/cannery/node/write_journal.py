"""Which keys were written to a store of late: what a reader of an earlier state must not take from the live
one.

Kept are the keys of the last writes, within a bound; whoever asks for more is told that it is not known.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Iterable, Sequence

from cannery.limits import (
    STORE_JOURNAL_CHANGED_COUNT_MAX,
    STORE_JOURNAL_KEY_COUNT_MAX,
    STORE_JOURNAL_WRITE_COUNT_MAX,
)


class _Write:
    """One write: its number, its keys, and the ranges that it deleted."""

    __slots__ = ("keys", "number", "ranges", "sorted")

    def __init__(self, number: int, keys: list[bytes], ranges: tuple[tuple[bytes, bytes], ...]) -> None:
        self.number = number
        self.keys = keys
        self.ranges = ranges
        self.sorted = False

    def between(self, start: bytes, end: bytes) -> list[bytes]:
        """Give the keys of a range; they are sorted when somebody first asks, for few do."""
        if not self.sorted:
            # A copy: another thread may be looking.
            self.keys = sorted(self.keys)
            self.sorted = True
        return self.keys[bisect_left(self.keys, start) : bisect_left(self.keys, end)]


class WriteJournal:
    """The last writes of one store. One thread writes; others may ask meanwhile."""

    __slots__ = ("_forgotten", "_key_count", "_writes", "number")

    def __init__(self) -> None:
        self.number = 0
        """The last write's; a state that has it needs to ask for later ones only."""
        self._writes: deque[_Write] = deque()
        self._key_count = 0
        self._forgotten = 0

    def note(self, keys: Iterable[bytes], ranges: Sequence[tuple[bytes, bytes]]) -> None:
        """Keep what a write is going to change; it must come before the write shows."""
        write = _Write(self.number + 1, list(keys), tuple(ranges))
        self._writes.append(write)
        self.number = write.number
        self._key_count += len(write.keys)
        while (
            self._key_count > STORE_JOURNAL_KEY_COUNT_MAX or len(self._writes) > STORE_JOURNAL_WRITE_COUNT_MAX
        ):
            self._forgotten = self._writes[0].number
            self._key_count -= len(self._writes.popleft().keys)

    def changed_since(self, number: int, start: bytes, end: bytes) -> set[bytes] | None:
        """Give the keys of a range that were written after the write with a number.

        None where that is not known: the write is too long ago, a range of keys was deleted, or there are too
        many.
        """
        changed: set[bytes] = set()
        for write in reversed(tuple(self._writes)):
            if write.number <= number:
                break
            if any(low < end and start < high for low, high in write.ranges):
                return None
            changed.update(write.between(start, end))
            if len(changed) > STORE_JOURNAL_CHANGED_COUNT_MAX:
                return None
        return None if number < self._forgotten else changed
