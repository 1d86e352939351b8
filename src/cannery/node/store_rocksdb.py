"""The durable store: RocksDB, through rocksdict in raw mode, behind `ports.Store` (ADR 0001).

`write` puts a batch into the write-ahead log without waiting for the disk; `sync` makes all earlier batches
durable. `sync` releases the interpreter and may run on its own thread while the next round executes. The live
store shows what is written and not yet durable: readers that must not see that read a `snapshot` taken after
a sync.

It knows nothing of what the keys and values mean.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Final

import rocksdict

from cannery.errors import StoreError
from cannery.limits import (
    STORE_BLOCK_CACHE_BYTES,
    STORE_LOG_FILE_BYTES_MAX,
    STORE_LOG_FILE_COUNT_MAX,
    STORE_OPEN_FILE_COUNT_MAX,
    STORE_WAL_BYTES_MAX,
    STORE_WRITE_BUFFER_BYTES,
    STORE_WRITE_BUFFER_COUNT_MAX,
)
from cannery.ports import WriteBatch

_BLOOM_BITS_PER_KEY: Final = 10
_BLOCK_SIZE_BYTES: Final = 8 * 1024
_LEVEL_COUNT: Final = 7
_UNCOMPRESSED_LEVEL_COUNT: Final = 2
_FORMAT_VERSION: Final = 5
_NOT_FOUND: Final = "key not found"


class StoreLockedError(StoreError):
    """The store's directory is open in another process."""


class DiskFullError(StoreError):
    """There is no room left where the store stands."""


class RocksSnapshot:
    """A fixed state of a `RocksStore`. It must be closed before its store is, and used by one thread.

    An iterator that rocksdict opens over a snapshot shows later writes all the same (only `get` keeps to the
    snapshot), so all scans share one iterator that was opened together with it, and keeps that state.
    """

    __slots__ = ("_cursor", "_scan", "_snapshot")

    def __init__(self, snapshot: rocksdict.Snapshot, cursor: rocksdict.RdictIter) -> None:
        self._snapshot: rocksdict.Snapshot | None = snapshot
        self._cursor: rocksdict.RdictIter | None = cursor
        self._scan: object = None

    def get(self, key: bytes) -> bytes | None:
        if self._snapshot is None:
            raise StoreError("this snapshot is closed")
        try:
            value: bytes = self._snapshot[key]
        except Exception as error:
            if str(error) == _NOT_FOUND:
                return None
            raise store_error("read", error) from error
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self.get
        return [get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        cursor = self._cursor
        if cursor is None:
            raise StoreError("this snapshot is closed")
        if start >= end:
            return
        this = object()
        seek, advance = (cursor.seek_for_prev, cursor.prev) if reverse else (cursor.seek, cursor.next)
        self._scan = this
        try:
            seek(end if reverse else start)
            while cursor.valid():
                key = cursor.key()
                if key < start or (key >= end and not reverse):
                    return
                if key < end:
                    yield key, cursor.value()
                    if self._cursor is None:
                        raise StoreError("this snapshot is closed")
                    if self._scan is not this:
                        # Another scan moved the shared iterator meanwhile.
                        self._scan = this
                        seek(key)
                advance()
            cursor.status()
        except StoreError:
            raise
        except Exception as error:
            raise store_error("read", error) from error

    def close(self) -> None:
        self._snapshot = None
        self._cursor = None


class RocksStore:
    """One subnet's store in the directory `path`, made if it is not there."""

    __slots__ = ("_closed", "_db", "_path")

    def __init__(self, path: str) -> None:
        self._path = path
        self._closed = False
        os.makedirs(path, mode=0o700, exist_ok=True)
        try:
            self._db = rocksdict.Rdict(path, _options())
        except Exception as error:
            raise _open_error(path, error) from error

    def get(self, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._db.get(key)
        except Exception as error:
            raise store_error("read", error) from error
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        try:
            values = self._db.get(list(keys))
        except Exception as error:
            raise store_error("read", error) from error
        return list(values or ())

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of the state at the first step; later writes do not show."""
        if start >= end:
            return
        options = rocksdict.ReadOptions()
        # The engine stops at the bound by itself, and so never walks over deleted keys that lie behind it.
        options.set_iterate_upper_bound(end)
        try:
            cursor = self._db.iter(options)
            if reverse:
                cursor.seek_for_prev(end)
            else:
                cursor.seek(start)
            advance = cursor.prev if reverse else cursor.next
            while cursor.valid():
                key = cursor.key()
                if key < start:
                    return
                yield key, cursor.value()
                advance()
            cursor.status()
        except StoreError:
            raise
        except Exception as error:
            raise store_error("read", error) from error

    def write(self, batch: WriteBatch) -> None:
        changes = rocksdict.WriteBatch(raw_mode=True)
        for start, end in batch.deleted_ranges:
            if start < end:
                changes.delete_range(start, end)
        put, delete = changes.put, changes.delete
        for key, value in batch.puts.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._db.write(changes)
        except Exception as error:
            raise store_error("write", error) from error

    def sync(self) -> None:
        try:
            self._db.flush_wal(True)
        except Exception as error:
            raise store_error("write", error) from error

    def snapshot(self) -> RocksSnapshot:
        try:
            return RocksSnapshot(self._db.snapshot(), self._db.iter())
        except Exception as error:
            raise store_error("read", error) from error

    def checkpoint(self, path: str) -> None:
        """Make a copy that can be opened as a store, by hard links where the file system is the same."""
        if os.path.exists(path):
            raise StoreError(f"cannot write a checkpoint to {path}: there is something already")
        try:
            self._db.flush_wal(True)
            rocksdict.Checkpoint(self._db).create_checkpoint(path)
        except Exception as error:
            raise store_error("write", error) from error

    def close(self) -> None:
        """Close the store; a second close does nothing. Snapshots must be closed before."""
        if not self._closed:
            self._closed = True
            self._db.close()


def store_error(doing: str, error: Exception) -> StoreError:
    """Turn an engine's error into one that says what to do."""
    text = str(error)
    if "No space left" in text or "os error 28" in text or "Disk quota" in text:
        return DiskFullError(
            f"the disk is full: make room where the node's data stands, it goes on by itself ({text})"
        )
    if "orruption" in text:
        return StoreError(
            f"cannot {doing}: the store is damaged; restore it from a backup or a replica ({text})"
        )
    return StoreError(f"cannot {doing} the store: {text}")


def _open_error(path: str, error: Exception) -> StoreError:
    text = str(error)
    if "LOCK" in text and ("lock" in text or "Resource temporarily unavailable" in text):
        return StoreLockedError(
            f"the store {path} is in use by another process: stop that node first ({text})"
        )
    if "not compatible" in text or "not supported" in text or "Unsupported" in text:
        return StoreError(f"the store {path} was written by a newer version: start that version ({text})")
    if "raw_mode" in text or "raw mode" in text or "config" in text:
        return StoreError(f"{path} holds a database that is not a store of this node ({text})")
    return store_error(f"open {path}:", error)


def _options() -> rocksdict.Options:
    options = rocksdict.Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_paranoid_checks(True)
    options.set_max_open_files(STORE_OPEN_FILE_COUNT_MAX)
    options.set_write_buffer_size(STORE_WRITE_BUFFER_BYTES)
    options.set_max_write_buffer_number(STORE_WRITE_BUFFER_COUNT_MAX)
    options.set_max_total_wal_size(STORE_WAL_BYTES_MAX)
    options.set_max_background_jobs(2)
    options.set_level_compaction_dynamic_level_bytes(True)
    options.set_keep_log_file_num(STORE_LOG_FILE_COUNT_MAX)
    options.set_max_log_file_size(STORE_LOG_FILE_BYTES_MAX)
    options.set_stats_dump_period_sec(0)
    none, lz4 = rocksdict.DBCompressionType.none(), rocksdict.DBCompressionType.lz4()
    options.set_compression_per_level(
        [none] * _UNCOMPRESSED_LEVEL_COUNT + [lz4] * (_LEVEL_COUNT - _UNCOMPRESSED_LEVEL_COUNT)
    )
    options.set_bottommost_compression_type(rocksdict.DBCompressionType.zstd())
    # Range deletes (pruned request statuses, deleted canisters) leave tombstones that slow every scan over
    # them; a file that is mostly tombstones is compacted early.
    options.add_compact_on_deletion_collector_factory(1000, 500, 0.5)
    table = rocksdict.BlockBasedOptions()
    table.set_block_cache(rocksdict.Cache(STORE_BLOCK_CACHE_BYTES))
    table.set_block_size(_BLOCK_SIZE_BYTES)
    table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(_FORMAT_VERSION)
    options.set_block_based_table_factory(table)
    return options
