"""History requests: one query for many topics, and what each member has acknowledged.

A page says that it is all (`complete`), that it is all but something was dropped (`gap`), or how to go on
(`more`). Whatever is refused is a reject with its reason and when to come back; nothing is left out in
silence.
"""

from __future__ import annotations

import typing

from cannery import (
    Case,
    Context,
    Principal,
    StableCell,
    TopicMessage,
    Variant,
    nat32,
    nat64,
    query,
    record,
    update,
    variant,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.topic_pages import TopicPage, TopicQuery, read_page

from . import bounds
from .cursor import CursorError, decode_cursor, digest_of, encode_cursor
from .mailbox import Mailbox
from .members import Members
from .refusal import check_key_id, refuse
from .retention import Retention
from .roles import MEMBER


@record
class Between:
    """From one value to another, both included."""

    first: nat64
    last: nat64


@variant
class HistoryRange(Variant):
    """Everything, ids, or times of arrival in nanoseconds since 1970."""

    all: Case[None]
    ids: Case[Between]
    times: Case[Between]


@variant
class HistoryOrder(Variant):
    """Which end comes first."""

    oldest_first: Case[None]
    newest_first: Case[None]


@record
class HistoryAsk:
    """What is asked: by topic in the order given, or `merged` into one order of ids.

    A page holds up to `limit` messages and `bytes_max` bytes, at least one message; `per_topic` bounds each
    topic over all pages. `cursor` is that of the page before, with the same topics, range and order.
    """

    topics: list[bytes]
    range: HistoryRange
    order: HistoryOrder
    merged: bool
    bodies: bool
    limit: nat32
    bytes_max: nat64 | None
    per_topic: nat32 | None
    cursor: bytes | None


@record
class HistoryRun:
    """Messages of one topic, which is named by its place in the request."""

    topic: nat32
    messages: list[TopicMessage]


@record
class HistoryGap:
    """Ids from `first` to `last` that a topic may have had and that the zone has dropped."""

    topic: nat32
    first: nat64
    last: nat64


@variant
class HistoryState(Variant):
    """This was all; this was all that is left, see the gaps of all pages; or there is more."""

    complete: Case[None]
    gap: Case[None]
    more: Case[bytes]


@record
class HistoryPage:
    """A page; `oldest` and `newest` are the bounds of all ids that the zone has."""

    runs: list[HistoryRun]
    gaps: list[HistoryGap]
    state: HistoryState
    oldest: nat64
    newest: nat64


@record
class TopicEntry:
    """A topic that has messages; ids up to `dropped_through` are gone."""

    topic: bytes
    first: nat64
    last: nat64
    count: nat64
    size_bytes: nat64
    dropped_through: nat64


@record
class TopicEntries:
    """Topics in the order of their keys; `next` goes into `after` for the page that follows."""

    topics: list[TopicEntry]
    next: bytes | None


@record
class Missing:
    """What a member has yet to acknowledge: `count` messages from id `first` on."""

    member: Principal
    first: nat64
    count: nat64


@record
class MissingPage:
    """Members with what they miss; `next` goes into `after` for the page that follows."""

    members: list[Missing]
    next: Principal | None


class History(Component, prefix="history"):
    """Pages over many topics, topics, acknowledgements."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)
    retention = Uses(Retention)
    secret = StableCell(bytes, b"")

    def found(self, ctx: Context) -> None:
        """Draw the secret that cursors are signed with; nobody outside ever sees it."""
        self.secret.set(ctx.random_bytes(32))

    @query
    def history(self, ctx: Context, ask: HistoryAsk) -> HistoryPage:
        """Return a page of the messages of up to 1,000 topics."""
        self.members.require(ctx)
        query = self._query(ctx, ask)
        position = None
        if ask.cursor is not None:
            try:
                position = decode_cursor(self.secret.get(), _digest_of(ask), ask.cursor)
            except CursorError as error:
                refuse(ctx, str(error))
        return self._answer(ask, read_page(self.mailbox.messages, query, position))

    def _query(self, ctx: Context, ask: HistoryAsk) -> TopicQuery:
        size = bounds.HISTORY_PAGE_SIZE_BYTES if ask.bytes_max is None else ask.bytes_max
        for what, given, most in (
            ("topics", len(ask.topics), bounds.HISTORY_TOPIC_COUNT_MAX),
            ("messages", ask.limit, bounds.HISTORY_MESSAGE_COUNT_MAX),
            ("bytes", size, bounds.HISTORY_PAGE_SIZE_BYTES_MAX),
        ):
            if not 1 <= given <= most:
                refuse(ctx, f"a history request is for 1 to {most} {what}, not {given}")
        if ask.per_topic == 0:
            refuse(ctx, "'per_topic' is at least 1: leave it out for all of each topic")
        for key_id in ask.topics:
            check_key_id(ctx, key_id)
        if len(set(ask.topics)) != len(ask.topics):
            refuse(ctx, "a topic stands twice in the request: name each once")
        if ask.merged and ask.per_topic is not None:
            refuse(
                ctx, "a limit for each topic goes with an answer by topic: leave out 'per_topic' or 'merged'"
            )
        low, high = self._ids(ctx, ask.range)
        newest_first = ask.order.tag == "newest_first"
        return TopicQuery(
            ask.topics, low, high, newest_first, ask.merged, ask.bodies, ask.limit, size, ask.per_topic
        )

    def _ids(self, ctx: Context, asked: HistoryRange) -> tuple[int, int]:
        """Give the ids of a range, as low and high bound, the high one not included."""
        log = self.mailbox.messages
        if asked.tag == "all":
            return 1, log.usage().next
        between = asked.ids if asked.tag == "ids" else asked.times
        if between.first > between.last:
            refuse(ctx, f"the range is reversed: it begins at {between.first} and ends at {between.last}")
        if asked.tag == "ids":
            return max(1, between.first), min(between.last + 1, log.usage().next)
        low, high = log.id_at(between.first), log.id_at(between.last + 1)
        # What was dropped came before the oldest message, perhaps within the range.
        return (1 if low == log.usage().first else low), high

    def _answer(self, ask: HistoryAsk, page: TopicPage) -> HistoryPage:
        state = self.mailbox.messages.usage()
        if page.next is not None:
            outcome = HistoryState.more(encode_cursor(self.secret.get(), _digest_of(ask), page.next))
        else:
            outcome = HistoryState.gap() if page.has_gap else HistoryState.complete()
        # The messages of a run are encoded already, which an encoder takes for a list of them.
        runs = [HistoryRun(run.topic, typing.cast(list[TopicMessage], run.messages)) for run in page.runs]
        gaps = [HistoryGap(gap.topic, gap.start, gap.end - 1) for gap in page.gaps]
        return HistoryPage(runs, gaps, outcome, state.first, state.next - 1)

    @query
    def topics_page(self, ctx: Context, after: bytes | None, limit: nat32) -> TopicEntries:
        """List the topics that have messages."""
        self.members.require(ctx)
        if after is not None:
            check_key_id(ctx, after)
        limit = max(1, min(limit, bounds.LIST_COUNT_MAX))
        log = self.mailbox.messages
        topics, following = log.topics(limit=limit, after=after)
        entries = [
            TopicEntry(
                t.key, log.first_of(t.key) or t.first, t.last, t.count, t.size_bytes, t.dropped_through
            )
            for t in topics
        ]
        return TopicEntries(entries, following)

    # acknowledgements

    @update
    def acknowledge(self, ctx: Context, through: nat64) -> nat64:
        """Say that one has all messages up to and including an id; return the first id not acknowledged."""
        self.members.require(ctx)
        return self.mailbox.messages.acknowledge(ctx.caller.raw, through=through)

    @query
    def missing(self, ctx: Context, after: Principal | None, limit: nat32) -> MissingPage:
        """List members with what they have yet to acknowledge."""
        self.members.require(ctx, MEMBER)
        log = self.mailbox.messages
        state = log.usage()
        readers, following = log.readers(
            limit=max(1, min(limit, bounds.LIST_COUNT_MAX)), after=None if after is None else after.raw
        )
        missing = [
            Missing(Principal(reader), first, state.next - max(first, state.first))
            for reader, first in readers
        ]
        return MissingPage(missing, None if following is None else Principal(following))


def _digest_of(ask: HistoryAsk) -> bytes:
    return digest_of(ask.topics, ask.range, ask.order, ask.merged, ask.per_topic)
