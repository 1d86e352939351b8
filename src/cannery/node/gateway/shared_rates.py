"""Rate limits that hold for all gateway processes of a node together: their buckets stand in a mapped file.

Which gateway a connection meets is chance, so buckets of each process's own would let a client have several
times what the operator allows. Here every process finds the bucket of a principal or address in the same
table: sets of eight buckets, in each of which whoever was quiet longest makes room for who is new. Two
processes that write at the same moment may lose one token: a limit may let through a little more, never less.

A bucket is a keyed hash of whom it is for and the time at which it will be full again, by the machine's
monotonic clock, which is the same in all processes. 64 bits of a secret hash meet neither by chance nor by
intent.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import Final

from cannery.limits import RATE_KEY_CACHE_COUNT_MAX
from cannery.node.mapped_file import map_numbers

_WAYS: Final = 8
_NUMBER_BYTES: Final = 8
_SET_BYTES: Final = 2 * _WAYS * _NUMBER_BYTES


class SharedTable:
    """Behind `rate_limit.Table`: at least `count_max` times, in a file."""

    __slots__ = ("_find_place", "_numbers")

    def __init__(self, path: Path, secret: bytes, count_max: int) -> None:
        """Map the table, made if need be; `secret` (up to 64 bytes) is the node's. Raises `StoreError`."""
        set_count = -(-count_max // _WAYS)
        self._numbers = map_numbers(path, set_count * _SET_BYTES)

        @lru_cache(maxsize=RATE_KEY_CACHE_COUNT_MAX)
        def find_place(key: str | bytes) -> tuple[int, int]:
            """Give the tag of a key, which is never 0, and where its set begins."""
            data = key if isinstance(key, bytes) else key.encode("utf-8", "surrogatepass")
            digest = blake2b(data, digest_size=2 * _NUMBER_BYTES, key=secret).digest()
            tag = int.from_bytes(digest[:_NUMBER_BYTES], "little") or 1
            chosen = int.from_bytes(digest[_NUMBER_BYTES:], "little") % set_count
            return tag, chosen * 2 * _WAYS

        self._find_place = find_place

    def get(self, key: str | bytes) -> int:
        tag, base = self._find_place(key)
        tags = self._numbers[base : base + _WAYS].tolist()
        if tag not in tags:
            return 0
        found: int = self._numbers[base + _WAYS + tags.index(tag)]
        return found

    def put(self, key: str | bytes, full_ns: int) -> None:
        tag, base = self._find_place(key)
        numbers = self._numbers
        tags = numbers[base : base + _WAYS].tolist()
        if tag in tags:
            place = tags.index(tag)
        else:
            times = numbers[base + _WAYS : base + 2 * _WAYS].tolist()
            place = times.index(min(times))
            numbers[base + place] = tag
        numbers[base + _WAYS + place] = full_ns

    def __len__(self) -> int:
        """Count the keys that are known; slow."""
        sets = range(0, len(self._numbers), 2 * _WAYS)
        return sum(tag != 0 for base in sets for tag in self._numbers[base : base + _WAYS].tolist())
