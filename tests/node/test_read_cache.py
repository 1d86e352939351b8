"""The queries' cache: whatever rounds write, it gives what the state gives, within its bound."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import limits
from cannery.node.read_cache import ReadCache
from cannery.ports import WriteBatch
from cannery.replica.keys import CANISTERS, META, REQUESTS, STABLE
from cannery.testing.store import MemoryStore

CANISTER_IDS = (b"ab", b"cd")
tails = st.binary(max_size=2).map(lambda tail: b"slot1" + tail) | st.binary(max_size=7)
keys = st.builds(
    lambda space, owner, tail: bytes((space, len(owner))) + owner + tail,
    st.sampled_from([STABLE, CANISTERS, REQUESTS]),
    st.sampled_from(CANISTER_IDS),
    tails,
) | st.sampled_from([bytes((META, 1)), b"\x81"])
ranges = st.tuples(keys, keys).map(sorted).map(tuple)
batches = st.builds(
    WriteBatch,
    puts=st.dictionaries(keys, st.none() | st.binary(max_size=3), max_size=5),
    deleted_ranges=st.lists(ranges, max_size=1),
)


@settings(deadline=None)
@given(
    rounds=st.lists(st.tuples(batches, st.lists(keys, max_size=4), st.lists(ranges, max_size=4)), max_size=8),
    stops_early=st.booleans(),
)
def test_it_gives_what_the_state_gives(
    rounds: list[tuple[WriteBatch, list[bytes], list[tuple[bytes, bytes]]]], stops_early: bool
) -> None:
    store = MemoryStore()
    cache = ReadCache(store.snapshot())
    asked: list[bytes] = []
    scanned: list[tuple[bytes, bytes]] = []
    for batch, some, others in rounds:
        store.write(batch)
        state = store.snapshot()
        cache.moved(state, batch)
        asked += some
        scanned += others
        for _ in range(2):
            assert [cache.get(key) for key in asked] == [state.get(key) for key in asked]
            assert cache.multi_get(asked) == state.multi_get(asked)
            for start, end in scanned:
                for reverse in (False, True):
                    if stops_early:
                        next(iter(cache.scan(start, end, reverse=reverse)), None)
                    wanted = list(state.scan(start, end, reverse=reverse))
                    assert list(cache.scan(start, end, reverse=reverse)) == wanted


def test_what_was_read_is_not_read_again_until_it_is_written() -> None:
    store = MemoryStore()
    key = bytes((STABLE, 2)) + b"ab" + b"slot1" + b"x"
    end = key[:-1] + b"\xff"
    store.write(WriteBatch({key: b"1"}))
    cache = ReadCache(store.snapshot())
    for _ in range(3):
        assert cache.get(key) == b"1"
        assert list(cache.scan(key, end)) == [(key, b"1")]
    assert (cache.misses, cache.hits) == (2, 4)
    batch = WriteBatch({key: b"2"})
    store.write(batch)
    cache.moved(store.snapshot(), batch)
    assert cache.get(key) == b"2"
    assert list(cache.scan(key, end)) == [(key, b"2")]
    assert (cache.misses, cache.hits) == (4, 4)


def test_it_begins_anew_where_it_grows_beyond_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cannery.node.read_cache.QUERY_CACHE_SIZE_BYTES_MAX", 1_000)
    monkeypatch.setattr("cannery.node.read_cache.QUERY_CACHE_VALUE_SIZE_BYTES_MAX", 400)
    store = MemoryStore()
    names = [bytes((STABLE, 2)) + b"ab" + b"slot1" + bytes((n,)) for n in range(10)]
    store.write(WriteBatch({name: bytes(100 if n else 500) for n, name in enumerate(names)}))
    cache = ReadCache(store.snapshot())
    for _ in range(2):
        assert cache.get(names[0]) == bytes(500)
    assert cache.hits == 0, "what is too large is not kept"
    for name in names:
        cache.get(name)
    cache.get(names[-1])
    cache.get(names[1])
    assert (cache.hits, cache.misses) == (1, 13)
    assert limits.QUERY_CACHE_VALUE_SIZE_BYTES_MAX < limits.QUERY_CACHE_SIZE_BYTES_MAX


def test_what_was_made_is_recalled_until_what_it_was_made_of_is_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    store = MemoryStore()
    here = bytes((STABLE, 2)) + b"ab" + b"slot1"
    there = bytes((STABLE, 2)) + b"ab" + b"slot2"
    for written in (here + b"x", here + b"y", there + b"z", there + b"q"):
        cache = ReadCache(store.snapshot())
        read = {(there + b"q", b""), (here + b"a", here + b"\xff")}
        cache.remember(b"name", "made", 4, read)
        cache.moved(store.snapshot(), WriteBatch({b"\x81": b"", there + b"other": b""}))
        assert cache.recall(b"name") == "made"
        cache.moved(store.snapshot(), WriteBatch({written: b"new"}))
        is_kept = written == there + b"z"
        assert cache.recall(b"name") == ("made" if is_kept else None)
    cache.remember(b"broad", "made", 4, {(here + b"a", there + b"a")})
    assert cache.recall(b"broad") is None, "a range over stretches cannot be watched"
    monkeypatch.setattr("cannery.node.read_cache.QUERY_CACHE_SIZE_BYTES_MAX", 2_000)
    cache.remember(b"first", "made", 1_000, set())
    cache.remember(b"second", "made", 1_000, set())
    assert (cache.recall(b"first"), cache.recall(b"second")) == (None, "made")
