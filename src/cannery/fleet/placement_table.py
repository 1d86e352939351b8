"""The table of AnchorHash: which child stands behind each bucket (arXiv 1812.09674, the wrapper algorithm).

It is a value: an index keeps it, pushes it to children, and gives it to clients, who then find places by
themselves. Its bytes:

    01  size of the anchor (4, big-endian)  the anchor  per working bucket, ascending: length (1), principal

This module moves no keys (`placement_migration`) and knows nothing of room (`placement_policy`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from cannery import limits
from cannery.errors import DecodeError
from cannery.fleet.placement_anchor import (
    Anchor,
    bucket_of,
    decode_anchor,
    encode_anchor,
    make_anchor,
    plan_add,
    plan_remove,
)
from cannery.protocol.principal import Principal

_VERSION = b"\x01"


class TableDecodeError(DecodeError):
    """Bytes are not a table of AnchorHash."""


@dataclass(frozen=True, slots=True)
class AnchorTable:
    """An anchor, and the child behind each bucket (None: not working); made by the functions below alone."""

    anchor: Anchor
    places: tuple[Principal | None, ...]

    @property
    def children(self) -> tuple[Principal, ...]:
        """The children in the order of their buckets."""
        return tuple(child for child in self.places if child is not None)


def make_table(children: tuple[Principal, ...], *, capacity: int, seed: bytes) -> AnchorTable:
    """Make the table of the first children; `capacity` bounds how many there can ever be at once."""
    if len(set(children)) != len(children):
        raise ValueError("a table names each child once")
    anchor = make_anchor(capacity, len(children), seed)
    return AnchorTable(anchor, children + (None,) * (capacity - len(children)))


def child_of(table: AnchorTable, group: bytes) -> Principal:
    """Return the child that a group belongs to (GETRESOURCE)."""
    child = table.places[bucket_of(table.anchor, group)]
    assert child is not None, "a working bucket has a child"
    return child


def plan_join(table: AnchorTable, child: Principal) -> AnchorTable:
    """Return the table with one child more (ADDRESOURCE): only keys that move to it move.

    Raise ValueError where it is there already, AnchorFullError where the capacity is used up.
    """
    if child in table.places:
        raise ValueError(f"{child} is in the table already")
    change = plan_add(table.anchor)
    return AnchorTable(change.anchor, _replaced(table.places, change.bucket, child))


def plan_part(table: AnchorTable, child: Principal) -> AnchorTable:
    """Return the table without a child (REMOVERESOURCE): only its keys move, to all others alike.

    Raise ValueError where it is not there or the last one.
    """
    if child not in table.places:
        raise ValueError(f"{child} is not in the table")
    bucket = table.places.index(child)
    return AnchorTable(plan_remove(table.anchor, bucket).anchor, _replaced(table.places, bucket, None))


def plan_swap(table: AnchorTable, old: Principal, new: Principal) -> AnchorTable:
    """Return the table with one child in the place of another: its keys move there, no other does."""
    if old not in table.places:
        raise ValueError(f"{old} is not in the table")
    if new in table.places:
        raise ValueError(f"{new} is in the table already")
    return AnchorTable(table.anchor, _replaced(table.places, table.places.index(old), new))


def encode_table(table: AnchorTable) -> bytes:
    """Write a table; equal tables give equal bytes."""
    anchor = encode_anchor(table.anchor)
    names = [bytes((len(child.raw),)) + child.raw for child in table.children]
    return _VERSION + len(anchor).to_bytes(4, "big") + anchor + b"".join(names)


@lru_cache(maxsize=limits.PLACEMENT_CACHE_COUNT_MAX)
def decode_table(data: bytes) -> AnchorTable:
    """Read a table; raise TableDecodeError, and nothing else, for any other bytes."""
    if data[:1] != _VERSION:
        raise TableDecodeError("a table begins with version 01")
    end = 5 + int.from_bytes(data[1:5], "big")
    try:
        anchor = decode_anchor(data[5:end])
        children = _read_children(data, end, anchor.working_count)
    except DecodeError as error:
        raise TableDecodeError(f"a table does not hold what it should: {error}") from None
    if len(set(children)) != len(children):
        raise TableDecodeError("a table names each child once")
    places: list[Principal | None] = [None] * anchor.capacity
    for bucket, child in zip(anchor.working, children, strict=True):
        places[bucket] = child
    return AnchorTable(anchor, tuple(places))


def _read_children(data: bytes, at: int, count: int) -> list[Principal]:
    children: list[Principal] = []
    for _ in range(count):
        if at >= len(data):
            raise TableDecodeError(f"{len(children)} children stand behind {count} buckets")
        end = at + 1 + data[at]
        if end > len(data):
            raise TableDecodeError("the last child is cut off")
        children.append(Principal(data[at + 1 : end]))
        at = end
    if at != len(data):
        raise TableDecodeError(f"{len(data) - at} bytes follow the last child")
    return children


def _replaced(
    places: tuple[Principal | None, ...], bucket: int, child: Principal | None
) -> tuple[Principal | None, ...]:
    return (*places[:bucket], child, *places[bucket + 1 :])
