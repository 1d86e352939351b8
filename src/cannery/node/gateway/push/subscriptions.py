"""Subscriptions: who gets which of a canister's events, and from which number on.

A subscription is live while it has had every event there is: then what the subnet sends goes straight to it.
Otherwise (it began in the past, its reader is slow, its decision is stale) it is behind: nothing is kept for
it here, and it reads the canister's log page by page until it has caught up. Numbers are dense, so whatever
went wrong on the way shows as a number that is not the next one. What has left the log is told as a gap.
"""

from __future__ import annotations

import asyncio
from typing import Final, Protocol

from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.errors import DecodeError, RejectCode
from cannery.limits import EVENT_CATCH_UP_COUNT_MAX, RECOVERY_PAUSE_MS
from cannery.node.gateway.push.wire import event_frame, message_frame
from cannery.node.gateway.tally_page import TallyPage
from cannery.node.handover import Answered, Decided, EventItem, Events, QueryMessage
from cannery.node.subnet_port import EventPort

_decode_topics: Final = decoder((type_of(list[str]),))


class Reader(Protocol):
    """The connection of a subscription."""

    @property
    def is_writable(self) -> bool:
        """Say whether what was sent before has been taken."""
        ...

    async def writable(self) -> None:
        """Wait until it is writable, or gone."""
        ...

    def send(self, frame: bytes) -> None: ...

    def ended(self, subscription: Subscription) -> None:
        """Hear that a subscription is over."""
        ...


class Feed:
    """What a gateway knows of a canister's events: the number of the next one, and who wants it."""

    __slots__ = ("next", "subscriptions")

    def __init__(self) -> None:
        self.next = 0
        self.subscriptions: dict[Subscription, None] = {}


class Subscription:
    """One connection's wish for a canister's events. `next`: the number it waits for."""

    __slots__ = (
        "allowed",
        "canister_id",
        "expires_ns",
        "feed",
        "has_begun",
        "is_fresh",
        "is_live",
        "is_open",
        "next",
        "reader",
        "task",
        "timer",
        "told",
        "topics",
        "watch",
    )

    def __init__(
        self, reader: Reader, canister_id: bytes, topics: tuple[str, ...], since: int | None, expires_ns: int
    ) -> None:
        self.reader = reader
        self.canister_id = canister_id
        self.topics = topics
        self.next = since
        self.expires_ns = expires_ns
        self.allowed: frozenset[str] = frozenset()
        self.feed: Feed
        self.watch = 0
        self.told = 0
        self.is_open = True
        self.is_fresh = False
        self.is_live = False
        self.has_begun = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Subscriptions:
    """All subscriptions of a gateway process. It is the subnet's `EventListener`."""

    def __init__(self, port: EventPort, page: TallyPage | None = None) -> None:
        """`page` counts subscriptions, what is sent over them, and gaps."""
        self._page = TallyPage() if page is None else page
        self._port = port
        self._by_watch: dict[int, Subscription] = {}
        self._feeds: dict[bytes, Feed] = {}
        self._readings = asyncio.Semaphore(EVENT_CATCH_UP_COUNT_MAX)
        self._sent = self._page.cell("events_sent_total")
        self._gaps = self._page.cell("event_gaps_total")
        port.listen(self)

    def __len__(self) -> int:
        return len(self._by_watch)

    # --- what clients do

    def open(self, subscription: Subscription, query: QueryMessage) -> None:
        """Begin a subscription: it waits for the canister's word."""
        feed = self._feeds.setdefault(subscription.canister_id, Feed())
        subscription.feed = feed
        feed.subscriptions[subscription] = None
        subscription.watch = self._port.watch(query)
        self._by_watch[subscription.watch] = subscription
        self._page.set("event_subscriptions", len(self._by_watch))

    def close(self, subscription: Subscription) -> None:
        """End a subscription without a word."""
        if not subscription.is_open:
            return
        subscription.is_open = subscription.is_live = False
        del self._by_watch[subscription.watch]
        self._page.set("event_subscriptions", len(self._by_watch))
        self._port.unwatch(subscription.watch)
        del subscription.feed.subscriptions[subscription]
        if not subscription.feed.subscriptions:
            del self._feeds[subscription.canister_id]
        if subscription.task is not None:
            subscription.task.cancel()
        if subscription.timer is not None:
            subscription.timer.cancel()
        subscription.reader.ended(subscription)

    def end(self, subscription: Subscription, reason: str, text: str) -> None:
        """End a subscription, and tell its client why: `refused` before it began, else `ended`."""
        kind = "ended" if subscription.has_begun else "refused"
        self.close(subscription)
        frame = message_frame(kind, canister=subscription.canister_id, reason=reason, text=text)
        subscription.reader.send(frame)

    # --- what the subnet tells

    def decided(self, decided: Decided) -> None:
        """Take the canister's word on a subscription."""
        subscription = self._by_watch.get(decided.id)
        if subscription is None:
            return
        if decided.answer.reject_code == RejectCode.SYS_TRANSIENT:
            # Nobody has said no: the store could not be read, for one.
            self.end(subscription, "busy", decided.answer.reject_message)
            return
        try:
            allowed = _allowed(subscription, decided.answer)
        except _Denied as denied:
            self.end(subscription, "denied", denied.text)
            return
        feed = subscription.feed
        feed.next = max(feed.next, decided.next)
        if subscription.next is None:
            subscription.next = decided.next
        if not subscription.has_begun and subscription.next > decided.next:
            text = (
                f"the next event is {decided.next}, and you ask for those from {subscription.next} on: "
                "the canister was restored from a backup, or this is another one"
            )
            self.end(subscription, "ahead", text)
            return
        if not subscription.has_begun or allowed != subscription.allowed:
            self._tell_topics(subscription, allowed)
        subscription.has_begun = subscription.is_fresh = True
        self._go_on(subscription)

    def stale(self, ids: tuple[int, ...]) -> None:
        """Hold back events from subscriptions that are decided again."""
        for id in ids:
            subscription = self._by_watch.get(id)
            if subscription is not None:
                subscription.is_fresh = subscription.is_live = False

    def events(self, events: Events) -> None:
        """Send events to all who are live."""
        feed = self._feeds.get(events.canister_id)
        if feed is None:
            return
        feed.next = max(feed.next, events.events[-1].number + 1)
        frames: dict[int, bytes] = {}
        for subscription in list(feed.subscriptions):
            if subscription.is_live:
                self._push(subscription, events.events, frames)
                if subscription.next != feed.next:
                    subscription.is_live = False
                    self._go_on(subscription)

    # --- inside

    def _tell_topics(self, subscription: Subscription, allowed: frozenset[str]) -> None:
        kind = "topics" if subscription.has_begun else "subscribed"
        subscription.allowed = allowed
        subscription.told = subscription.next or 0
        frame = message_frame(
            kind,
            canister=subscription.canister_id,
            topics=[topic for topic in subscription.topics if topic in allowed],
            next=subscription.told,
        )
        subscription.reader.send(frame)

    def _push(
        self, subscription: Subscription, events: tuple[EventItem, ...], frames: dict[int, bytes]
    ) -> None:
        """Send what follows without a hole, until the reader has to wait. `frames` are shared."""
        reader, allowed = subscription.reader, subscription.allowed
        for event in events:
            number = event.number
            if number != subscription.next:
                continue
            if event.topic in allowed:
                if not reader.is_writable:
                    return
                frame = frames.get(number)
                if frame is None:
                    frame = frames[number] = event_frame(subscription.canister_id, event)
                reader.send(frame)
                self._sent.add()
                subscription.told = number + 1
            subscription.next = number + 1

    def _go_on(self, subscription: Subscription) -> None:
        """Make a subscription live, at once where it lacks nothing."""
        if subscription.next == subscription.feed.next and subscription.reader.is_writable:
            subscription.is_live = subscription.is_fresh
        elif subscription.task is None:
            subscription.task = asyncio.get_running_loop().create_task(self._catch_up(subscription))

    async def _catch_up(self, subscription: Subscription) -> None:
        try:
            while subscription.is_open and subscription.is_fresh and not subscription.is_live:
                await subscription.reader.writable()
                if subscription.next == subscription.feed.next:
                    subscription.is_live = subscription.is_fresh and subscription.is_open
                    return
                async with self._readings:
                    is_read = await self._read_page(subscription)
                if not is_read:
                    await asyncio.sleep(RECOVERY_PAUSE_MS / 1000)
        finally:
            subscription.task = None

    async def _read_page(self, subscription: Subscription) -> bool:
        """Send a page of the log; False where there is none to be had for now."""
        since = subscription.next
        assert since is not None, "it was set by the first decision"
        page = await self._port.read_events(subscription.canister_id, since)
        if page.error is not None:
            return False
        if not subscription.is_open or not subscription.is_fresh:
            return True
        subscription.feed.next = max(subscription.feed.next, page.next)
        if page.first > since:
            self._gaps.add()
            subscription.next = subscription.told = page.first
            frame = message_frame(
                "gap", canister=subscription.canister_id, **{"from": since, "first": page.first}
            )
            subscription.reader.send(frame)
        self._push(subscription, page.events, {})
        return True

    def tell_progress(self, subscription: Subscription) -> None:
        """Tell a client how far it is, where the last events were none of its topics."""
        if subscription.is_live and subscription.next is not None and subscription.told < subscription.next:
            subscription.told = subscription.next
            frame = message_frame("mark", canister=subscription.canister_id, next=subscription.next)
            subscription.reader.send(frame)


class _Denied(Exception):
    """The canister does not let a client have its events."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


def _allowed(subscription: Subscription, answer: Answered) -> frozenset[str]:
    """Read the canister's word: which of the topics; raise `_Denied` for none of them."""
    if answer.reject_code == RejectCode.DESTINATION_INVALID:
        raise _Denied(f"{answer.reject_message}. Only canisters with a query events_allowed give events")
    if answer.reject_code:
        raise _Denied(answer.reject_message)
    try:
        (topics,) = _decode_topics(answer.reply)
    except DecodeError as error:
        raise _Denied(f"the canister's events_allowed gives no vec text: {error}") from None
    assert isinstance(topics, list), "that is the type it was decoded by"
    allowed = frozenset(topics) & frozenset(subscription.topics)
    if not allowed:
        raise _Denied("the canister allows you none of these topics")
    return allowed
