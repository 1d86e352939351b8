"""Messages as they arrive, all topics in one order: pages for who was away, events for who is here.

Every new message is an event of the topic `messages`, whose payload is the Candid value of its `Arrival`.
What is too large for an event comes without its payload, and is asked for by its id.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256

from cannery import Context, EventRequest, TopicMessage, encode_args, nat32, nat64, query, record
from cannery.cdk.component import Component, Uses
from cannery.cdk.topic_records import Posted

from . import bounds
from .mailbox import Mailbox
from .members import Members
from .refusal import refuse

MESSAGES_TOPIC = "messages"
# What an arrival takes beside its payload in an answer.
_HEAD_SIZE_BYTES = bounds.KEY_ID_SIZE_BYTES + 64


@record
class Arrival:
    """A message with its topic; a payload that is empty though `size` is above 0 was left out."""

    topic: bytes
    message: TopicMessage


@record
class ArrivalPage:
    """Messages in the order of ids. `next` goes into `first` for the page that follows, None at the end.

    `gone` says that ids from the one asked for up to, not including, this one have been dropped. `oldest` and
    `newest` are the bounds of all ids that the zone has.
    """

    arrivals: list[Arrival]
    gone: nat64 | None
    next: nat64 | None
    oldest: nat64
    newest: nat64


class Arrivals(Component, prefix="arrivals"):
    """What is new in the zone, whatever its topic."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)

    @query
    def arrivals(self, ctx: Context, first: nat64, limit: nat32, bytes_max: nat64 | None) -> ArrivalPage:
        """Return the messages of all topics from an id on, a page of up to `limit` and `bytes_max` (2 MB)."""
        self.members.require(ctx)
        most = bounds.HISTORY_PAGE_SIZE_BYTES if bytes_max is None else bytes_max
        for what, given, bound in (
            ("messages", limit, bounds.HISTORY_MESSAGE_COUNT_MAX),
            ("bytes", most, bounds.HISTORY_PAGE_SIZE_BYTES_MAX),
        ):
            if not 1 <= given <= bound:
                refuse(ctx, f"a page of arrivals holds 1 to {bound} {what}, not {given}")
        log = self.mailbox.messages
        state = log.usage()
        start = max(1, first)
        taken: list[Arrival] = []
        following, size = None, 0
        for topic, message in log.scan_all(start, max(start, state.first) + limit + 1):
            size += _HEAD_SIZE_BYTES + len(message.payload)
            if len(taken) == limit or (taken and size > most):
                following = message.id
                break
            taken.append(Arrival(topic, message))
        gone = state.first if start < state.first else None
        return ArrivalPage(taken, gone, following, state.first, state.next - 1)

    @query
    def events_allowed(self, ctx: Context, request: EventRequest) -> list[str]:
        """Give members the events of the zone."""
        self.members.require(ctx)
        return [topic for topic in request.topics if topic == MESSAGES_TOPIC]

    def announce(self, ctx: Context, items: Sequence[tuple[bytes, bytes]], posted: Sequence[Posted]) -> None:
        """Emit an event for each message that is new; its payload comes along where it is small."""
        for (topic, payload), each in zip(items, posted, strict=True):
            if not each.is_new:
                continue
            shown = payload if len(payload) <= bounds.EVENT_PAYLOAD_SIZE_BYTES_MAX else b""
            message = TopicMessage(each.id, ctx.now_ns, sha256(payload).digest(), len(payload), shown)
            ctx.emit(MESSAGES_TOPIC, encode_args(Arrival(topic, message)))
