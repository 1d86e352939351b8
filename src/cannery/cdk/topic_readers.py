"""Who reads a topic log and how far: for each reader the first id that they have not acknowledged.

State: `.marks` reader -> first id not acknowledged; `.mark_order` (mark, reader), for the lowest of them.
"""

from __future__ import annotations

from cannery import limits
from cannery.cdk.stable_map import MapView, SetView


class TopicReaders:
    """The readers of one log."""

    def __init__(self, marks: MapView[bytes, int], order: SetView[tuple[int, bytes]]) -> None:
        self._marks = marks
        self._order = order

    def add(self, reader: bytes, next_id: int) -> int:
        """Note a reader who needs what comes from `next_id` on, if they are new; return their mark."""
        known = self._marks.get(reader)
        if known is not None:
            return known
        if len(self._marks) >= limits.TOPIC_LOG_READER_COUNT_MAX:
            raise ValueError(f"a topic log has at most {limits.TOPIC_LOG_READER_COUNT_MAX} readers")
        return self._mark(reader, None, next_id)

    def acknowledge(self, reader: bytes, through: int, next_id: int) -> int:
        """Note that a reader has everything through an id below `next_id`; return their mark."""
        known = self.add(reader, next_id)
        until = max(known, min(through + 1, next_id))
        return known if until == known else self._mark(reader, known, until)

    def mark_of(self, reader: bytes) -> int | None:
        """Return a reader's mark; None for whom the log does not know."""
        return self._marks.get(reader)

    def page(self, limit: int, after: bytes | None) -> tuple[list[tuple[bytes, int]], bytes | None]:
        """List readers with their marks, and the `after` that follows."""
        page = self._marks.page(limit=limit, after=after)
        return page.items, page.next

    def first(self) -> int | None:
        """Return the lowest mark; None without readers."""
        found = self._order.first()
        return None if found is None else found[0]

    def forget(self, reader: bytes) -> bool:
        """Forget a reader; say whether they were there."""
        known = self._marks.get(reader)
        if known is None:
            return False
        self._marks.delete(reader)
        return self._order.discard((known, reader))

    def _mark(self, reader: bytes, old: int | None, new: int) -> int:
        if old is not None:
            self._order.discard((old, reader))
        self._marks.put(reader, new)
        self._order.add((new, reader))
        return new
