"""The simulator's store: all of `ports.Store` in memory, with the faults of disks and machines.

What was written and not synced is lost in a crash, whole batches from the end (the engine drops a torn batch
by its checksum). An operation may take its time (`on_operation`). A damaged key cannot be read until it is
healed: the engine's checksums turn flipped bits into read errors. Writes and syncs fail with EIO or ENOSPC; a
sync covers what was written when it began, however late it ends. Snapshots cost nothing: each keeps the
values that later writes replace.
"""

from __future__ import annotations

import random
from bisect import bisect_left, insort
from collections.abc import Callable, Iterator, Sequence

from cannery.errors import StoreError
from cannery.ports import WriteBatch
from cannery.testing import Crashed

LOG_COUNT_MAX = 8

Undo = list[tuple[bytes, bytes | None]]


class SimSnapshot:
    """A fixed state: its own `old` values first, then those of later snapshots, then the live ones."""

    __slots__ = ("_store", "following", "old")

    def __init__(self, store: SimStore) -> None:
        self._store = store
        self.old: dict[bytes, bytes | None] = {}
        self.following: SimSnapshot | None = None

    def get(self, key: bytes) -> bytes | None:
        self._store.check_read(key)
        snapshot: SimSnapshot | None = self
        while snapshot is not None:
            if key in snapshot.old:
                return snapshot.old[key]
            snapshot = snapshot.following
        return self._store.values.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        old: dict[bytes, bytes | None] = {}
        snapshot: SimSnapshot | None = self
        while snapshot is not None:
            for key, value in snapshot.old.items():
                if start <= key < end:
                    old.setdefault(key, value)
            snapshot = snapshot.following
        live = self._store.pairs(start, end)
        if old:
            merged: dict[bytes, bytes | None] = {**dict(live), **old}
            live = [(key, value) for key, value in sorted(merged.items()) if value is not None]
        return iter(live[::-1] if reverse else live)

    def close(self) -> None:
        """Do nothing: what nobody refers to goes by itself."""


class SimStore:
    """The store of one simulated machine over all its crashes."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.values: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []
        self._newest: SimSnapshot | None = None
        self._unsynced: list[Undo] = []
        self._sync_covers: int | None = None
        self.operation_count = 0
        self.crash_at = 0
        self.fail_at = 0
        self.is_full = False
        self.is_down = False
        self.damaged: set[bytes] = set()
        self._is_lossy = False
        self._log: list[Undo] = []
        self._cut_off: list[dict[bytes, bytes | None]] = []
        self.copies: dict[str, SimStore] = {}
        self.on_write: Callable[[WriteBatch], None] = lambda batch: None
        self.on_operation: Callable[[], None] = lambda: None

    def load(self, values: dict[bytes, bytes]) -> None:
        """Start with a whole state."""
        self.values = dict(values)
        self._keys = sorted(values)

    # --- faults

    def go_down(self) -> None:
        """Lose power: every operation fails until `power_up`."""
        self.is_down = True

    def power_up(self) -> int:
        """Come back with what was synced and perhaps some first batches of what was not; give the lost
        number.
        """
        lost = self._chance.choice((0, len(self._unsynced), self._chance.randint(0, len(self._unsynced))))
        self._roll_back(lost)
        self.is_down = False
        self.crash_at = self.fail_at = 0
        return lost

    def damage_log(self, chance: random.Random) -> bool:
        """Flip a bit in the log of synced batches: the engine drops what stands behind it when it opens.

        Say whether there was any. Call it between `go_down` and `power_up`; `mend_log` takes it back.
        """
        count = chance.randint(0, len(self._log))
        if not count:
            return False
        self._roll_back(len(self._unsynced))
        for undo in reversed(self._log[-count:]):
            redo: dict[bytes, bytes | None] = {}
            for key, before in reversed(undo):
                # A key that the batch both deleted and put stands twice: the later state comes first here.
                redo.setdefault(key, self._set(key, before))
            self._cut_off.append(redo)
        return True

    @property
    def is_cut(self) -> bool:
        """Say whether the log is damaged."""
        return bool(self._cut_off)

    def mend_log(self) -> None:
        """Put back what was dropped, as a restored copy does."""
        while self._cut_off:
            for key, value in self._cut_off.pop().items():
                self._set(key, value)

    def forget_cut(self) -> None:
        """Leave what was dropped, because the node goes on without it."""
        self._cut_off.clear()
        self._log.clear()

    def begin_sync(self) -> None:
        """Note what the sync that starts now covers."""
        self._sync_covers = len(self._unsynced)

    @property
    def unsynced_count(self) -> int:
        return len(self._unsynced)

    def synced(self, key: bytes) -> bytes | None:
        """Give a value as the last sync left it."""
        for undo in self._unsynced:
            for each, before in undo:
                if each == key:
                    return before
        return self.values.get(key)

    def checkpointed(self) -> dict[bytes, bytes]:
        """Give a copy of everything."""
        return dict(self.values)

    # --- the port

    def get(self, key: bytes) -> bytes | None:
        self.check_read(key)
        return self.values.get(key)

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self.is_down or self.damaged:
            return [self.get(key) for key in keys]
        get = self.values.get
        return [get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        pairs = self.pairs(start, end)
        return iter(pairs[::-1] if reverse else pairs)

    def write(self, batch: WriteBatch) -> None:
        with_effect = self._operate("write")
        if with_effect:
            self._apply(batch)
        if self.is_down:
            raise Crashed(f"in write {self.operation_count}")

    def sync(self) -> None:
        with_effect = self._operate("sync")
        covers, self._sync_covers = self._sync_covers, None
        if with_effect:
            count = len(self._unsynced) if covers is None else covers
            self._log = [*self._log, *self._unsynced[:count]][-LOG_COUNT_MAX:]
            del self._unsynced[:count]
        if self.is_down:
            raise Crashed(f"in sync {self.operation_count}")

    def snapshot(self) -> SimSnapshot:
        self._operate("snapshot")
        if self.is_down:
            raise Crashed(f"in snapshot {self.operation_count}")
        snapshot = SimSnapshot(self)
        if self._newest is not None:
            self._newest.following = snapshot
        self._newest = snapshot
        return snapshot

    def checkpoint(self, path: str) -> None:
        """Keep a copy under a name, after a sync as the engine makes one; what is damaged in it is damaged in
        the copy, which has the same files by hard links.
        """
        with_effect = self._operate("sync")
        if with_effect:
            self._log = [*self._log, *self._unsynced][-LOG_COUNT_MAX:]
            self._unsynced.clear()
            if self._sync_covers is not None:
                self._sync_covers = 0
            copy = self.copies[path] = SimStore(self._chance)
            copy.load(self.values)
            copy.damaged = set(self.damaged)
        if self.is_down:
            raise Crashed(f"in checkpoint {self.operation_count}")

    def close(self) -> None:
        """Keep everything for `reopened`."""

    def reopened(self) -> SimStore:
        """Open it again, after a crash or within the same process."""
        if self.is_down:
            raise Crashed("the machine is down")
        if self._is_lossy:
            # A sync that failed may have dropped its pages: whoever opens again finds them or not.
            self._roll_back(self._chance.randint(0, len(self._unsynced)))
            self._is_lossy = False
        self._sync_covers = None
        return self

    # --- inside

    def check_read(self, key: bytes) -> None:
        """Raise where a read cannot be answered."""
        if self.is_down:
            raise Crashed("the machine is down")
        if key in self.damaged:
            raise StoreError("cannot read: the store is damaged; restore a backup (block checksum mismatch)")

    def pairs(self, start: bytes, end: bytes) -> list[tuple[bytes, bytes]]:
        """Give the live pairs of a range."""
        if self.is_down:
            raise Crashed("the machine is down")
        for key in self.damaged:
            if start <= key < end:
                self.check_read(key)
        keys, values = self._keys, self.values
        low = bisect_left(keys, start)
        if low == len(keys) or keys[low] >= end:
            return []
        return [(key, values[key]) for key in keys[low : bisect_left(keys, end, low)]]

    def _operate(self, kind: str) -> bool:
        """Count an operation and let it fail; say whether it has its effect."""
        if self.is_down:
            raise Crashed("the machine is down")
        self.operation_count += 1
        self.on_operation()
        if self.operation_count == self.crash_at:
            self.is_down = True
            return self._chance.random() < 0.5
        if kind == "snapshot":
            return True
        if self.is_full:
            raise StoreError("the disk is full: make room where the node's data stands (ENOSPC)")
        if self.operation_count == self.fail_at:
            self._is_lossy = kind == "sync"
            raise StoreError("cannot write the store: Input/output error (EIO)")
        return True

    def _apply(self, batch: WriteBatch) -> None:
        undo: Undo = []
        for start, end in batch.deleted_ranges:
            low, high = bisect_left(self._keys, start), bisect_left(self._keys, end)
            undo += [(key, self.values.pop(key)) for key in self._keys[low:high]]
            del self._keys[low:high]
        for key, value in batch.puts.items():
            undo.append((key, self._set(key, value)))
        self._unsynced.append(undo)
        if self._newest is not None:
            old = self._newest.old
            for key, before in undo:
                old.setdefault(key, before)
        self.on_write(batch)

    def _set(self, key: bytes, value: bytes | None) -> bytes | None:
        values = self.values
        before = values.get(key)
        if value is None:
            if before is not None:
                del values[key]
                del self._keys[bisect_left(self._keys, key)]
        else:
            if before is None:
                if not self._keys or key > self._keys[-1]:
                    self._keys.append(key)
                else:
                    insort(self._keys, key)
            values[key] = value
        return before

    def _roll_back(self, count: int) -> None:
        for _ in range(count):
            for key, before in reversed(self._unsynced.pop()):
                self._set(key, before)
        self._log = [*self._log, *self._unsynced][-LOG_COUNT_MAX:]
        self._unsynced.clear()
        self._newest = None
