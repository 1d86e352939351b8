"""How a mailbox looks on a terminal: messages and gaps in their places."""

from __future__ import annotations

from cannery.apps.users.types import Body, Gap, Message
from cannery.cli.mailbox import Inbox, message_lines
from cannery.protocol.principal import ANONYMOUS


def message(number: int, body: Body) -> Message:
    return Message(number, ANONYMOUS, "ann", b"id", 1_800_000_000_000_000_000, 0, body)


def test_gaps_stand_where_messages_are_missing() -> None:
    inbox = Inbox(
        [message(3, Body.text("three")), message(5, Body.opaque(b"xxxx")), message(6, Body.text("six"))],
        [Gap(9, 10), Gap(0, 3), Gap(4, 5)],
    )
    assert list(message_lines(inbox)) == [
        "-  messages 0 to 2 are no longer kept",
        "3  2027-01-15 08:00:00Z  ann: three",
        "-  messages 4 to 4 are no longer kept",
        "5  2027-01-15 08:00:00Z  ann: <4 bytes, encrypted>",
        "6  2027-01-15 08:00:00Z  ann: six",
        "-  messages 9 to 9 are no longer kept",
    ]


def test_an_empty_mailbox_has_no_lines() -> None:
    assert list(message_lines(Inbox([], []))) == []
