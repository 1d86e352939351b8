"""A person's dealings with the users app: the index by name, then one's own user canister.

The types are the app's own (`apps.users.types`). A message gets its id here, once, so that a repeated send
is one message.
"""

from __future__ import annotations

import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cannery.apps.users.types import (
    TEXT_LENGTH_MAX,
    Body,
    Gap,
    InboxPage,
    Message,
    Profile,
    RegisterResult,
    SendResult,
    Sent,
    Who,
)
from cannery.candid.python import nat32, nat64
from cannery.cli.output import format_time
from cannery.cli.problem import Problem
from cannery.cli.session import Session
from cannery.cli.typed_calls import TypedCanister

INDEX_NAME = "user_index"
PAGE_COUNT = 200
REGISTER_ATTEMPTS_COUNT_MAX = 20
EXIT_FAILED = 1


@dataclass(frozen=True, slots=True)
class Inbox:
    """What stands in a mailbox from a point on; `gaps` are messages that are there no longer."""

    messages: list[Message]
    gaps: list[Gap]


def index_of(session: Session) -> TypedCanister:
    """Find the node's index of users."""
    found = session.agent.names().get(INDEX_NAME)
    if found is None:
        raise Problem(f"{session.agent.url} has no canister {INDEX_NAME!r}: no users app", EXIT_FAILED)
    return TypedCanister(session.agent, found)


def register_user(session: Session, username: str) -> Profile:
    """Register, waiting where an earlier registration of one's own is under way."""
    index = index_of(session)
    for _attempt in range(REGISTER_ATTEMPTS_COUNT_MAX):
        result = index.call("register", RegisterResult, (username,))
        if result.tag != "in_progress":
            break
        session.line.say("an earlier registration is under way")
        time.sleep(0.2)
    if result.tag == "ok":
        return result.ok
    raise Problem(str(result.value), EXIT_FAILED)


def own_canister(session: Session) -> TypedCanister:
    """Find one's own user canister."""
    me = session.agent.principal
    profile = index_of(session).query_option("lookup", Profile, (Who.owner(me),))
    if profile is None:
        raise Problem(
            f"{me} is not registered on {session.agent.url}; first: cannery register USERNAME",
            EXIT_FAILED,
        )
    return TypedCanister(session.agent, profile.canister)


def read_body(text: str) -> str:
    """Give the text of a message; '-' reads it from standard input, without the last line end."""
    if text == "-":
        text = sys.stdin.read(TEXT_LENGTH_MAX + 2).removesuffix("\n")
    if not text:
        raise Problem("an empty message is not sent")
    if len(text) > TEXT_LENGTH_MAX:
        raise Problem(f"a message has at most {TEXT_LENGTH_MAX} characters; send it in parts")
    return text


def send_text(session: Session, username: str, text: str) -> Sent:
    """Send a message, once."""
    message_id = secrets.token_bytes(16)
    result = own_canister(session).call(
        "send", SendResult, (Who.username(username), message_id, Body.text(text))
    )
    if result.tag == "ok":
        return result.ok
    raise Problem(f"not sent ({result.tag}): {result.value}", EXIT_FAILED)


def read_inbox(session: Session, since: int | None) -> Inbox:
    """Read the mailbox from message `since` on, oldest first, page by page."""
    mailbox = own_canister(session)
    messages: list[Message] = []
    gaps: list[Gap] = []
    cursor: int | None = since or 0
    while cursor is not None:
        page = mailbox.query("inbox", InboxPage, (cursor, PAGE_COUNT), (nat64, nat32))
        messages.extend(page.messages)
        gaps.extend(page.gaps)
        session.line.say(f"{len(messages)} messages")
        cursor = page.next
    return Inbox(messages, gaps)


def message_lines(inbox: Inbox) -> Iterator[str]:
    """Write a mailbox for people: a line per message, and one per gap at its place."""
    gaps = sorted(inbox.gaps, key=lambda gap: gap.start)
    for message in inbox.messages:
        while gaps and gaps[0].start < message.id:
            yield gap_line(gaps.pop(0))
        text = body_text(message.body)
        yield f"{message.id}  {format_time(message.sent_ns)}  {message.sender_username}: {text}"
    for gap in gaps:
        yield gap_line(gap)


def gap_line(gap: Gap) -> str:
    """Say that messages are there no longer."""
    return f"-  messages {gap.start} to {gap.end - 1} are no longer kept"


def body_text(body: Body) -> str:
    """Write a message's body on one line."""
    return body.text if body.tag == "text" else f"<{len(body.opaque)} bytes, encrypted>"
