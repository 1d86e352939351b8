"""AnchorHash against the paper's properties, a naive model, its golden bytes and hostile ones."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal, limits
from cannery.fleet import placement_anchor
from cannery.fleet.placement_anchor import (
    Anchor,
    AnchorDecodeError,
    AnchorFullError,
    bucket_of,
    bucket_of_digest,
    decode_anchor,
    encode_anchor,
    key_digest,
    make_anchor,
    plan_add,
    plan_remove,
)
from cannery.fleet.placement_table import (
    AnchorTable,
    TableDecodeError,
    child_of,
    decode_table,
    encode_table,
    make_table,
    plan_join,
    plan_part,
    plan_swap,
)

GOLDEN = Path(__file__).parent.parent / "formats" / "anchor.json"
SEED = bytes(range(16))
KEYS = [number.to_bytes(8, "big") for number in range(400)]
DIGESTS = [key_digest(SEED, key) for key in KEYS]

Sizes = tuple[int, int]
sizes = st.integers(1, 24).flatmap(lambda a: st.tuples(st.just(a), st.integers(1, a)))
moves = st.lists(st.integers(-24, 24), max_size=40)


def changed(anchor: Anchor, move: int) -> Anchor:
    """Add where a number is negative, else remove the working bucket that it points at; nothing where neither
    can be.
    """
    if move < 0:
        return plan_add(anchor).anchor if anchor.R else anchor
    working = anchor.working
    return plan_remove(anchor, working[move % len(working)]).anchor if len(working) > 1 else anchor


def after_all(size: Sizes, choices: Iterable[int]) -> Anchor:
    anchor = make_anchor(*size, SEED)
    for move in choices:
        anchor = changed(anchor, move)
    return anchor


class Naive:
    """The paper's algorithm with every set W_b written out, as its proofs use it."""

    def __init__(self, capacity: int, working_count: int) -> None:
        self.capacity = capacity
        self.working = list(range(capacity))
        self.removed: list[int] = []
        self.left_by: dict[int, list[int]] = {}
        for bucket in reversed(range(working_count, capacity)):
            self.remove(bucket)

    def remove(self, bucket: int) -> None:
        last = self.working.pop()
        if last != bucket:
            self.working[self.working.index(bucket)] = last
        self.removed.append(bucket)
        self.left_by[bucket] = list(self.working)

    def add(self) -> None:
        bucket = self.removed.pop()
        left = self.left_by.pop(bucket)
        # The removal put the last bucket into this one's place: it goes back to the end.
        before = self.left_by[self.removed[-1]] if self.removed else list(range(self.capacity))
        assert len(before) == len(left) + 1
        self.working = list(before)

    def bucket(self, digest: int) -> int:
        bucket = digest % self.capacity
        while bucket in self.left_by:
            left = self.left_by[bucket]
            bucket = left[placement_anchor._mix(digest, bucket) % len(left)]
        return bucket


@given(sizes, moves)
def test_it_places_as_the_written_out_sets_do(size: Sizes, choices: list[int]) -> None:
    anchor, naive = make_anchor(*size, SEED), Naive(*size)
    for move in choices:
        if move < 0 and anchor.R:
            naive.add()
        elif move >= 0 and anchor.working_count > 1:
            naive.remove(anchor.working[move % anchor.working_count])
        anchor = changed(anchor, move)
        assert list(anchor.W[: anchor.working_count]) == naive.working
        assert list(anchor.R) == naive.removed
    for digest in DIGESTS[:100]:
        assert bucket_of_digest(anchor, digest) == naive.bucket(digest)


@given(sizes, moves)
def test_exactly_the_keys_of_the_bucket_that_goes_or_comes_move(size: Sizes, choices: list[int]) -> None:
    anchor = make_anchor(*size, SEED)
    places = [bucket_of_digest(anchor, digest) for digest in DIGESTS]
    for move in choices:
        after = changed(anchor, move)
        now = [bucket_of_digest(after, digest) for digest in DIGESTS]
        differing = set(anchor.working) ^ set(after.working)
        assert len(differing) == (anchor is not after)
        for old, new in zip(places, now, strict=True):
            came_or_went = bool({old, new} & differing)
            assert (old != new) == came_or_went
        anchor, places = after, now
        assert set(places) <= set(anchor.working)


@given(sizes, moves, st.lists(st.integers(0, 24), max_size=12))
def test_adding_back_restores_what_was_before_the_removals(
    size: Sizes, choices: list[int], removals: list[int]
) -> None:
    start = after_all(size, choices)
    passed = [start]
    for move in removals:
        after = changed(passed[-1], move)
        if after is not passed[-1]:
            passed.append(after)
    anchor = passed[-1]
    for before in reversed(passed[:-1]):
        added = plan_add(anchor)
        assert anchor.is_working(added.bucket) is False
        anchor = added.anchor
        assert anchor == before


def chi_square(counts: Sequence[int]) -> float:
    """Return Pearson's statistic against an even spread, as standard deviations above its mean."""
    expected = sum(counts) / len(counts)
    freedom = len(counts) - 1
    if not freedom:
        return 0.0
    return (sum((count - expected) ** 2 for count in counts) / expected - freedom) / (2 * freedom) ** 0.5


def spread(anchor: Anchor, keys: Iterable[bytes]) -> list[int]:
    counts = Counter(bucket_of(anchor, key) for key in keys)
    return [counts[bucket] for bucket in anchor.working]


SEQUENCES = {
    "sequential integers": lambda n: n.to_bytes(8, "big"),
    "multiples of the capacity": lambda n: (n * 1_000).to_bytes(8, "little"),
    "names with a number": lambda n: b"user-%d/note" % n,
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_200_000_keys_spread_to_within_two_percent(name: str) -> None:
    anchor = make_anchor(1_000, 8, SEED)
    counts = spread(anchor, map(SEQUENCES[name], range(200_000)))
    assert sum(counts) == 200_000
    for count in counts:
        assert abs(count / (200_000 / 8) - 1) < 0.02
    assert chi_square(counts) < 4


def test_what_a_removed_bucket_leaves_spreads_over_all_others() -> None:
    before = after_all((100, 12), [3, 7, 1, -1, 5])
    bucket = before.working[4]
    after = plan_remove(before, bucket).anchor
    left = [
        key
        for key in map(SEQUENCES["sequential integers"], range(100_000))
        if bucket_of(before, key) == bucket
    ]
    assert len(left) == pytest.approx(100_000 / before.working_count, rel=0.05)
    assert chi_square(spread(after, left)) < 4


@given(sizes, moves)
@settings(max_examples=60)
def test_it_stays_balanced_whatever_came_and_went(size: Sizes, choices: list[int]) -> None:
    anchor = after_all(size, choices)
    counts = Counter(bucket_of_digest(anchor, key_digest(SEED, b"%d" % n)) for n in range(3_000))
    # Seven deviations: what 60 even spreads do not show by chance.
    assert chi_square([counts[bucket] for bucket in anchor.working]) < 7


def test_another_seed_gives_other_places() -> None:
    one, other = make_anchor(16, 16, SEED), make_anchor(16, 16, bytes(16))
    same = sum(bucket_of(one, key) == bucket_of(other, key) for key in KEYS)
    assert same < len(KEYS) / 8


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="a capacity is 1 to"):
        make_anchor(limits.ANCHOR_CAPACITY_BUCKETS_MAX + 1, 1)
    with pytest.raises(ValueError, match="of 4 buckets 1 to 4 work, not 0"):
        make_anchor(4, 0)
    with pytest.raises(ValueError, match="a seed has 16 bytes"):
        make_anchor(4, 4, b"")
    anchor = make_anchor(2, 2)
    with pytest.raises(AnchorFullError, match="all 2 buckets"):
        plan_add(anchor)
    for bucket in (-1, 2):
        with pytest.raises(ValueError, match="is not working"):
            plan_remove(anchor, bucket)
    one = plan_remove(anchor, 0).anchor
    with pytest.raises(ValueError, match="bucket 0 is not working"):
        plan_remove(one, 0)
    with pytest.raises(ValueError, match="the last one"):
        plan_remove(one, 1)


# bytes


@given(sizes, moves, st.binary(min_size=16, max_size=16))
def test_an_anchor_is_read_back(size: Sizes, choices: list[int], seed: bytes) -> None:
    anchor = make_anchor(*size, seed)
    for move in choices:
        anchor = changed(anchor, move)
    data = encode_anchor(anchor)
    assert decode_anchor(data) == anchor
    assert encode_anchor(decode_anchor(data)) == data


def test_a_fresh_anchor_is_small_whatever_its_capacity() -> None:
    assert len(encode_anchor(make_anchor(limits.ANCHOR_CAPACITY_BUCKETS_MAX, 50))) == 25


def tampered(data: bytes, at: int, byte: int) -> bytes:
    at %= len(data)
    return data[:at] + bytes((byte,)) + data[at + 1 :]


def anchor_bytes(*numbers: int) -> bytes:
    return b"\x01" + bytes(16) + b"".join(number.to_bytes(4, "big") for number in numbers)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "version 01"),
        (b"\x02" + anchor_bytes(1, 0)[1:], "version 01"),
        (anchor_bytes(1), "no whole anchor"),
        (anchor_bytes(1, 0) + b"\x00", "no whole anchor"),
        (anchor_bytes(0, 0), "1 to 65536 buckets, not 0"),
        (anchor_bytes(2**32 - 1, 0), "1 to 65536 buckets"),
        (anchor_bytes(3, 3), "at least one works"),
        (anchor_bytes(3, 1, 0, 1), "at least one works"),
        (anchor_bytes(4, 0, 3), "are counted, not listed"),
        (anchor_bytes(4, 1, 2), "are counted, not listed"),
        (anchor_bytes(5, 1, 4), "bucket 4 is removed"),
        (anchor_bytes(5, 0, 1, 1), "bucket 1 is removed"),
        (anchor_bytes(5, 0, 9), "bucket 9 is removed"),
    ],
)
def test_what_is_no_anchor_is_refused_with_its_reason(data: bytes, text: str) -> None:
    with pytest.raises(AnchorDecodeError, match=text):
        decode_anchor(data)


@st.composite
def hostile_anchors(draw: st.DrawFn) -> bytes:
    if draw(st.booleans()):
        numbers = draw(st.lists(st.integers(0, 6), max_size=5))
        return anchor_bytes(draw(st.integers(0, 6)), draw(st.integers(0, 3)), *numbers)
    data = encode_anchor(after_all(draw(sizes), draw(moves)))
    return tampered(data, draw(st.integers(0, 200)), draw(st.integers(0, 255)))[: draw(st.integers(0, 200))]


@given(st.binary(max_size=80) | hostile_anchors())
@settings(max_examples=300)
def test_the_anchor_decoder_accepts_or_raises_its_one_error(data: bytes) -> None:
    try:
        anchor = decode_anchor(data)
    except AnchorDecodeError:
        return
    assert encode_anchor(anchor) == data
    assert sorted({*anchor.working, *anchor.R}) == sorted((*anchor.working, *anchor.R))
    assert bucket_of(anchor, b"key") in anchor.working


def child(number: int) -> Principal:
    return Principal(number.to_bytes(8, "big") + b"\x01\x01")


def table_after(size: Sizes, choices: Iterable[int]) -> AnchorTable:
    capacity, count = size
    table = make_table(tuple(map(child, range(count))), capacity=capacity, seed=SEED)
    for number, move in enumerate(choices, 100):
        table = changed_table(table, move, child(number))
    return table


def changed_table(table: AnchorTable, move: int, new: Principal) -> AnchorTable:
    children = table.children
    if move < 0:
        return plan_join(table, new) if table.anchor.R else table
    if len(children) > 1:
        return plan_part(table, children[move % len(children)])
    return table


@given(sizes, moves)
def test_a_table_moves_only_the_keys_of_the_child_that_joins_or_parts(
    size: Sizes, choices: list[int]
) -> None:
    table = table_after(size, ())
    for number, move in enumerate(choices, 100):
        after = changed_table(table, move, child(number))
        differing = set(table.children) ^ set(after.children)
        for key in KEYS[:60]:
            old, new = child_of(table, key), child_of(after, key)
            assert (old != new) == bool({old, new} & differing)
            assert new in after.children
        table = after
    assert decode_table(encode_table(table)) == table


def test_a_swap_moves_one_childs_keys_and_no_other() -> None:
    table = table_after((10, 4), (2, -1, 0))
    old, new = table.children[1], child(99)
    after = plan_swap(table, old, new)
    for key in KEYS:
        assert child_of(after, key) == (new if child_of(table, key) == old else child_of(table, key))
    for call in (lambda: plan_swap(table, new, old), lambda: plan_swap(table, old, old)):
        with pytest.raises(ValueError, match="in the table"):
            call()


def test_a_table_refuses_what_it_has_and_what_it_has_not() -> None:
    table = table_after((3, 2), ())
    with pytest.raises(ValueError, match="already"):
        plan_join(table, child(0))
    with pytest.raises(ValueError, match="is not in the table"):
        plan_part(table, child(7))
    with pytest.raises(ValueError, match="once"):
        make_table((child(1), child(1)), capacity=4, seed=SEED)


@st.composite
def hostile_tables(draw: st.DrawFn) -> bytes:
    data = encode_table(table_after(draw(sizes), draw(moves)))
    data = tampered(data, draw(st.integers(0, 600)), draw(st.integers(0, 255)))
    return data[: draw(st.integers(0, 600))] + draw(st.binary(max_size=2))


@given(st.binary(max_size=80) | hostile_tables())
@settings(max_examples=300)
def test_the_table_decoder_accepts_or_raises_its_one_error(data: bytes) -> None:
    try:
        table = decode_table(data)
    except TableDecodeError:
        return
    assert encode_table(table) == data
    assert child_of(table, b"key") in table.children


def table_bytes(anchor: bytes, *children: bytes, size: int | None = None) -> bytes:
    size = len(anchor) if size is None else size
    return b"\x01" + size.to_bytes(4, "big") + anchor + b"".join(bytes((len(c),)) + c for c in children)


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "version 01"),
        (b"\x02" + table_bytes(anchor_bytes(1, 0), b"a")[1:], "version 01"),
        (table_bytes(anchor_bytes(2, 0), b"a", b"a"), "once"),
        (table_bytes(anchor_bytes(2, 0), b"a"), "1 children stand behind 2 buckets"),
        (table_bytes(anchor_bytes(1, 0), b"a", b"b"), "2 bytes follow"),
        (table_bytes(anchor_bytes(1, 0), b"abc")[:-1], "cut off"),
        (table_bytes(anchor_bytes(1, 0), b"a" * 30), "at most 29 bytes"),
        (table_bytes(anchor_bytes(1, 0), b"a", size=24), "no whole anchor"),
        (table_bytes(anchor_bytes(1, 0), b"a", size=2**32 - 1), "no whole anchor"),
    ],
)
def test_what_is_no_table_is_refused_with_its_reason(data: bytes, text: str) -> None:
    with pytest.raises(TableDecodeError, match=text):
        decode_table(data)


def golden_table() -> AnchorTable:
    return table_after((12, 6), (4, 1, -1, 3, 0, -1, 2))


def test_golden_bytes_and_places_stay() -> None:
    golden = json.loads(GOLDEN.read_text())
    table = decode_table(bytes.fromhex(golden["table"]))
    assert table == golden_table()
    assert encode_table(table).hex() == golden["table"]
    for key, place in golden["places"].items():
        assert bucket_of(table.anchor, key.encode()) == place
    assert {str(child_of(table, key.encode())) for key in golden["places"]} == {
        str(child) for child in table.children
    }
