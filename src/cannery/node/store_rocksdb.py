"""The durable store: RocksDB, through rocksdict in raw mode, behind `ports.Store` (ADR 0001).

`write` puts a batch into the write-ahead log without waiting for the disk; `sync` makes all earlier batches
durable. `sync` releases the interpreter and may run on its own thread while the next round executes. The live
store shows what is written and not yet durable: readers that must not see that read a `snapshot` taken after
a sync.

It knows nothing of what the keys and values mean.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from heapq import merge
from operator import itemgetter
from typing import Any, Final

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
from cannery.node.write_journal import WriteJournal
from cannery.ports import WriteBatch

_BLOOM_BITS_PER_KEY: Final = 10
_BLOCK_SIZE_BYTES: Final = 8 * 1024
_METADATA_BLOCK_SIZE_BYTES: Final = 4 * 1024
_LEVEL_COUNT: Final = 7
_UNCOMPRESSED_LEVEL_COUNT: Final = 2
_FORMAT_VERSION: Final = 5
_ONLY_FAMILY: Final = "default"
_CLOSED: Final = "this snapshot is closed"
_NOT_FOUND: Final = "key not found"
_POINT_DELETE_COUNT_MAX: Final = 64
_SKIP_COUNT_MAX: Final = 100
_GAVE_UP: Final = "Result incomplete"
_SCAN_COUNT_FIRST: Final = 16
_SCAN_COUNT_MAX: Final = 256

Pairs = list[tuple[bytes, bytes]]


class StoreLockedError(StoreError):
    """The store's directory is open in another process."""


class DiskFullError(StoreError):
    """There is no room left where the store stands."""


class _GaveUpError(StoreError):
    """An iterator met more deleted keys than it may walk over."""


class RocksSnapshot:
    """A fixed state of a `RocksStore`. It must be closed before its store is, and used by one thread.

    An iterator that rocksdict opens over a snapshot shows later writes all the same (only `get` keeps to the
    snapshot), so all scans share iterators that were opened together with it, and keep that state. These have
    no bounds: a seek walks over all deleted keys up to the next one that is there. The first of them gives up
    after some; the live store is read within the range's bounds then, and what was written since, which a
    journal knows, comes from the snapshot. Where the journal does not know, the second one walks.
    """

    __slots__ = ("_cursor", "_db", "_journal", "_live", "_number", "_snapshot", "_wary")

    def __init__(self, db: rocksdict.Rdict, journal: WriteJournal) -> None:
        self._db: rocksdict.Rdict | None = db
        self._journal = journal
        self._number = journal.number
        self._snapshot: rocksdict.Snapshot | None = _ask("read", db.snapshot)
        self._wary: rocksdict.RdictIter | None = _ask("read", db.iter, _read_options(_SKIP_COUNT_MAX))
        self._cursor: rocksdict.RdictIter | None = _ask("read", db.iter)
        self._live: set[_LiveRange] = set()

    def get(self, key: bytes) -> bytes | None:
        if self._snapshot is None:
            raise StoreError(_CLOSED)
        value: bytes | None = _ask("read", self._snapshot.__getitem__, key)
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        get = self.get
        return [get(key) for key in keys]

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs; scans of one snapshot may run at the same time."""
        return _pairs(lambda: _still_open(self._wary), start, end, reverse, self._among_deleted)

    def close(self) -> None:
        # Scans that nobody ended must not keep the engine's files open.
        for live in self._live:
            live.close()
        self._db = self._snapshot = self._wary = self._cursor = None

    def _among_deleted(self, start: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        if self._db is None:
            raise StoreError(_CLOSED)
        # The live state first, the journal then: what it shows of later writes is in the journal by then.
        live = _LiveRange(self._db, start, end, reverse)
        self._live.add(live)
        try:
            changed = self._journal.changed_since(self._number, start, end)
            if changed is None:
                live.close()
                yield from _pairs(lambda: _still_open(self._cursor), start, end, reverse)
                return
            unchanged = (pair for pair in live.pairs() if pair[0] not in changed)
            keys = sorted(changed, reverse=reverse)
            earlier = ((key, value) for key in keys if (value := self.get(key)) is not None)
            yield from merge(unchanged, earlier, key=itemgetter(0), reverse=reverse)
        finally:
            self._live.discard(live)


class RocksStore:
    """One subnet's store in the directory `path`, made if it is not there."""

    __slots__ = ("_closed", "_db", "_journal")

    def __init__(self, path: str) -> None:
        self._closed = False
        self._journal = WriteJournal()
        os.makedirs(path, mode=0o700, exist_ok=True)
        self._db: rocksdict.Rdict = _open(path)

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = _ask("read", self._db.get, key)
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = _ask("read", self._db.get, list(keys)) if keys else []
        return values

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs of the state at the first step; later writes do not show."""
        if start < end:
            yield from _LiveRange(self._engine(), start, end, reverse).pairs()

    def write(self, batch: WriteBatch) -> None:
        changes = rocksdict.WriteBatch(raw_mode=True)
        put, delete = changes.put, changes.delete
        changed: list[bytes] = []
        deleted_ranges: list[tuple[bytes, bytes]] = []
        for start, end in batch.deleted_ranges:
            if start < end:
                keys = self._few_keys(start, end)
                if keys is None:
                    changes.delete_range(start, end)
                    deleted_ranges.append((start, end))
                else:
                    changed += keys
        for key in changed:
            delete(key)
        size_bytes = 0
        for key, value in batch.puts.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
                size_bytes += len(value)
        # Before it shows, for scans of snapshots that are under way.
        self._journal.note([*changed, *batch.puts], deleted_ranges)
        _ask("write", self._db.write, changes)
        if size_bytes > STORE_WRITE_BUFFER_BYTES:
            # A write buffer grows with the batch that fills it: it goes to disk before another one does.
            del changes
            _ask("write", self._db.flush)

    def _few_keys(self, start: bytes, end: bytes) -> list[bytes] | None:
        """Give the keys of a range to be deleted one by one; None where it holds many.

        The engine sorts all deleted ranges of its write buffer anew for each iterator and each read after a
        write: with one range a round, a snapshot soon takes milliseconds.
        """
        keys: list[bytes] = _ask("read", _keys_between, self._db, start, end, _POINT_DELETE_COUNT_MAX + 1)
        return None if len(keys) > _POINT_DELETE_COUNT_MAX else keys

    def sync(self) -> None:
        _ask("write", self._db.flush_wal, True)

    def snapshot(self) -> RocksSnapshot:
        """Keep the state of the last write; taken by the thread that writes."""
        return RocksSnapshot(self._db, self._journal)

    def checkpoint(self, path: str) -> None:
        """Make a copy that can be opened as a store, by hard links where the file system is the same."""
        if os.path.exists(path):
            raise StoreError(f"cannot write a checkpoint to {path}: there is something already")
        self.sync()
        _ask("write", rocksdict.Checkpoint(self._db).create_checkpoint, path)

    def close(self) -> None:
        """Close the store; a second close does nothing. Snapshots must be closed before.

        After a failed write the engine fails to flush as well, and is let go of without: the log has what it
        has.
        """
        if not self._closed:
            self._closed = True
            with suppress(StoreError):
                _ask("close", self._db.close)
            del self._db

    def _engine(self) -> rocksdict.Rdict:
        if self._closed:
            raise StoreError("this store is closed")
        return self._db


class RocksCopy:
    """A store's directory, opened to be read: a checkpoint, or the store of a node that is stopped.

    Nothing in the directory changes. What the log holds shows.
    """

    __slots__ = ("_db",)

    def __init__(self, path: str) -> None:
        self._db: rocksdict.Rdict | None = _open(path, rocksdict.AccessType.read_only(False))

    def get(self, key: bytes) -> bytes | None:
        value: bytes | None = _ask("read", self._engine().get, key)
        return value

    def multi_get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        values: list[bytes | None] = _ask("read", self._engine().get, list(keys)) if keys else []
        return values

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs; scans may run at the same time."""
        if start < end:
            yield from _LiveRange(self._engine(), start, end, reverse).pairs()

    def close(self) -> None:
        if self._db is not None:
            _ask("close", self._db.close)
            self._db = None

    def _engine(self) -> rocksdict.Rdict:
        if self._db is None:
            raise StoreError("this copy of a store is closed")
        return self._db


def _ask(doing: str, call: Callable[..., Any], *args: object) -> Any:
    # Any: the engine's results as they come; each caller says what it gets.
    """Call the engine: its errors are plain `Exception`s, and a missing key of a snapshot is one of them."""
    try:
        return call(*args)
    except Exception as error:
        if str(error) == _NOT_FOUND:
            return None
        raise store_error(doing, str(error)) from error


def _open(path: str, access: rocksdict.AccessType | None = None) -> rocksdict.Rdict:
    """Open a directory with our options: those of its column family come from its last opening otherwise, but
    for the cache, which is 8 MB then.
    """
    options = _options()
    families = {_ONLY_FAMILY: options}
    access = access or rocksdict.AccessType.read_write()
    opened: rocksdict.Rdict = _ask(
        f"open {path},", lambda: rocksdict.Rdict(path, options, families, access_type=access)
    )
    return opened


class _LiveRange:
    """The pairs of a range as they are when it is made, read by iterators of its own, which do not leave it.

    Deleted keys stay in the store until the engine drops them, and an iterator walks over all that lie before
    the key it looks for. Upwards the engine stops at the bound. Downwards rocksdict sets none (its lower
    bound sets the upper one), so a wary iterator gives up after some, and then the range's first key is where
    to stop.
    """

    __slots__ = ("_cursor", "_end", "_reverse", "_start", "_wary")

    def __init__(self, db: rocksdict.Rdict, start: bytes, end: bytes, reverse: bool) -> None:
        # rocksdict hands the engine the address of the bound: it must live as long as the iterators do.
        self._start, self._end, self._reverse = start, end, reverse
        self._cursor: rocksdict.RdictIter | None = _ask("read", db.iter, _read_options(0, end))
        self._wary: rocksdict.RdictIter | None = None
        if reverse:
            self._wary = _ask("read", db.iter, _read_options(_SKIP_COUNT_MAX, end))

    def pairs(self) -> Iterator[tuple[bytes, bytes]]:
        if not self._reverse:
            return _pairs(lambda: _still_open(self._cursor), self._start, self._end, False)
        return _pairs(lambda: _still_open(self._wary), self._start, self._end, True, self._down_to_first)

    def close(self) -> None:
        self._cursor = self._wary = None

    def _down_to_first(self, start: bytes, end: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        for first, _ in _ask("read", _fetch, _still_open(self._cursor), start, end, 1):
            yield from _pairs(lambda: _still_open(self._cursor), first, end, reverse)


def _read_options(skip_count_max: int, end: bytes | None = None) -> rocksdict.ReadOptions:
    """The engine gives up after so many deleted keys (0: never), and stops at a bound by itself."""
    options = rocksdict.ReadOptions()
    options.set_max_skippable_internal_keys(skip_count_max)
    if end is not None:
        options.set_iterate_upper_bound(end)
    return options


def _keys_between(db: rocksdict.Rdict, start: bytes, end: bytes, count: int) -> list[bytes]:
    """Give the first `count` keys of a range, or all."""
    keys: list[bytes] = []
    cursor = db.iter(_read_options(0, end))
    cursor.seek(start)
    while len(keys) < count and cursor.valid():
        keys.append(cursor.key())
        cursor.next()
    cursor.status()
    return keys


def _pairs(
    cursor_of: Callable[[], rocksdict.RdictIter],
    start: bytes,
    end: bytes,
    reverse: bool,
    otherwise: Callable[[bytes, bytes, bool], Iterator[tuple[bytes, bytes]]] | None = None,
) -> Iterator[tuple[bytes, bytes]]:
    """Read pairs in pieces that grow; each piece begins with a seek, so that scans may share an iterator.

    What is left where the iterator gives up is read `otherwise`.
    """
    count = _SCAN_COUNT_FIRST
    fetch = _fetch_back if reverse else _fetch
    while start < end:
        # Between two pieces nobody holds the iterator but whose it is: a scan may never be ended.
        pairs = _try_fetch(fetch, cursor_of(), start, end, count)
        if pairs is None:
            assert otherwise is not None, "only wary iterators give up"
            yield from otherwise(start, end, reverse)
            return
        yield from pairs
        if len(pairs) < count:
            return
        if reverse:
            end = pairs[-1][0]
        else:
            start = pairs[-1][0] + b"\x00"
        count = _SCAN_COUNT_MAX


def _still_open(cursor: rocksdict.RdictIter | None) -> rocksdict.RdictIter:
    if cursor is None:
        raise StoreError(_CLOSED)
    return cursor


def _try_fetch(
    fetch: Callable[..., Pairs], cursor: rocksdict.RdictIter, start: bytes, end: bytes, count: int
) -> Pairs | None:
    """Read a piece; None where the iterator gives up."""
    try:
        pairs: Pairs = _ask("read", fetch, cursor, start, end, count)
    except _GaveUpError:
        return None
    return pairs


def _fetch(cursor: rocksdict.RdictIter, start: bytes, end: bytes, count: int) -> Pairs:
    pairs: Pairs = []
    cursor.seek(start)
    while cursor.valid():
        key = cursor.key()
        if key >= end:
            return pairs
        pairs.append((key, cursor.value()))
        if len(pairs) == count:
            return pairs
        cursor.next()
    cursor.status()
    return pairs


def _fetch_back(cursor: rocksdict.RdictIter, start: bytes, end: bytes, count: int) -> Pairs:
    pairs: Pairs = []
    cursor.seek_for_prev(end)
    while cursor.valid():
        key = cursor.key()
        if key < start:
            return pairs
        if key < end:
            pairs.append((key, cursor.value()))
        if len(pairs) == count or key == start:
            return pairs
        cursor.prev()
    cursor.status()
    return pairs


def store_error(doing: str, text: str) -> StoreError:
    """Turn an engine's error text into an error that says what to do."""
    if text.startswith(_GAVE_UP):
        return _GaveUpError(text)
    if "No space left" in text or "os error 28" in text or "Disk quota" in text:
        return DiskFullError(
            f"the disk is full: make room where the node's data stands, it goes on by itself ({text})"
        )
    if "LOCK" in text and ("lock" in text or "temporarily unavailable" in text):
        return StoreLockedError(f"the store is in use by another process: stop that node first ({text})")
    if "not compatible" in text or "not supported" in text or "Unsupported" in text:
        return StoreError(f"the store was written by a newer version: start that version ({text})")
    if "orruption" in text:
        return StoreError(f"cannot {doing}: the store is damaged; restore a backup ({text})")
    return StoreError(f"cannot {doing} the store: {text}")


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
    # Of few large shards: a block whose value is larger than one of its shards is never kept, and then every
    # seek among the small keys beside it reads it anew (9 MB: 1.3 ms).
    table.set_block_cache(rocksdict.Cache.new_hyper_clock_cache(STORE_BLOCK_CACHE_BYTES, _BLOCK_SIZE_BYTES))
    table.set_block_size(_BLOCK_SIZE_BYTES)
    table.set_bloom_filter(_BLOOM_BITS_PER_KEY, False)
    table.set_cache_index_and_filter_blocks(True)
    # Filters and indexes in small pieces: only what is asked for takes room in the cache.
    table.set_index_type(rocksdict.BlockBasedIndexType.two_level_index_search())
    table.set_partition_filters(True)
    table.set_metadata_block_size(_METADATA_BLOCK_SIZE_BYTES)
    table.set_pin_top_level_index_and_filter(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_format_version(_FORMAT_VERSION)
    options.set_block_based_table_factory(table)
    return options
