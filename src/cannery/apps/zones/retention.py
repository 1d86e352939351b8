"""How much a zone keeps: limits of count, bytes and age for messages, attachments and files apart.

Room is made by the write that needs it. A timer drops what became too old, and goes on where lowered limits
leave more to drop than one message may; a zone within its limits that has no age to watch sets none.
"""

from __future__ import annotations

from cannery import Context, LogRule, StableCell, limits, nat64, query, record, timer, update
from cannery.cdk.component import Component, Uses

from .armed import Armed
from .file_tree import FileTree
from .mailbox import Mailbox
from .members import Members
from .refusal import NS_PER_S, refuse
from .roles import ADMIN

SWEEP_NS_MIN = 60 * NS_PER_S
SWEEP_NS_MAX = 365 * 24 * 3600 * NS_PER_S
SOON_NS = NS_PER_S
BYTES_MIN = 1_000


@record
class RetentionRules:
    """The limits; `when_full` of attachments and files is to refuse or to drop the oldest."""

    messages: LogRule
    attachments: LogRule
    files: LogRule


@record
class ShelfUsage:
    """What one kind takes, indexes and overheads included."""

    count: nat64
    size_bytes: nat64


@record
class ZoneUsage:
    """What a zone holds; messages have ids from `first_id` up to, not including, `next_id`."""

    messages: ShelfUsage
    attachments: ShelfUsage
    files: ShelfUsage
    topics: nat64
    first_id: nat64
    next_id: nat64
    acknowledged_by_all: nat64


class Retention(Component, prefix="retention"):
    """The limits, and the timer that keeps to them while nobody writes."""

    members = Uses(Members)
    mailbox = Uses(Mailbox)
    tree = Uses(FileTree)
    armed = StableCell(Armed | None, None)

    @query
    def get_retention(self, ctx: Context) -> RetentionRules:
        """Return the limits."""
        self.members.require(ctx)
        box = self.mailbox
        return RetentionRules(box.messages.rule, box.attachments.rule, box.contents.rule)

    @update
    def set_retention(self, ctx: Context, rules: RetentionRules) -> None:
        """Set the limits; what is beyond them goes at once, or as fast as messages may drop."""
        self.members.require(ctx, ADMIN)
        for name, rule in (
            ("messages", rules.messages),
            ("attachments", rules.attachments),
            ("files", rules.files),
        ):
            if rule.count_max < 1 or rule.bytes_max < BYTES_MIN or rule.age_ns_max == 0:
                refuse(ctx, f"{name}: keep at least 1, {BYTES_MIN} bytes and 1 ns")
            if name != "messages" and rule.when_full.tag == "prune_acknowledged":
                refuse(ctx, f"{name} are not acknowledged: when full, refuse or prune_oldest")
        box = self.mailbox
        box.messages.set_rule(rules.messages)
        box.attachments.set_rule(rules.attachments)
        box.contents.set_rule(rules.files)
        self.clean(ctx)

    @query
    def usage(self, ctx: Context) -> ZoneUsage:
        """Return what the zone holds."""
        self.members.require(ctx)
        box = self.mailbox
        state, attachments, files = box.messages.usage(), box.attachments.usage(), box.contents.usage()
        return ZoneUsage(
            ShelfUsage(state.count, state.size_bytes),
            ShelfUsage(attachments.count, attachments.size_bytes),
            ShelfUsage(files.count, files.size_bytes),
            state.topic_count,
            state.first,
            state.next,
            box.messages.acknowledged_by_all(),
        )

    @update
    def prune(self, ctx: Context, before: nat64) -> nat64:
        """Drop messages with ids under `before`, oldest first, as many as one call may; return how many."""
        self.members.require(ctx, ADMIN)
        return self.mailbox.messages.prune(before=before)

    def clean(self, ctx: Context) -> None:
        """Drop what is beyond the limits, as far as one message may; see that the rest follows."""
        box = self.mailbox
        contents = box.contents.clean()
        self.tree.forget_contents(contents)
        is_cut = (
            box.messages.clean() >= limits.TOPIC_LOG_CLEAN_COUNT_MAX
            or len(box.attachments.clean()) >= limits.CONTENT_CLEAN_COUNT_MAX
            or len(contents) >= limits.CONTENT_CLEAN_COUNT_MAX
        )
        self.arm(ctx, soon=is_cut)

    def arm(self, ctx: Context, *, soon: bool = False) -> None:
        """See that the timer fires when the oldest becomes too old, or `soon`; there is one at the most."""
        due_ns = ctx.now_ns + SOON_NS if soon else self._next_due_ns()
        if due_ns is None:
            return
        if not soon:
            # An age of centuries is watched year by year: it may end beyond the last time that there is.
            due_ns = min(max(due_ns, ctx.now_ns + SWEEP_NS_MIN), ctx.now_ns + SWEEP_NS_MAX)
        armed = self.armed.get()
        if armed is not None:
            if armed.due_ns <= due_ns:
                return
            ctx.timer_cancel(armed.timer)
        self.armed.set(Armed(ctx.timer_set(self.sweep, at_ns=due_ns), due_ns))

    def _next_due_ns(self) -> int | None:
        box = self.mailbox
        rule, oldest_ns = box.messages.rule, None
        if rule.age_ns_max is not None:
            oldest_ns = box.messages.oldest_ns()
        found = [box.attachments.next_due_ns(), box.contents.next_due_ns()]
        if oldest_ns is not None and rule.age_ns_max is not None:
            found.append(oldest_ns + rule.age_ns_max)
        return min((due_ns for due_ns in found if due_ns is not None), default=None)

    @timer
    def sweep(self, ctx: Context) -> None:
        """Drop what is too old, or the rest of what is too much."""
        self.armed.set(None)
        self.clean(ctx)
