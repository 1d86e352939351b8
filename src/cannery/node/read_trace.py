"""What a query has read: keys and ranges, so that a round that changes none of them need not run it again.

Values under a hash (modules, schemas, types) never change and may come from a cache beside the reader; what
is kept under other keys passes through here. Ranges are kept by what their keys begin with: space and owner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cannery.limits import WATCH_READ_COUNT_MAX
from cannery.ports import StoreReader


class ReadTrace:
    """A reader that notes what is read through it. `is_broad`: too much, or across owners: all of it."""

    __slots__ = ("_reader", "is_broad", "keys", "ranges")

    def __init__(self, reader: StoreReader) -> None:
        self._reader = reader
        self.keys: set[bytes] = set()
        self.ranges: set[tuple[bytes, bytes]] = set()
        self.is_broad = False

    def get(self, key: bytes) -> bytes | None:
        """Give a value."""
        self.keys.add(key)
        self._bound()
        return self._reader.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Give values."""
        self.keys.update(keys)
        self._bound()
        return self._reader.multi_get(keys)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Scan; the whole range counts as read, however soon the scan ends."""
        if owner_prefix(start, end) is None:
            self.is_broad = True
        self.ranges.add((start, end))
        self._bound()
        return self._reader.scan(start, end, reverse=reverse)

    def close(self) -> None:
        """Let go of the reader."""
        del self._reader

    def _bound(self) -> None:
        if len(self.keys) + len(self.ranges) > WATCH_READ_COUNT_MAX:
            self.is_broad = True
            self.keys.clear()
            self.ranges.clear()


def key_prefix(key: bytes) -> bytes:
    """Give space, length and owner of a key that is ordered by owner; of other keys, some beginning."""
    return key[: 2 + key[1]] if len(key) > 1 else key


def owner_prefix(start: bytes, end: bytes) -> bytes | None:
    """Give what all keys of a range begin with, where that is one owner's keys of one space."""
    prefix = key_prefix(start)
    if len(prefix) < 2 or len(prefix) != 2 + prefix[1]:
        return None
    last = int.from_bytes(prefix, "big") + 1
    is_within = end <= last.to_bytes(len(prefix) + (last.bit_length() > 8 * len(prefix)), "big")
    return prefix if is_within else None
