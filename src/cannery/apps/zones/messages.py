"""Messages as Diode's clients send and read them: by key (41 bytes), by id, by hash, in ranges.

Diode's interface with its faults mended: a range for a key begins at its first message within the range and
is oldest first, or newest first where the bounds stand the other way; several messages are added all or none;
the same ciphertext under a second key is a second message; every read needs membership.
"""

from __future__ import annotations

from collections.abc import Iterator

from cannery import (
    Context,
    Principal,
    StableCell,
    StableMap,
    TopicLogFull,
    TopicMessage,
    nat,
    nat32,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.topic_records import Found

from . import bounds
from .arrivals import Arrivals
from .diode_types import IdResult, IdsResult, Message
from .mailbox import Mailbox
from .members import Members
from .refusal import NS_PER_S, check_key_id, refuse
from .retention import Retention
from .roles import ADMIN, MEMBER, MODERATOR


@record
class PostRate:
    """How much each member may post: `messages` within any `seconds`, or fewer at a time and more often."""

    messages: nat32
    seconds: nat32


class Messages(Component, prefix="messages"):
    """Diode's methods about messages, erasing, and the rate at which members post."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)
    retention = Uses(Retention)
    arrivals = Uses(Arrivals)
    rate = StableCell(PostRate | None, None)
    # When each member's allowance will be whole again.
    spent_until = StableMap(Principal, nat64)

    # writing

    @update
    def add_message(self, ctx: Context, key_id: bytes, ciphertext: bytes) -> IdResult:
        """Add a message under a key of 41 bytes; the same ciphertext again gives the id that it has."""
        result = self._add(ctx, [(key_id, ciphertext)])
        return IdResult.err(result) if isinstance(result, str) else IdResult.ok(result[0])

    @update
    def add_messages(self, ctx: Context, messages: list[tuple[bytes, bytes]]) -> IdsResult:
        """Add several messages, all or none; give their ids in order."""
        result = self._add(ctx, messages)
        return IdsResult.err(result) if isinstance(result, str) else IdsResult.ok(result)

    def _add(self, ctx: Context, messages: list[tuple[bytes, bytes]]) -> list[int] | str:
        self.members.require(ctx, MEMBER)
        if len(messages) > bounds.POST_COUNT_MAX:
            return f"at most {bounds.POST_COUNT_MAX} messages are added at a time, not {len(messages)}"
        for key_id, _ in messages:
            if len(key_id) != bounds.KEY_ID_SIZE_BYTES:
                return f"key_id must be {bounds.KEY_ID_SIZE_BYTES} bytes, not {len(key_id)}"
        self._check_rate(ctx, len(messages))
        try:
            posted = self.mailbox.messages.post_many(messages)
        except ValueError as error:
            return str(error)
        except TopicLogFull as full:
            self.retention.arm(ctx, soon=full.passes)
            return f"the zone takes no more messages: {full}" + ("; retry after 1 s" if full.passes else "")
        self._spend(ctx, sum(each.is_new for each in posted))
        self.retention.arm(ctx)
        self.arrivals.announce(ctx, messages, posted)
        return [each.id for each in posted]

    def _check_rate(self, ctx: Context, count: int) -> None:
        rate = self.rate.get()
        if rate is None:
            return
        if count > rate.messages:
            refuse(ctx, f"you may post {rate.messages} messages at a time, these are {count}")
        wait_ns = self._spent_until(ctx, rate, count) - rate.seconds * NS_PER_S - ctx.now_ns
        if wait_ns > 0:
            refuse(ctx, f"you may post {rate.messages} messages in {rate.seconds} s", retry_ns=wait_ns)

    def _spend(self, ctx: Context, count: int) -> None:
        """Count what was added: what the zone refused, or had already, costs nothing."""
        rate = self.rate.get()
        if rate is not None and count:
            self.spent_until.put(ctx.caller, self._spent_until(ctx, rate, count))

    def _spent_until(self, ctx: Context, rate: PostRate, count: int) -> int:
        each_ns = rate.seconds * NS_PER_S // rate.messages
        return max(ctx.now_ns, self.spent_until.get(ctx.caller, 0)) + count * each_ns

    @update
    def set_post_rate(self, ctx: Context, rate: PostRate | None) -> None:
        """Bound how much each member posts, or end the bound."""
        self.members.require(ctx, ADMIN)
        if rate is not None and not (rate.messages and rate.seconds):
            refuse(ctx, "a rate has at least 1 message and 1 second")
        self.rate.set(rate)
        self.spent_until.clear()

    @query
    def get_post_rate(self, ctx: Context) -> PostRate | None:
        """Return how much each member may post."""
        self.members.require(ctx)
        return self.rate.get()

    @update
    def erase_message(self, ctx: Context, message_id: nat32) -> bool:
        """Take a message's ciphertext away; its id and hash stay. Say whether there was one."""
        self.members.require(ctx, MODERATOR)
        return self.mailbox.messages.erase(message_id)

    # reading

    @query
    def get_message_by_hash(self, ctx: Context, message_hash: bytes) -> Message | None:
        """Return the message whose ciphertext has this SHA-256; None where it is not there (any more)."""
        self.members.require(ctx)
        if len(message_hash) != bounds.HASH_SIZE_BYTES:
            refuse(ctx, f"hash must be {bounds.HASH_SIZE_BYTES} bytes, not {len(message_hash)}")
        id = self.mailbox.messages.find(message_hash)
        found = None if id is None else self.mailbox.messages.get(id)
        return None if found is None else _of_found(found)

    @query
    def get_message_by_id(self, ctx: Context, message_id: nat32) -> Message:
        """Return a message."""
        self.members.require(ctx)
        found = self.mailbox.messages.get(message_id)
        if found is None:
            state = self.mailbox.messages.usage()
            what = f"ids {state.first} to {state.next - 1} are" if state.count else "there is none"
            refuse(ctx, f"message {message_id} is not here: {what}")
        return _of_found(found)

    @query
    def get_messages_by_range(
        self, ctx: Context, min_message_id: nat32, max_message_id: nat32
    ) -> list[Message]:
        """Return the messages from one id to another, both included."""
        self.members.require(ctx)
        found = self.mailbox.messages.scan_all(min_message_id, max_message_id + 1)
        return self._linked(self._bounded(ctx, found))

    @query
    def get_messages_by_range_for_key(
        self, ctx: Context, key_id: bytes, min_message_id: nat32, max_message_id: nat32
    ) -> list[Message]:
        """Return a key's messages between two ids, both included: oldest first, or newest first where the
        larger id is given first."""
        self.members.require(ctx)
        check_key_id(ctx, key_id)
        log, newest_first = self.mailbox.messages, min_message_id > max_message_id
        low, high = sorted((min_message_id, max_message_id))
        scanned = log.scan(key_id, low, high + 1, reverse=newest_first)
        found = self._bounded(ctx, ((key_id, log.message_of(data)) for _, data in scanned))
        linked = self._linked(found[::-1] if newest_first else found)
        return linked[::-1] if newest_first else linked

    def _bounded(
        self, ctx: Context, found: Iterator[tuple[bytes, TopicMessage]]
    ) -> list[tuple[bytes, TopicMessage]]:
        taken: list[tuple[bytes, TopicMessage]] = []
        size = 0
        for key, message in found:
            size += bounds.KEY_ID_SIZE_BYTES + 32 + len(message.payload)
            if len(taken) == bounds.RANGE_MESSAGE_COUNT_MAX or (taken and size > bounds.RANGE_SIZE_BYTES_MAX):
                most = f"{bounds.RANGE_MESSAGE_COUNT_MAX} messages or {bounds.RANGE_SIZE_BYTES_MAX} bytes"
                last = taken[-1][1].id
                refuse(
                    ctx, f"this range holds more than {most}: ask for it in parts (the first ends at {last})"
                )
            taken.append((key, message))
        return taken

    def _linked(self, found: list[tuple[bytes, TopicMessage]]) -> list[Message]:
        """Give messages, in the order of ids, their neighbours; those beyond the range are looked up."""
        log = self.mailbox.messages
        last: dict[bytes, int] = {}
        following: dict[int, int] = {}
        previous: dict[int, int] = {}
        for key, message in found:
            before = last.get(key)
            if before is None:
                edge = log.get(message.id)
                previous[message.id] = 0 if edge is None else edge.previous
            else:
                previous[message.id], following[before] = before, message.id
            last[key] = message.id
        for id in last.values():
            edge = log.get(id)
            following[id] = 0 if edge is None else edge.next
        return [_message(key, m, previous[m.id], following[m.id]) for key, m in found]

    @query
    def get_min_message_id(self, ctx: Context) -> nat32:
        """Return the oldest id; 0 where there is no message."""
        self.members.require(ctx)
        state = self.mailbox.messages.usage()
        return state.first if state.count else 0

    @query
    def get_max_message_id(self, ctx: Context) -> nat32:
        """Return the newest id that was given; 0 where none was."""
        self.members.require(ctx)
        return self.mailbox.messages.usage().next - 1

    @query
    def get_min_message_id_by_key(self, ctx: Context, key_id: bytes) -> nat32 | None:
        """Return the oldest id of a key; None where it has no messages."""
        self.members.require(ctx)
        check_key_id(ctx, key_id)
        return self.mailbox.messages.first_of(key_id)

    @query
    def get_max_message_id_by_key(self, ctx: Context, key_id: bytes) -> nat32 | None:
        """Return the newest id of a key; None where it has no messages."""
        self.members.require(ctx)
        check_key_id(ctx, key_id)
        topic = self.mailbox.messages.topic(key_id)
        return None if topic is None else topic.last

    @query
    def get_message_usage(self, ctx: Context) -> nat64:
        """Return how many bytes the messages take, indexes included."""
        self.members.require(ctx)
        return self.mailbox.messages.usage().size_bytes

    @query
    def get_message_count(self, ctx: Context) -> nat:
        """Return how many messages there are."""
        self.members.require(ctx)
        return self.mailbox.messages.usage().count


def _of_found(found: Found) -> Message:
    return _message(found.key, found.message, found.previous, found.next)


def _message(key: bytes, message: TopicMessage, previous: int, following: int) -> Message:
    seconds = message.at_ns // NS_PER_S
    return Message(message.id, seconds, key, following, previous, message.hash, message.payload)
