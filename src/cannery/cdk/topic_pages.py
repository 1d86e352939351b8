"""Pages over many topics of a topic log: what a client that was away asks for, in one request.

An answer is made of stored bytes as they are: nothing of a message is decoded. Where something was dropped, a
gap says so with its bounds. A position says where to go on; it stays right whatever is added or pruned in the
meantime, for it names an id and not a place.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from cannery import limits
from cannery.candid.values import Packed
from cannery.cdk.topic_log import TopicLogView

# A message's bytes before its payload: id, time, length of the hash, hash, size.
_HEAD_SIZE_BYTES = 8 + 8 + 1 + 32 + 4
_EMPTY_PAYLOAD = b"\x00"


@dataclass(frozen=True, slots=True)
class TopicQuery:
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


@dataclass(frozen=True, slots=True)
class TopicPosition:
    """The last message given: the topic's place in the query, its id, and how many of the topic were given.

    With `id` None the topic has yet to begin. `has_gap` says whether a page before this position had a gap.
    """

    topic: int
    id: int | None
    taken: int
    has_gap: bool


@dataclass(frozen=True, slots=True)
class TopicRun:
    """Messages of one topic (by its place in the query), as Candid bytes of `TopicMessage`s."""

    topic: int
    messages: Packed


@dataclass(frozen=True, slots=True)
class TopicGap:
    """Ids from `start` up to, not including, `end` that a topic may have had and that were dropped."""

    topic: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class TopicPage:
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

    def add(self, topic: int, data: bytes) -> bool:
        """Add a message; False where it does not fit."""
        if not self.query.with_payloads:
            data = data[:_HEAD_SIZE_BYTES] + _EMPTY_PAYLOAD
        size = len(data)
        if self.count and (
            self.count >= self.query.count_max or self.size_bytes + size > self.query.bytes_max
        ):
            return False
        if topic != self._topic:
            self.close_run()
            self._topic = topic
        self._parts.append(data)
        self.count += 1
        self.size_bytes += size
        return True

    def close_run(self) -> None:
        if self._parts:
            self.runs.append(TopicRun(self._topic, Packed(len(self._parts), b"".join(self._parts))))
            self._parts = []

    def gap(self, topic: int, start: int, end: int) -> None:
        if start < end:
            self.gaps.append(TopicGap(topic, start, end))
            self.has_gap = True

    def finished(self, position: TopicPosition | None) -> TopicPage:
        self.close_run()
        if position is not None:
            position = replace(position, has_gap=self.has_gap)
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
        key, taken = query.keys[topic], at.taken
        low, high = _bounds(query, at)
        gap = (topic, low, min(high, _dropped_through(log, key) + 1))
        is_noted = query.newest_first
        for id, data in log.scan(key, low, high, reverse=query.newest_first):
            if taken == query.per_topic_max:
                break
            if not page.add(topic, data):
                return page.finished(at)
            if not is_noted:
                page.gap(*gap)
                is_noted = True
            taken += 1
            at = TopicPosition(topic, id, taken, False)
        if not is_noted or (query.newest_first and taken != query.per_topic_max):
            page.gap(*gap)
        at = TopicPosition(topic + 1, None, 0, False)
    return page.finished(None)


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
        page.gap(topic, low, min(high, _dropped_through(log, key) + 1))


def _bounds(query: TopicQuery, position: TopicPosition | None) -> tuple[int, int]:
    if position is None or position.id is None:
        return query.low, query.high
    if query.newest_first:
        return query.low, min(query.high, position.id)
    return max(query.low, position.id + 1), query.high


def _dropped_through(log: TopicLogView, key: bytes) -> int:
    """Return the last id that may be missing: nothing is known of a topic whose messages are all gone."""
    topic = log.topic(key)
    return log.usage().first - 1 if topic is None else topic.dropped_through
