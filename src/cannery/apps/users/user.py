"""A user's canister: their mailbox, and what they send. The user owns it and talks to it directly.

A message is accepted when it lies in the sender's outbox; from there it is delivered to the receiver's
mailbox once and in the sender's order, however often either is stopped, upgraded or restarted. The first
attempt usually ends before the sender is answered, so that an impossible delivery is an error at once.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    StableLog,
    StableMap,
    StableSet,
    continuation,
    init,
    inspect_message,
    method,
    nat32,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.delivery import Attempt, Delivery, DeliveryFull
from cannery.cdk.inbox import Batch, Inbox
from cannery.cdk.message_log import Appended, LogItem, LogPage, LogRule, MessageLog, WhenFull
from cannery.fleet.member import Member

from .types import (
    MESSAGE_ID_SIZE_BYTES_MAX,
    OPAQUE_SIZE_BYTES_MAX,
    PAGE_COUNT_MAX,
    PAGE_SIZE_BYTES_MAX,
    SELF_CUSTODY_ROLE,
    TEXT_LENGTH_MAX,
    Body,
    DeliveryState,
    Envelope,
    Gap,
    InboxPage,
    Message,
    Profile,
    Receipt,
    SendResult,
    Sent,
    SentPage,
    Usage,
    UserInit,
    Who,
)

READER = "owner"
SENT_COUNT_MAX = 10_000
BLOCKED_COUNT_MAX = 10_000
SWEEP_NS = 600 * 1_000_000_000
MAILBOX_RULE = LogRule(100_000, 256 * 1024 * 1024, None, WhenFull.refuse())
UNOWNED = UserInit(Principal.anonymous(), Principal.anonymous(), "")


@record
class Stored:
    """A message as it lies in the mailbox."""

    sender: Principal
    sender_username: str
    message_id: bytes
    sent_ns: nat64
    body: Body


@record
class Home:
    """Where a user's mailbox was when one wrote to them last, and since when they are registered."""

    canister: Principal
    registered_ns: nat64


@record
class Draft:
    """A message whose receiver is being looked up."""

    to: Who
    message_id: bytes
    body: Body


@record
class Arrival:
    """Messages whose sender is being looked up."""

    sender: Principal
    batch: list[tuple[nat64, nat64, Envelope]]


class IndexOfUsers(Service):
    """What a user canister asks of its index."""

    @method
    def lookup(self, who: Who) -> Profile | None: ...


class User(Canister):
    """Keep one user's messages, and deliver what they send."""

    member = Member()
    me = StableCell(UserInit, UNOWNED)
    mailbox = MessageLog(Stored, rule=MAILBOX_RULE)
    arrivals = Inbox(Receipt)
    outbox = Delivery(Envelope, Receipt, method="receive")
    sent = StableMap(bytes, Sent)
    sent_order = StableLog(bytes)
    resolving = StableMap(bytes, nat64)
    peers = StableMap(Principal, Profile)
    homes = StableMap(Principal, Home)
    blocked = StableSet(Principal, counted=True)
    swept_ns = StableCell(nat64, 0)

    @init
    def start(self, ctx: Context, me: UserInit) -> None:
        """Give the canister its owner and its index."""
        self.me.set(me)

    @inspect_message
    def inspect(self, ctx: Context) -> bool:
        """Let in only the owner; other canisters do not come this way."""
        return ctx.caller == self.me.get().owner

    # sending

    @update
    def send(self, ctx: Context, to: Who, message_id: bytes, body: Body) -> SendResult | Pending[SendResult]:
        """Send a message; the same `message_id` again sends nothing and says where the message stands."""
        self._owner_only(ctx)
        self._sweep(ctx)
        known = self.sent.get(message_id)
        if known is not None:
            return SendResult.ok(known)
        fault = _fault(message_id, body)
        if fault is not None:
            return SendResult.invalid(fault)
        if ctx.now_ns - self.resolving.get(message_id, 0) < SWEEP_NS:
            return SendResult.refused("this message is on its way already; ask for it again in a moment")
        self.resolving.put(message_id, ctx.now_ns)
        lookup = IndexOfUsers(self.me.get().index).lookup(to)
        return ctx.call(lookup, then=self.receiver_found, saved=Draft(to, message_id, body))

    @continuation
    def receiver_found(
        self, ctx: Context, outcome: Outcome[Profile | None], saved: Draft
    ) -> SendResult | Pending[SendResult]:
        """Accept the message for its receiver and start to deliver it."""
        self.resolving.delete(saved.message_id)
        if not outcome.ok:
            return SendResult.refused(f"the receiver could not be looked up: {outcome.reject_message}")
        receiver = outcome.value
        if receiver is None:
            return SendResult.unknown_user(f"there is no user {_who_text(saved.to)}")
        if receiver.canister == ctx.id:
            return SendResult.invalid("you cannot write to yourself")
        if receiver.owner in self.blocked:
            return SendResult.blocked(f"you have blocked {receiver.username}; unblock them to write to them")
        return self._accept(ctx, receiver, saved)

    def _accept(self, ctx: Context, receiver: Profile, draft: Draft) -> SendResult | Pending[SendResult]:
        try:
            envelope = Envelope(draft.message_id, ctx.now_ns, draft.body, self.me.get().owner, receiver.owner)
            posted = self.outbox.post(self._home_of(receiver), envelope)
        except DeliveryFull as full:
            return SendResult.full(f"your outbox is full: {full}")
        sent = Sent(draft.message_id, receiver.owner, receiver.username, ctx.now_ns, DeliveryState.stored())
        self.sent.put(draft.message_id, sent)
        self.sent_order.append(draft.message_id)
        self._forget_oldest_sent()
        return SendResult.ok(sent) if posted.pending is None else posted.pending

    def _home_of(self, receiver: Profile) -> Principal:
        """Return where to send: the old canister of a mailbox that moved, while earlier messages wait for it.

        They go on to the new one together, in order.
        """
        home = self.homes.get(receiver.owner)
        is_same = home is not None and home.registered_ns == receiver.registered_ns
        if home is not None and is_same and self.outbox.queued_for(home.canister):
            return home.canister
        if home is not None and is_same and home.canister == receiver.canister:
            return home.canister
        self.homes.put(receiver.owner, Home(receiver.canister, receiver.registered_ns))
        return receiver.canister

    def _forget_oldest_sent(self) -> None:
        if len(self.sent_order) > SENT_COUNT_MAX:
            first = self.sent_order.first
            oldest = self.sent_order.get(first)
            if oldest is not None:
                self.sent.delete(oldest)
            self.sent_order.prune(before=first + 1)

    @outbox.on_attempt
    def attempted(self, ctx: Context, attempt: Attempt[Envelope, Receipt]) -> SendResult:
        """Note what became of a message, and tell whoever still waits for their send."""
        message_id = attempt.value.message_id
        sent = self.sent.get(message_id)
        if sent is None:
            sent = Sent(message_id, attempt.to, "", attempt.created_ns, DeliveryState.stored())
        state, result = _verdict(attempt)
        sent = Sent(sent.message_id, sent.to, sent.to_username, sent.sent_ns, state)
        if message_id in self.sent:
            self.sent.put(message_id, sent)
        return SendResult.ok(sent) if result is None else result

    @query
    def sent_message(self, ctx: Context, message_id: bytes) -> Sent | None:
        """Return where a message that one sent stands; the latest 10,000 are kept."""
        self._owner_only(ctx)
        return self.sent.get(message_id)

    @query
    def sent_messages(self, ctx: Context, before: nat64 | None, limit: nat32) -> SentPage:
        """List what one sent, newest first; `next` goes into `before` for what follows."""
        self._owner_only(ctx)
        page = self.sent_order.page(after=before, limit=_page_limit(limit), reverse=True)
        found = [self.sent.get(message_id) for _, message_id in page.items]
        return SentPage([sent for sent in found if sent is not None], page.next)

    # receiving

    @update
    def receive(self, ctx: Context, batch: Batch[Envelope]) -> list[Receipt] | Pending[list[Receipt]]:
        """Take messages from another user's canister, each once, in order. Only this index's are heard."""
        self._sweep(ctx)
        sender = self.peers.get(ctx.caller)
        if sender is not None and all(envelope.sender in (None, sender.owner) for _, _, envelope in batch):
            return self._take(ctx, sender, batch)
        if ctx.fleet is not None and ctx.caller_fleet != ctx.fleet and not ctx.has_role(SELF_CUSTODY_ROLE):
            ctx.reject("only the canisters of users of this index may deliver here")
        lookup = IndexOfUsers(self.me.get().index).lookup(Who.canister(ctx.caller))
        return ctx.call(lookup, then=self.sender_found, saved=Arrival(ctx.caller, batch))

    @continuation
    def sender_found(self, ctx: Context, outcome: Outcome[Profile | None], saved: Arrival) -> list[Receipt]:
        """Take the messages of a sender that the index knows; remember the sender."""
        if not outcome.ok:
            ctx.trap(f"the sender could not be looked up: {outcome.reject_message}")
        if outcome.value is None:
            if ctx.fleet is not None and ctx.caller_fleet == ctx.fleet:
                ctx.trap("the index does not know yet whose canister this is: deliver again")
            ctx.reject("only the canisters of users of this index may deliver here")
        self.peers.put(saved.sender, outcome.value)
        return self._take(ctx, outcome.value, saved.batch)

    def _take(self, ctx: Context, sender: Profile, batch: Batch[Envelope]) -> list[Receipt]:
        return self.arrivals.take(sender.owner, batch, lambda envelope: self._keep(ctx, sender, envelope))

    def _keep(self, ctx: Context, sender: Profile, envelope: Envelope) -> Receipt:
        if sender.owner in self.blocked:
            return Receipt.blocked("the receiver does not take messages from you")
        if envelope.to not in (None, self.me.get().owner):
            return Receipt.refused("this mailbox is another user's now")
        fault = _fault(envelope.message_id, envelope.body)
        if fault is not None:
            return Receipt.refused(fault)
        stored = Stored(sender.owner, sender.username, envelope.message_id, envelope.sent_ns, envelope.body)
        client_id = sender.canister.raw + envelope.message_id
        return _receipt(self.mailbox.append(stored, client_id=client_id))

    # reading

    @query
    def inbox(self, ctx: Context, since: nat64, limit: nat32) -> InboxPage:
        """Read the mailbox from message `since` on, oldest first; `next` is the `since` that follows."""
        self._owner_only(ctx)
        after = since - 1 if since else None
        page = self.mailbox.page(after=after, limit=_page_limit(limit), bytes_max=PAGE_SIZE_BYTES_MAX)
        return self._page(page, None if page.next is None else page.next + 1)

    @query
    def inbox_newest(self, ctx: Context, before: nat64 | None, limit: nat32) -> InboxPage:
        """Read the mailbox newest first, below message `before`; `next` is the `before` that follows."""
        self._owner_only(ctx)
        page = self.mailbox.page(
            after=before, limit=_page_limit(limit), reverse=True, bytes_max=PAGE_SIZE_BYTES_MAX
        )
        return self._page(page, page.next)

    def _page(self, page: LogPage[Stored], following: int | None) -> InboxPage:
        usage = self.mailbox.usage()
        return InboxPage(
            [_message(item) for item in page.items],
            [Gap(gap.start, gap.end) for gap in page.gaps],
            following,
            self.mailbox.acknowledged(READER),
            usage.next - 1 if usage.next else None,
        )

    @update
    def acknowledge(self, ctx: Context, through: nat64) -> nat64:
        """Say that one has read up to and including a message; return the first id not acknowledged."""
        self._owner_only(ctx)
        self._sweep(ctx)
        return self.mailbox.acknowledge(READER, through=through)

    @update
    def delete_message(self, ctx: Context, id: nat64) -> bool:
        """Delete a message from the mailbox, which leaves a gap; say whether it was there."""
        self._owner_only(ctx)
        return self.mailbox.delete(id)

    # whom, and how much

    @update
    def block(self, ctx: Context, user: Principal) -> bool:
        """Take no more messages from a user (their own principal); say whether this is new."""
        self._owner_only(ctx)
        if len(self.blocked) >= BLOCKED_COUNT_MAX:
            ctx.reject(f"you have blocked {BLOCKED_COUNT_MAX} users, the most that are kept")
        return self.blocked.add(user)

    @update
    def unblock(self, ctx: Context, user: Principal) -> bool:
        """Take messages from a user again; say whether they were blocked."""
        self._owner_only(ctx)
        return self.blocked.discard(user)

    @query
    def blocked_users(self, ctx: Context) -> list[Principal]:
        """List whom one has blocked."""
        self._owner_only(ctx)
        return list(self.blocked)

    @update
    def set_rule(self, ctx: Context, rule: LogRule) -> None:
        """Set how much the mailbox keeps and what it does when full, within the canister's own bounds."""
        self._owner_only(ctx)
        if not (1 <= rule.count_max <= MAILBOX_RULE.count_max):
            ctx.reject(f"count_max is 1 to {MAILBOX_RULE.count_max}")
        if not (OPAQUE_SIZE_BYTES_MAX * 2 <= rule.bytes_max <= MAILBOX_RULE.bytes_max):
            ctx.reject(f"bytes_max is {OPAQUE_SIZE_BYTES_MAX * 2} to {MAILBOX_RULE.bytes_max}")
        self.mailbox.set_rule(rule)
        self.mailbox.clean()

    @query
    def get_rule(self, ctx: Context) -> LogRule:
        """Return how much the mailbox keeps."""
        self._owner_only(ctx)
        return self.mailbox.rule

    @query
    def usage(self, ctx: Context) -> Usage:
        """Return what the mailbox holds, and how many messages wait in the outbox."""
        self._owner_only(ctx)
        held = self.mailbox.usage()
        acknowledged = self.mailbox.acknowledged(READER)
        return Usage(held.count, held.size_bytes, held.first, held.next, acknowledged, self.outbox.queued)

    @query
    def owner(self, ctx: Context) -> UserInit:
        """Return whose canister this is, and of which index."""
        return self.me.get()

    def _sweep(self, ctx: Context) -> None:
        """Send again what a forced stop cut off; looked for every ten minutes at the most."""
        if ctx.now_ns - self.swept_ns.get() >= SWEEP_NS:
            self.swept_ns.set(ctx.now_ns)
            self.outbox.recover()

    def _owner_only(self, ctx: Context) -> None:
        if ctx.caller != self.me.get().owner:
            ctx.reject("only the owner of this mailbox may do this")


def _fault(message_id: bytes, body: Body) -> str | None:
    """Say what is wrong with a message, or None."""
    if not 1 <= len(message_id) <= MESSAGE_ID_SIZE_BYTES_MAX:
        return f"a message id has 1 to {MESSAGE_ID_SIZE_BYTES_MAX} bytes, this one {len(message_id)}"
    if body.tag == "opaque":
        size = len(body.opaque)
        return (
            None
            if 1 <= size <= OPAQUE_SIZE_BYTES_MAX
            else f"an opaque body has 1 to {OPAQUE_SIZE_BYTES_MAX} bytes, this one {size}"
        )
    length = len(body.text)
    if 1 <= length <= TEXT_LENGTH_MAX:
        return None
    return f"a text has 1 to {TEXT_LENGTH_MAX} characters, this one {length}"


def _who_text(who: Who) -> str:
    return f"named {who.username}" if who.tag == "username" else f"with the principal {who.value}"


def _verdict(attempt: Attempt[Envelope, Receipt]) -> tuple[DeliveryState, SendResult | None]:
    """Turn what became of a message into its state, and into an error for whoever waits, if it is one."""
    if attempt.state == "waiting":
        return DeliveryState.stored(), None
    if attempt.receipt is None:
        return DeliveryState.refused(attempt.reason), SendResult.refused(attempt.reason)
    receipt = attempt.receipt
    if receipt.tag == "stored":
        return DeliveryState.delivered(receipt.stored), None
    reason = str(receipt.value)
    if receipt.tag == "full":
        return DeliveryState.refused(reason), SendResult.full(reason)
    if receipt.tag == "blocked":
        return DeliveryState.refused(reason), SendResult.blocked(reason)
    return DeliveryState.refused(reason), SendResult.refused(reason)


def _receipt(appended: Appended) -> Receipt:
    if appended.state == "full":
        return Receipt.full(f"the receiver's mailbox is full: {appended.reason}")
    return Receipt.stored(appended.id)


def _message(item: LogItem[Stored]) -> Message:
    stored = item.value
    return Message(
        item.id,
        stored.sender,
        stored.sender_username,
        stored.message_id,
        stored.sent_ns,
        item.at_ns,
        stored.body,
    )


def _page_limit(limit: int) -> int:
    return max(1, min(limit, PAGE_COUNT_MAX))
