"""Pages: a bounded piece of an ordered collection, and where to go on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

from cannery import limits

Item = TypeVar("Item")
Cursor = TypeVar("Cursor")


@dataclass(frozen=True, slots=True)
class Page(Generic[Item, Cursor]):
    """Items in scan order; `next` goes into `after=` for the page that follows, None where this one is the
    last."""

    items: list[Item]
    next: Cursor | None


def checked_limit(limit: int) -> int:
    """Return a page's limit; raise ValueError where it is not between 1 and `PAGE_ITEM_COUNT_MAX`."""
    if not 1 <= limit <= limits.PAGE_ITEM_COUNT_MAX:
        raise ValueError(f"a page holds 1 to {limits.PAGE_ITEM_COUNT_MAX} items, not {limit}")
    return limit


def take(items: Iterator[Item], limit: int) -> tuple[list[Item], bool]:
    """Take up to `limit` items; say whether there are more."""
    taken: list[Item] = []
    for item in items:
        if len(taken) == limit:
            return taken, True
        taken.append(item)
    return taken, False
