"""Stores for tests: `MemoryStore`, and `FaultyStore`, which breaks as disks and machines do.

Both stand behind `ports.Store`. A `FaultyStore` keeps what survives a power cut apart from what is merely
written: a `crash` drops unsynced batches, whole batches only and from the end, as a write-ahead log does.
Everything random comes
from its seed.

Nothing here touches a disk, sleeps or measures time.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

from cannery.errors import StoreError
from cannery.ports import WriteBatch


class MemorySnapshot:
    """A fixed state of a `MemoryStore`."""

    __slots__ = ("_keys", "_values")

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self._keys = keys
        self._values = values

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self._values.get
        return [get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        values = self._values
        keys = self._keys[bisect_left(self._keys, start) : bisect_left(self._keys, end)]
        return iter([(key, values[key]) for key in (reversed(keys) if reverse else keys)])

    def close(self) -> None:
        self._keys = []
        self._values = {}


class MemoryStore:
    """A store that lives as long as the object, and is open again after a `close`."""

    def __init__(self) -> None:
        self._keys: list[bytes] = []
        self._values: dict[bytes, bytes] = {}
        self._shared = False

    def get(self, key: bytes) -> bytes | None:
        return self._values.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self._values.get
        return [get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        return MemorySnapshot(self._keys, self._values).scan(start, end, reverse=reverse)

    def write(self, batch: WriteBatch) -> None:
        if self._shared:
            self._keys, self._values, self._shared = self._keys.copy(), self._values.copy(), False
        keys, values = self._keys, self._values
        for start, end in batch.deleted_ranges:
            low, high = bisect_left(keys, start), bisect_left(keys, end)
            for key in keys[low:high]:
                del values[key]
            del keys[low:high]
        for key, value in batch.puts.items():
            if value is None:
                if values.pop(key, None) is not None:
                    del keys[bisect_left(keys, key)]
            else:
                if key not in values:
                    insort(keys, key)
                values[key] = value

    def sync(self) -> None:
        """Do nothing: what is in memory is lost all at once."""

    def snapshot(self) -> MemorySnapshot:
        self._shared = True
        return MemorySnapshot(self._keys, self._values)

    def checkpoint(self, path: str) -> None:
        raise StoreError(f"a store in memory has no files for a checkpoint at {path}")

    def close(self) -> None:
        """Keep everything, for whoever opens it again."""


class Crashed(BaseException):
    """The machine went down under a `FaultyStore`. Not an `Exception`: nothing in a node may survive it."""


class FaultyStore:
    """A store that fails on request, and loses what was not synced when it crashes.

    Operations (writes and syncs) are counted from 1; `crash_at` and `fail_at` name one of them. After a crash
    every operation raises `Crashed` until `reopen`. `on_sync` runs inside each sync, before it takes effect.
    """

    def __init__(self, seed: int = 0, *, on_sync: Callable[[], None] | None = None) -> None:
        self.operation_count = 0
        self.on_sync = on_sync
        self._random = random.Random(seed)
        self._live = MemoryStore()
        self._durable = self._live.snapshot()
        self._unsynced: list[WriteBatch] = []
        self._crash_at = 0
        self._fail_at = 0
        self._failure = StoreError("")
        self._full = False
        self._crashed = False

    # --- faults

    def crash_at(self, operation: int) -> None:
        """Crash in the operation with this number, counted from the first one; 0 means never."""
        self._crash_at = operation

    def fail_at(self, operation: int, text: str = "Input/output error") -> None:
        """Let the operation with this number fail once, without effect."""
        self._fail_at = operation
        self._failure = StoreError(f"cannot write the store: {text}")

    def fill_disk(self) -> None:
        """Let every write and sync fail from now on, as on a full disk."""
        self._full = True

    def free_disk(self) -> None:
        """Make room again."""
        self._full = False

    def crash(self) -> None:
        """Lose power now: what is synced stays, of what is not some first batches may."""
        kept = self._random.randint(0, len(self._unsynced))
        self._live = MemoryStore()
        self._live.write(WriteBatch(puts=dict(self._durable.scan(b"", _AFTER_ALL_KEYS))))
        for batch in self._unsynced[:kept]:
            self._live.write(batch)
        self._crashed = True

    def reopen(self) -> FaultyStore:
        """Open the store after a crash or a close, with what survived; all of that counts as durable."""
        self._crashed = False
        self._durable = self._live.snapshot()
        self._unsynced = []
        return self

    @property
    def is_crashed(self) -> bool:
        """Whether the store is down until it is reopened."""
        return self._crashed

    # --- the port

    def get(self, key: bytes) -> bytes | None:
        self._check_up()
        return self._live.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        self._check_up()
        return self._live.multi_get(keys)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._check_up()
        return self._live.scan(start, end, reverse=reverse)

    def write(self, batch: WriteBatch) -> None:
        copy = WriteBatch(dict(batch.puts), list(batch.deleted_ranges))
        self._operate(lambda: self._write(copy))

    def sync(self) -> None:
        if self.on_sync is not None:
            self.on_sync()
        self._operate(self._sync)

    def snapshot(self) -> MemorySnapshot:
        self._check_up()
        return self._live.snapshot()

    def checkpoint(self, path: str) -> None:
        raise StoreError(f"a store in memory has no files for a checkpoint at {path}")

    def close(self) -> None:
        """Keep everything, for `reopen`."""

    # --- inside

    def _write(self, batch: WriteBatch) -> None:
        self._live.write(batch)
        self._unsynced.append(batch)

    def _sync(self) -> None:
        self._durable = self._live.snapshot()
        self._unsynced = []

    def _operate(self, effect: Callable[[], None]) -> None:
        self._check_up()
        self.operation_count += 1
        if self._full:
            raise StoreError("the disk is full: make room where the node's data stands, it goes on by itself")
        if self.operation_count == self._fail_at:
            raise self._failure
        if self.operation_count == self._crash_at:
            if self._random.random() < 0.5:
                effect()
            self.crash()
            raise Crashed(f"at operation {self.operation_count}")
        effect()

    def _check_up(self) -> None:
        if self._crashed:
            raise Crashed("the store is down until it is reopened")


_AFTER_ALL_KEYS = b"\xff" * 64
