"""Pages over many topics of a topic log: what a client that was away asks for, in one request.

An answer is made of stored bytes as they are, whole blocks of them where they fit: nothing of a message is
decoded. Where something was dropped, a
gap says so with its bounds. A position says where to go on; it stays right whatever is added or pruned in the
meantime, for it names an id and not a place.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import msgspec

from cannery import limits
from cannery.candid.values import Packed
from cannery.cdk.topic_entries import HEAD_SIZE_BYTES, Run, messages_of, split
from cannery.cdk.topic_log import TopicLogView
from cannery.cdk.topic_records import Located

_EMPTY_PAYLOAD = b"\x00"


class TopicQuery(msgspec.Struct, frozen=True):
    """What is asked: ids from `low` up to `high` of several topics.

    By topic in the order given, or `merged` into one order of ids. At most `count_max` messages and (if there
    is one, at least one message) `bytes_max` bytes a page, and `per_topic_max` of each topic in all.
    """

    keys: Sequence[bytes]
    low: int
    high: int
    newest_first: bool
    merged: bool
    with_payloads: bool
    count_max: int
    bytes_max: int
    per_topic_max: int | None = None


class TopicPosition(msgspec.Struct, frozen=True):
    """The last message given: the topic's place in the query, its id, and how many of the topic were given.

    With `id` None the topic has yet to begin. `has_gap` says whether a page before this position had a gap.
    """

    topic: int
    id: int | None
    taken: int
    has_gap: bool


class TopicRun(msgspec.Struct, frozen=True):
    """Messages of one topic (by its place in the query), as Candid bytes of `TopicMessage`s."""

    topic: int
    messages: Packed


@dataclass(frozen=True, slots=True)
class TopicGap:
    """Ids from `start` up to, not including, `end` that a topic may have had and that were dropped."""

    topic: int
    start: int
    end: int


class TopicPage(msgspec.Struct, frozen=True):
    """Runs and gaps in the order asked for; `next` is where to go on, None where this is all."""

    runs: list[TopicRun]
    gaps: list[TopicGap]
    next: TopicPosition | None
    has_gap: bool


class _Page:
    """A page that is being filled."""

    def __init__(self, query: TopicQuery, position: TopicPosition | None) -> None:
        self.query = query
        self.runs: list[TopicRun] = []
        self.gaps: list[TopicGap] = []
        self.has_gap = position is not None and position.has_gap
        self.count = 0
        self.size_bytes = 0
        self._topic = -1
        self._parts: list[bytes] = []
        self._run_count = 0

    def add(self, topic: int, data: bytes) -> bool:
        """Add a message; False where it does not fit."""
        if not self.query.with_payloads:
            data = data[:HEAD_SIZE_BYTES] + _EMPTY_PAYLOAD
        size = len(data)
        if self.count and (
            self.count >= self.query.count_max or self.size_bytes + size > self.query.bytes_max
        ):
            return False
        self._begin(topic)
        self._parts.append(data)
        self._grow(1, size)
        return True

    def add_whole(self, topic: int, run: Run, room: int | None) -> bool:
        """Add all messages of a run, of which `room` may still be taken; False where not all of them fit."""
        if not self.query.newest_first or run.count == 1:
            return self.add_all(topic, run.count, run.data, room)
        if not self._fits(run.count, len(run.data), room):
            return False
        self._begin(topic)
        self._parts += reversed(messages_of(run.data))
        self._grow(run.count, len(run.data))
        return True

    def add_all(self, topic: int, count: int, data: bytes, room: int | None) -> bool:
        """Add messages that are in the order asked for; False where not all of them fit."""
        if not self._fits(count, len(data), room):
            return False
        self._begin(topic)
        self._parts.append(data)
        self._grow(count, len(data))
        return True

    def _fits(self, count: int, size_bytes: int, room: int | None) -> bool:
        query = self.query
        return (
            query.with_payloads
            and (room is None or count <= room)
            and self.count + count <= query.count_max
            and self.size_bytes + size_bytes <= query.bytes_max
        )

    def _begin(self, topic: int) -> None:
        if topic != self._topic:
            self.close_run()
            self._topic = topic

    def _grow(self, count: int, size_bytes: int) -> None:
        self._run_count += count
        self.count += count
        self.size_bytes += size_bytes

    def close_run(self) -> None:
        if self._parts:
            data = self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)
            self.runs.append(TopicRun(self._topic, Packed(self._run_count, data)))
            self._parts = []
            self._run_count = 0

    def gap(self, topic: int, start: int, end: int) -> None:
        if start < end:
            self.gaps.append(TopicGap(topic, start, end))
            self.has_gap = True

    def finished(self, position: TopicPosition | None) -> TopicPage:
        self.close_run()
        if position is not None:
            position = msgspec.structs.replace(position, has_gap=self.has_gap)
        return TopicPage(self.runs, self.gaps, position, self.has_gap)


def read_page(log: TopicLogView, query: TopicQuery, position: TopicPosition | None = None) -> TopicPage:
    """Read one page of a query, from its beginning or after a position of the same query."""
    _check(query)
    page = _Page(query, position)
    return _merged(log, query, position, page) if query.merged else _by_topic(log, query, position, page)


def _check(query: TopicQuery) -> None:
    for what, given, most in (
        ("topics", len(query.keys), limits.TOPIC_PAGE_TOPIC_COUNT_MAX),
        ("messages", query.count_max, limits.TOPIC_PAGE_MESSAGE_COUNT_MAX),
        ("bytes", query.bytes_max, limits.TOPIC_PAGE_SIZE_BYTES_MAX),
    ):
        if not 1 <= given <= most:
            raise ValueError(f"a page has 1 to {most} {what}, not {given}")
    if query.merged and query.per_topic_max is not None:
        raise ValueError("a limit for each topic goes with an answer by topic, not with a merged one")


def _by_topic(log: TopicLogView, query: TopicQuery, position: TopicPosition | None, page: _Page) -> TopicPage:
    at = position or TopicPosition(0, None, 0, False)
    for topic in range(at.topic, len(query.keys)):
        stopped = _of_topic(log, query, topic, at, page)
        if stopped is not None:
            return page.finished(stopped)
        at = TopicPosition(topic + 1, None, 0, False)
    return page.finished(None)


def _of_topic(
    log: TopicLogView, query: TopicQuery, topic: int, at: TopicPosition, page: _Page
) -> TopicPosition | None:
    """Add what follows a position within a topic; where the page is full, say where to go on."""
    if at.id is None and _add_whole(log, query, topic, page):
        return None
    found = log.locate(query.keys[topic])
    low, high = _bounds(query, at)
    gap = (topic, low, min(high, _dropped_through(log, found) + 1))
    newest_first, is_noted = query.newest_first, query.newest_first
    for run in () if found is None else log.runs(found, low, high, reverse=newest_first):
        room = None if query.per_topic_max is None else query.per_topic_max - at.taken
        if room == 0:
            break
        if page.add_whole(topic, run, room):
            at = TopicPosition(topic, run.first if newest_first else run.last, at.taken + run.count, False)
        else:
            messages = split(run.data)
            for id, data in reversed(messages) if newest_first else messages:
                if at.taken == query.per_topic_max:
                    break
                if not page.add(topic, data):
                    return at
                at = TopicPosition(topic, id, at.taken + 1, False)
                if not is_noted:
                    page.gap(*gap)
                    is_noted = True
        if not is_noted:
            page.gap(*gap)
            is_noted = True
    if not is_noted or (newest_first and at.taken != query.per_topic_max):
        page.gap(*gap)
    return None


def _add_whole(log: TopicLogView, query: TopicQuery, topic: int, page: _Page) -> bool:
    """Add a topic at once, if all of it is asked for and fits the page; say whether that is so."""
    if not query.with_payloads:
        return False
    whole = log.whole(query.keys[topic], newest_first=query.newest_first)
    if not whole.count or query.low > whole.first or query.high <= whole.last:
        return False
    if not page.add_all(topic, whole.count, whole.data, query.per_topic_max):
        return False
    if not query.newest_first or whole.count != query.per_topic_max:
        page.gap(topic, query.low, min(query.high, whole.dropped_through + 1))
    return True


def _merged(log: TopicLogView, query: TopicQuery, position: TopicPosition | None, page: _Page) -> TopicPage:
    low, high = _bounds(query, position)
    if not query.newest_first:
        _gaps_of_all(log, query, low, high, page)
    streams = [
        _tagged(log.scan(key, low, high, reverse=query.newest_first), topic, query.newest_first)
        for topic, key in enumerate(query.keys)
    ]
    at = position
    for rank, topic, data in heapq.merge(*streams):
        if not page.add(topic, data):
            return page.finished(at)
        at = TopicPosition(0, -rank if query.newest_first else rank, 0, False)
    if query.newest_first:
        _gaps_of_all(log, query, low, high, page)
    return page.finished(None)


def _tagged(
    scanned: Iterator[tuple[int, bytes]], topic: int, newest_first: bool
) -> Iterator[tuple[int, int, bytes]]:
    for id, data in scanned:
        yield (-id if newest_first else id), topic, data


def _gaps_of_all(log: TopicLogView, query: TopicQuery, low: int, high: int, page: _Page) -> None:
    for topic, key in enumerate(query.keys):
        page.gap(topic, low, min(high, _dropped_through(log, log.locate(key)) + 1))


def _bounds(query: TopicQuery, position: TopicPosition | None) -> tuple[int, int]:
    if position is None or position.id is None:
        return query.low, query.high
    if query.newest_first:
        return query.low, min(query.high, position.id)
    return max(query.low, position.id + 1), query.high


def _dropped_through(log: TopicLogView, found: Located | None) -> int:
    """Return the last id that may be missing: nothing is known of a topic whose messages are all gone."""
    return log.usage().first - 1 if found is None else found.topic.dropped_through
