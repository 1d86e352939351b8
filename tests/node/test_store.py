"""The store's law: RocksDB and the store in memory do the same, whatever is done to them."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cannery
from cannery.errors import StoreError
from cannery.limits import STORE_BLOCK_CACHE_BYTES
from cannery.node.store_rocksdb import DiskFullError, RocksCopy, RocksStore, StoreLockedError, store_error
from cannery.ports import StoreReader, WriteBatch
from cannery.testing.store import Crashed, FaultyStore, MemoryStore

KEYS = st.binary(min_size=1, max_size=3)
RANGES = st.tuples(KEYS, KEYS)
BATCHES = st.builds(
    WriteBatch,
    puts=st.dictionaries(KEYS, st.none() | st.binary(max_size=5), max_size=8),
    deleted_ranges=st.lists(RANGES, max_size=2),
)


def contents(reader: StoreReader) -> list[tuple[bytes, bytes]]:
    return list(reader.scan(b"", b"\xff" * 8))


@settings(max_examples=40, deadline=None)
@given(
    batches=st.lists(BATCHES, max_size=8),
    ranges=st.lists(RANGES, min_size=1, max_size=5),
    keys=st.lists(KEYS),
)
def test_rocksdb_and_memory_do_the_same(
    batches: list[WriteBatch], ranges: list[tuple[bytes, bytes]], keys: list[bytes]
) -> None:
    path = tempfile.mkdtemp()
    real, model = RocksStore(path), MemoryStore()
    try:
        snapshots = []
        for batch in batches:
            real.write(batch)
            model.write(batch)
            snapshots.append((real.snapshot(), model.snapshot()))
        for one, other in [(real, model), *snapshots]:
            assert contents(one) == contents(other)
            assert one.multi_get(keys) == other.multi_get(keys) == [one.get(key) for key in keys]
            for start, end in ranges:
                for reverse in (False, True):
                    found = list(one.scan(start, end, reverse=reverse))
                    assert found == list(other.scan(start, end, reverse=reverse))
                    assert all(start <= key < end for key, _ in found)
        for snapshot, _ in snapshots:
            snapshot.close()
        real.sync()
        real.close()
        real = RocksStore(path)
        assert contents(real) == contents(model)
    finally:
        real.close()
        shutil.rmtree(path)


@settings(max_examples=100, deadline=None)
@given(batches=st.lists(BATCHES, max_size=10), synced=st.integers(0, 10), seed=st.integers(0, 1000))
def test_a_crash_keeps_what_was_synced_and_a_prefix_of_the_rest(
    batches: list[WriteBatch], synced: int, seed: int
) -> None:
    store, model = FaultyStore(seed), MemoryStore()
    states = []
    for number, batch in enumerate(batches):
        if number == synced:
            store.sync()
            states = []
        states.append(contents(model))
        store.write(batch)
        model.write(batch)
    states.append(contents(model))
    if synced >= len(batches):
        store.sync()
        states = [contents(model)]
    store.crash()
    with pytest.raises(Crashed):
        store.get(b"a")
    assert contents(store.reopen()) in states


def test_a_crash_in_an_operation_happens_once_and_whole() -> None:
    outcomes = set()
    for seed in range(20):
        store = FaultyStore(seed)
        store.crash_at(2)
        store.write(WriteBatch(puts={b"a": b"1"}))
        with pytest.raises(Crashed):
            store.sync()
        outcomes.add(store.reopen().get(b"a"))
    assert outcomes == {None, b"1"}


def test_a_full_disk_fails_until_there_is_room() -> None:
    store = FaultyStore()
    store.fill_disk()
    with pytest.raises(StoreError, match="disk is full"):
        store.write(WriteBatch(puts={b"a": b"1"}))
    store.free_disk()
    store.write(WriteBatch(puts={b"a": b"1"}))
    assert store.get(b"a") == b"1"


def test_a_store_is_open_once(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    with pytest.raises(StoreLockedError, match="in use by another process"):
        RocksStore(str(tmp_path / "s"))
    code = f"from cannery.node.store_rocksdb import RocksStore; RocksStore({str(tmp_path / 's')!r})"
    path = {"PYTHONPATH": str(Path(cannery.__file__).parents[1])}
    other = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=path
    )
    assert "StoreLockedError" in other.stderr
    store.close()
    RocksStore(str(tmp_path / "s")).close()


def test_a_foreign_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / "CURRENT").write_text("what is this\n")
    with pytest.raises(StoreError, match="the store"):
        RocksStore(str(tmp_path / "s"))


def test_a_checkpoint_opens_with_the_same_contents(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    store.write(WriteBatch(puts={b"a": b"1", b"b": b"2"}))
    store.checkpoint(str(tmp_path / "copy"))
    store.write(WriteBatch(puts={b"a": None}))
    copy = RocksStore(str(tmp_path / "copy"))
    assert contents(copy) == [(b"a", b"1"), (b"b", b"2")]
    with pytest.raises(StoreError, match="already"):
        store.checkpoint(str(tmp_path / "copy"))
    copy.close()
    store.close()


def test_filters_and_indexes_are_in_pieces_that_fit_the_cache(tmp_path: Path) -> None:
    """Whole ones of large files do not fit its shards: reads of absent keys took 400 us instead of 7."""
    RocksStore(str(tmp_path / "store")).close()
    written = max((tmp_path / "store").glob("OPTIONS-*")).read_text()
    for option in (
        "partition_filters=true",
        "index_type=kTwoLevelIndexSearch",
        "cache_index_and_filter_blocks=true",
    ):
        assert option in written


def test_a_store_that_is_opened_again_has_the_options_of_today(tmp_path: Path) -> None:
    path = str(tmp_path / "s")
    for _ in range(2):
        store = RocksStore(path)
        assert store._db.property_int_value("rocksdb.block-cache-capacity") == STORE_BLOCK_CACHE_BYTES
        store.write(WriteBatch(puts={b"k": b"v"}))
        store.close()
    copy = RocksCopy(path)
    assert copy._engine().property_int_value("rocksdb.block-cache-capacity") == STORE_BLOCK_CACHE_BYTES
    copy.close()


def test_small_values_beside_a_large_one_are_read_out_of_the_cache(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    store.write(WriteBatch(puts={b"a": b"small", b"b": os.urandom(9_000_000), b"c": b"small"}))
    store._db.flush()

    def cached() -> int:
        kept = store._db.property_int_value("rocksdb.block-cache-usage")
        assert kept is not None
        return kept

    assert store.get(b"a") == b"small"
    assert list(store.scan(b"aa", b"ab")) == []
    assert cached() > 9_000_000
    store.close()


def test_a_full_disk_is_told_apart() -> None:
    full = store_error("write", "IO error: No space left on device: While appending to file")
    assert isinstance(full, DiskFullError)
    assert "make room" in str(full)
    assert not isinstance(store_error("write", "IO error: Input/output error"), DiskFullError)


def test_scans_of_one_snapshot_may_run_together(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    store.write(WriteBatch(puts={bytes([65 + i]): b"" for i in range(5)}))
    snapshot = store.snapshot()
    store.write(WriteBatch(puts={b"B": None, b"CC": b""}))
    pairs = [
        (key + other).decode()
        for key, _ in snapshot.scan(b"A", b"E")
        for other, _ in snapshot.scan(b"A", b"D", reverse=True)
    ]
    assert pairs == [a + b for a in "ABCD" for b in "CBA"]
    assert [key for key, _ in snapshot.scan(b"A", b"Z")] == [bytes([65 + i]) for i in range(5)]
    snapshot.close()
    with pytest.raises(StoreError, match="closed"):
        snapshot.get(b"A")
    store.close()


def test_long_scans_read_in_pieces(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    keys = [b"%05d" % number for number in range(1000)]
    store.write(WriteBatch(puts=dict.fromkeys(keys, b"v")))
    snapshot = store.snapshot()
    forward = snapshot.scan(keys[10], keys[900])
    backward = snapshot.scan(keys[10], keys[900], reverse=True)
    pairs = list(zip(forward, backward, strict=True))
    assert [one[0] for one, _ in pairs] == keys[10:900]
    assert [other[0] for _, other in pairs] == keys[899:9:-1]
    snapshot.close()
    store.close()


@pytest.mark.parametrize("count", [1, 63, 64, 65, 300])
def test_deleted_ranges_are_whole_however_many_keys_they_hold(tmp_path: Path, count: int) -> None:
    store = RocksStore(str(tmp_path / "s"))
    keys = [b"%05d" % number for number in range(count + 2)]
    store.write(WriteBatch(puts=dict.fromkeys(keys, b"old")))
    store.write(WriteBatch(puts={keys[1]: b"new"}, deleted_ranges=[(keys[1], keys[-1])]))
    assert contents(store) == [(keys[0], b"old"), (keys[1], b"new"), (keys[-1], b"old")]
    store.close()


def test_snapshots_stay_cheap_while_each_round_deletes_a_range(tmp_path: Path) -> None:
    """The engine's own deleted ranges, which each iterator sorts anew, do not add up."""
    store = RocksStore(str(tmp_path / "s"))
    for number in range(200):
        puts: dict[bytes, bytes | None] = {b"%05d" % number: b"block"}
        store.write(WriteBatch(puts, [(b"%05d" % max(0, number - 10), b"%05d" % (number - 9))]))
    assert len(contents(store)) == 10
    assert b"00150" not in dict(contents(store))
    store.close()
    files = list(tmp_path.rglob("*.sst"))
    assert files
    assert not any(b"range_del" in path.read_bytes() for path in files)


OUT_OF_ROOM = """
import resource, signal, sys
from cannery.testing import Node, Rejected

signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with Node(data=sys.argv[1]) as node:
    book = node.install(sys.argv[2])
    book.sign("first")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    count = 1
    while node.subnet.failure is None:
        waiting = book.sign.submit("x" * 1000)
        node.run()
        count += 1
    assert not waiting.is_answered
    assert book.size() == count - 1, "queries go on"
    try:
        book.sign("more")
        sys.exit("an update was taken")
    except Rejected as error:
        assert "no updates for now" in error.message
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert node.recover(), node.subnet.failure
    node.run()
    assert waiting.result() == count - 1
    assert book.size() == count
print("recovered")
"""


def test_a_node_whose_writes_failed_goes_on_when_they_can_be_done_again(tmp_path: Path) -> None:
    root = Path(cannery.__file__).parents[2]
    found = subprocess.run(
        [sys.executable, "-c", OUT_OF_ROOM, str(tmp_path / "s"), str(root / "examples" / "guestbook.py")],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": str(root / "src")},
    )
    assert found.stdout == "recovered\n", found.stderr
