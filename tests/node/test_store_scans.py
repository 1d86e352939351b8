"""Scans of the store: of one state, whatever is written meanwhile, and cheap beside many deleted keys."""

from __future__ import annotations

import re
import tempfile
import tracemalloc
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from unittest.mock import patch

import pytest
import rocksdict
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.errors import StoreError
from cannery.node import store_rocksdb, write_journal
from cannery.node.store_rocksdb import RocksStore
from cannery.ports import StoreReader, StoreSnapshot, WriteBatch
from cannery.testing.store import MemoryStore

KEYS = st.binary(min_size=1, max_size=2).map(lambda key: bytes(byte % 6 for byte in key))
BATCHES = st.builds(
    WriteBatch,
    puts=st.dictionaries(KEYS, st.none() | st.binary(max_size=2), max_size=12),
    deleted_ranges=st.just([]) | st.lists(st.tuples(KEYS, KEYS), max_size=1),
)
# After each write: scans that begin, each of one of the states so far, and how much of it is read at once.
SCANS = st.lists(st.tuples(st.integers(0, 20), KEYS, KEYS, st.booleans(), st.integers(0, 4)), max_size=3)
AT_FIRST = WriteBatch(puts={bytes([one, other]): b"" for one in range(6) for other in range(0, 6, 2)})
MANY = 5_000


@settings(max_examples=150)
@given(
    steps=st.lists(st.tuples(BATCHES, SCANS), min_size=1, max_size=6),
    skip_count=st.sampled_from([1, 2, 100]),
    points=st.sampled_from([1, 64]),
    bounds=st.sampled_from([(64, 50_000, 32), (64, 50_000, 3), (2, 50_000, 32), (64, 500, 32)]),
)
def test_a_scan_shows_the_state_that_it_is_of_whatever_is_written_meanwhile(
    steps: list[tuple[WriteBatch, list[tuple[int, bytes, bytes, bool, int]]]],
    skip_count: int,
    points: int,
    bounds: tuple[int, int, int],
) -> None:
    model = MemoryStore()
    states: list[tuple[StoreSnapshot, StoreSnapshot]] = []
    begun: list[tuple[Iterator[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]] = []
    with (
        patch.object(store_rocksdb, "_SKIP_COUNT_MAX", skip_count),
        patch.object(store_rocksdb, "_SCAN_COUNT_FIRST", 2),
        patch.object(store_rocksdb, "_SCAN_COUNT_MAX", 3),
        patch.object(store_rocksdb, "_POINT_DELETE_COUNT_MAX", points),
        patch.object(write_journal, "STORE_JOURNAL_WRITE_COUNT_MAX", bounds[0]),
        patch.object(write_journal, "STORE_JOURNAL_SIZE_BYTES_MAX", bounds[1]),
        patch.object(write_journal, "STORE_JOURNAL_CHANGED_COUNT_MAX", bounds[2]),
        tempfile.TemporaryDirectory() as path,
        closing(RocksStore(path)) as real,
    ):
        real.write(AT_FIRST)
        model.write(AT_FIRST)
        for batch, scans in steps:
            states.append((real.snapshot(), model.snapshot()))
            real.write(batch)
            model.write(batch)
            for which, start, end, reverse, count in scans:
                # The live store's scans have a state from their first step on, those of snapshots always.
                for one, other, first in ((*states[which % len(states)], 0), (real, model, 1)):
                    wanted = list(other.scan(start, end, reverse=reverse))
                    scan = one.scan(start, end, reverse=reverse)
                    read = max(first, count)
                    assert list(islice(scan, read)) == wanted[:read]
                    begun.append((scan, wanted[read:]))
        for scan, wanted in begun:
            assert list(scan) == wanted
        for one, _ in states:
            one.close()


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[rocksdict.Options]:
    """Let the engine count; the options of the stores that are opened."""
    opened: list[rocksdict.Options] = []
    make = store_rocksdb._options

    def options() -> rocksdict.Options:
        opened.append(make())
        opened[-1].enable_statistics()
        return opened[-1]

    monkeypatch.setattr(store_rocksdb, "_options", options)
    return opened


def skipped(options: rocksdict.Options) -> int:
    """Give how many deleted keys, and older values of keys, the engine has walked over so far."""
    found = re.search(r"rocksdb\.number\.iter\.skip COUNT : (\d+)", options.get_statistics())
    assert found is not None
    return int(found[1])


@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("written_since", [False, True])
@pytest.mark.parametrize("of", ["snapshot", "store"])
def test_deleted_keys_outside_a_range_cost_its_scan_nothing(
    tmp_path: Path, counted: list[rocksdict.Options], of: str, written_since: bool, flushed: bool
) -> None:
    """A canister whose neighbours have deleted much is read as fast as any."""
    store = RocksStore(str(tmp_path / "s"))
    before, after = (
        [b"a%05d" % number for number in range(MANY)],
        [b"c%05d" % number for number in range(MANY)],
    )
    here = {b"b%05d" % number: b"v" for number in range(3)}
    store.write(WriteBatch(puts={**dict.fromkeys(before, b"v"), **here, **dict.fromkeys(after, b"v")}))
    if flushed:
        store._db.flush()
    store.write(WriteBatch(puts=dict.fromkeys([*before, *after])))
    ranges = [(b"b", b"c"), (b"b00001", b"b00002"), (b"b1", b"b2")]
    snapshots = [store.snapshot() for _ in range(2 * len(ranges))]
    shown = here
    if written_since:
        store.write(WriteBatch(puts={b"b00000": None, b"b00009": b"new", b"c00000": b"again"}))
        if of == "store":
            shown = {b"b00001": b"v", b"b00002": b"v", b"b00009": b"new"}
    for start, end in ranges:
        for reverse in (False, True):
            so_far = skipped(counted[0])
            snapshot = snapshots.pop()
            reader: StoreReader = store if of == "store" else snapshot
            found = list(reader.scan(start, end, reverse=reverse))
            assert found == sorted(
                (pair for pair in shown.items() if start <= pair[0] < end), reverse=reverse
            )
            # An iterator tells what it skipped when it is let go of.
            snapshot.close()
            assert skipped(counted[0]) - so_far < MANY / 20
    store.close()


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize("since", ["nothing", "a key", "a range"])
@pytest.mark.parametrize("read", [1, 250])
def test_a_scan_ends_with_the_state_that_it_is_of(
    tmp_path: Path, read: int, since: str, reverse: bool
) -> None:
    """Nor does one that is never ended keep the store open."""
    keys = [b"%05d" % number for number in range(1_000)]
    store = RocksStore(str(tmp_path / "s"))
    store.write(WriteBatch(puts=dict.fromkeys(keys, b"")))
    store.write(WriteBatch(puts=dict.fromkeys(keys[300:700])))
    snapshot = store.snapshot()
    if since == "a key":
        store.write(WriteBatch(puts={keys[500]: b"new"}))
    elif since == "a range":
        store.write(WriteBatch(deleted_ranges=[(keys[800], keys[900])]))
    # With 250 pairs read, the piece that the scan stands in was read beside the deleted keys.
    scan = snapshot.scan(b"0", b"1", reverse=reverse)
    there = [*keys[:300], *keys[700:]]
    wanted = there[::-1] if reverse else there
    assert [key for key, _ in islice(scan, read)] == wanted[:read]
    snapshot.close()
    with pytest.raises(StoreError, match="this snapshot is closed"):
        list(scan)
    left = store.snapshot()
    open_scans = [left.scan(b"0", b"1", reverse=reverse) for _ in range(2)]
    assert len(list(islice(open_scans[0], read))) == read
    left.close()
    store.close()
    RocksStore(str(tmp_path / "s")).close()


def test_a_range_is_deleted_without_a_look_at_its_values(tmp_path: Path) -> None:
    store = RocksStore(str(tmp_path / "s"))
    store.write(WriteBatch(puts={b"%05d" % number: bytes(200_000) for number in range(300)}))
    tracemalloc.start()
    store.write(WriteBatch(deleted_ranges=[(b"0", b"1")]))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10_000_000
    assert list(store.scan(b"0", b"1")) == []
    store.close()
