"""What the zone keeps, as it lies in its state; what may be done with it is in the components beside this."""

from __future__ import annotations

from cannery import LogRule, TopicLog, WhenFull
from cannery.cdk.component import Component
from cannery.cdk.content_store import ContentStore

MESSAGE_RULE = LogRule(10_000_000, 1_000_000_000, None, WhenFull.prune_oldest())
CONTENT_RULE = LogRule(1_000_000, 128_000_000, None, WhenFull.prune_oldest())


class Mailbox(Component, prefix="mailbox"):
    """Messages by key in one order of ids; attachments by their hash; contents of files by theirs."""

    messages = TopicLog(rule=MESSAGE_RULE)
    attachments = ContentStore("attachment", rule=CONTENT_RULE)
    contents = ContentStore("file", rule=CONTENT_RULE)

    def expect(self, reader: bytes) -> None:
        """Let what comes from now on wait for a reader's acknowledgement, where one more can be noted."""
        try:
            self.messages.add_reader(reader)
        except ValueError:
            return
