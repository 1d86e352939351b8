"""AnchorHash: keys to buckets, where buckets come and go and as few keys as possible move.

Mendelson, Vargaftik, Barabash, Lorenz, Keslassy, Orda: "AnchorHash: A Scalable Consistent Hash",
arXiv 1812.09674: the in-place algorithm (Algorithm 3), with the paper's letters:

    a  capacity: how many buckets there can ever be at once
    N  how many buckets are working
    R  the buckets that are not, in the order of their removal; the last one returns first
    A  per bucket, how many were working right after its removal; 0 for a working one
    K  per removed bucket, the one that took its place in W
    W  the working buckets, in the first N places
    L  per bucket, its place in W

All of it follows from the capacity and R, which is what the bytes hold:

    01  seed (16)  a (4)  n (4)  removed buckets (4 each)

big-endian; the first n removals are a-1, a-2, ..., a-n and are not listed, as large a number as is true.

The digest of a key is the first 8 bytes, big-endian, of SHA-256(seed || key); the paper's h_b is the output
function of SplitMix64 on digest XOR (b+1) * 9e3779b97f4a7c15. Any client can compute a place. The seed keeps
those who do not know it from choosing keys that fall into one bucket.

This module knows no canisters (`placement_policy`) and moves nothing (`placement_migration`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

from cannery import limits
from cannery.errors import CanneryError, DecodeError

SEED_SIZE_BYTES = 16
NO_SEED = bytes(SEED_SIZE_BYTES)

_VERSION = b"\x01"
_HEAD_SIZE_BYTES = 1 + SEED_SIZE_BYTES + 8
_MASK = 2**64 - 1
_GOLDEN = 0x9E3779B97F4A7C15


class AnchorDecodeError(DecodeError):
    """Bytes are not the state of an anchor."""


class AnchorFullError(CanneryError):
    """Every bucket of the capacity is working: an anchor's capacity is chosen once."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """The state of an anchor: made by `make_anchor`, `decode_anchor` and the two plans alone."""

    seed: bytes
    R: tuple[int, ...]
    A: tuple[int, ...] = field(repr=False)
    K: tuple[int, ...] = field(repr=False)
    W: tuple[int, ...] = field(repr=False)
    L: tuple[int, ...] = field(repr=False)

    @property
    def capacity(self) -> int:
        """The paper's a."""
        return len(self.A)

    @property
    def working_count(self) -> int:
        """The paper's N."""
        return len(self.A) - len(self.R)

    @property
    def working(self) -> tuple[int, ...]:
        """The working buckets, in ascending order."""
        return tuple(sorted(self.W[: self.working_count]))

    def is_working(self, bucket: int) -> bool:
        """Tell whether a bucket gets keys."""
        return 0 <= bucket < len(self.A) and not self.A[bucket]


@dataclass(frozen=True, slots=True)
class AnchorChange:
    """An anchor after one change, and the bucket that came or went."""

    anchor: Anchor
    bucket: int


def make_anchor(capacity: int, working_count: int, seed: bytes = NO_SEED) -> Anchor:
    """Make an anchor whose first `working_count` buckets work (INITANCHOR).

    A place is found in about 1 + ln(capacity / working_count) hashes (the paper's theorem on complexity), so
    that a generous capacity costs little. Raise ValueError for counts out of bounds.
    """
    if not 1 <= capacity <= limits.ANCHOR_CAPACITY_BUCKETS_MAX:
        raise ValueError(f"a capacity is 1 to {limits.ANCHOR_CAPACITY_BUCKETS_MAX} buckets, not {capacity}")
    if not 1 <= working_count <= capacity:
        raise ValueError(f"of {capacity} buckets 1 to {capacity} work, not {working_count}")
    if len(seed) != SEED_SIZE_BYTES:
        raise ValueError(f"a seed has {SEED_SIZE_BYTES} bytes, not {len(seed)}")
    # Removing the last buckets from the end leaves each in its own place: no need to do it one by one.
    identity = tuple(range(capacity))
    return Anchor(
        seed,
        R=identity[: working_count - 1 : -1] if working_count < capacity else (),
        A=(0,) * working_count + identity[working_count:],
        K=identity,
        W=identity,
        L=identity,
    )


def key_digest(seed: bytes, key: bytes) -> int:
    """Return the 64 bits of a key that decide its place."""
    return int.from_bytes(sha256(seed + key).digest()[:8], "big")


def bucket_of(anchor: Anchor, key: bytes) -> int:
    """Return the working bucket of a key."""
    return bucket_of_digest(anchor, key_digest(anchor.seed, key))


def bucket_of_digest(anchor: Anchor, digest: int) -> int:
    """Return the working bucket of a digest (GETBUCKET)."""
    A, K = anchor.A, anchor.K
    bucket = digest % len(A)
    while worked := A[bucket]:
        place = _mix(digest, bucket) % worked
        # A bucket that was gone by then stands for the one that took its place.
        while A[place] >= worked:
            place = K[place]
        bucket = place
    return bucket


def plan_add(anchor: Anchor) -> AnchorChange:
    """Take the bucket that was removed last back into work (ADDBUCKET); raise AnchorFullError where all work.

    Only keys that move to this bucket move (paper, "minimal disruption").
    """
    if not anchor.R:
        raise AnchorFullError(f"all {anchor.capacity} buckets of the anchor are working")
    A, K, W, L = list(anchor.A), list(anchor.K), list(anchor.W), list(anchor.L)
    bucket, count = anchor.R[-1], anchor.working_count
    A[bucket] = 0
    L[W[count]] = count
    W[L[bucket]] = K[bucket] = bucket
    return AnchorChange(_anchor(anchor.seed, anchor.R[:-1], A, K, W, L), bucket)


def plan_remove(anchor: Anchor, bucket: int) -> AnchorChange:
    """Take a bucket out of work (REMOVEBUCKET); raise ValueError where it does not work or is the last one.

    Only this bucket's keys move, to all others alike (paper, "minimal disruption" and "balance").
    """
    if not anchor.is_working(bucket):
        raise ValueError(f"bucket {bucket} is not working")
    if anchor.working_count == 1:
        raise ValueError(f"bucket {bucket} is the last one working")
    A, K, W, L = list(anchor.A), list(anchor.K), list(anchor.W), list(anchor.L)
    _remove(bucket, anchor.working_count - 1, A, K, W, L)
    return AnchorChange(_anchor(anchor.seed, (*anchor.R, bucket), A, K, W, L), bucket)


def encode_anchor(anchor: Anchor) -> bytes:
    """Write an anchor; equal anchors give equal bytes."""
    capacity, removed = anchor.capacity, anchor.R
    run = 0
    while run < len(removed) and removed[run] == capacity - 1 - run:
        run += 1
    numbers = (capacity, run, *removed[run:])
    return _VERSION + anchor.seed + b"".join([number.to_bytes(4, "big") for number in numbers])


@lru_cache(maxsize=limits.PLACEMENT_CACHE_COUNT_MAX)
def decode_anchor(data: bytes) -> Anchor:
    """Read an anchor; raise AnchorDecodeError, and nothing else, for any other bytes."""
    if data[:1] != _VERSION:
        raise AnchorDecodeError("an anchor begins with version 01")
    if len(data) < _HEAD_SIZE_BYTES or (len(data) - _HEAD_SIZE_BYTES) % 4:
        raise AnchorDecodeError(f"{len(data)} bytes are no whole anchor")
    seed = data[1 : 1 + SEED_SIZE_BYTES]
    numbers = memoryview(data)[1 + SEED_SIZE_BYTES :]
    capacity, run, *removed = (int.from_bytes(numbers[at : at + 4]) for at in range(0, len(numbers), 4))
    if not 1 <= capacity <= limits.ANCHOR_CAPACITY_BUCKETS_MAX:
        raise AnchorDecodeError(
            f"an anchor has 1 to {limits.ANCHOR_CAPACITY_BUCKETS_MAX} buckets, not {capacity}"
        )
    if run + len(removed) >= capacity:
        raise AnchorDecodeError(f"of {capacity} buckets at least one works")
    if removed and removed[0] == capacity - 1 - run:
        raise AnchorDecodeError("the first removals of an anchor are counted, not listed")
    return _replay(make_anchor(capacity, capacity - run, seed), removed)


def _replay(start: Anchor, removed: list[int]) -> Anchor:
    A, K, W, L = list(start.A), list(start.K), list(start.W), list(start.L)
    count = start.working_count
    for bucket in removed:
        if bucket >= len(A) or A[bucket]:
            raise AnchorDecodeError(f"bucket {bucket} is removed, but was not working")
        count -= 1
        _remove(bucket, count, A, K, W, L)
    return _anchor(start.seed, (*start.R, *removed), A, K, W, L)


def _remove(bucket: int, count: int, A: list[int], K: list[int], W: list[int], L: list[int]) -> None:
    """Take a bucket out in place; `count` buckets work afterwards."""
    A[bucket] = count
    W[L[bucket]] = K[bucket] = W[count]
    L[W[count]] = L[bucket]


def _anchor(
    seed: bytes, R: tuple[int, ...], A: list[int], K: list[int], W: list[int], L: list[int]
) -> Anchor:
    return Anchor(seed, R, tuple(A), tuple(K), tuple(W), tuple(L))


def _mix(digest: int, bucket: int) -> int:
    """Hash a digest for one bucket, independently of the other buckets (the paper's h_b)."""
    z = digest ^ ((bucket + 1) * _GOLDEN & _MASK)
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    z = (z ^ (z >> 27)) * 0x94D049BB133111EB & _MASK
    return z ^ (z >> 31)
