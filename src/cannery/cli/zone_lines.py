"""How zones look on a terminal and in JSON: messages, gaps, members, files, figures."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence

from cannery.cli.output import columns, format_size, format_time, printable, to_json
from cannery.client.zone_values import (
    FileInfo,
    KindUsage,
    Limits,
    MemberInfo,
    Message,
    Missing,
    Retention,
    Usage,
)

_KINDS = ("messages", "attachments", "files")


def message_line(item: Message | Missing) -> str:
    """Write a message, or what is missing, on one line."""
    if isinstance(item, Missing):
        of = "" if item.topic is None else f" of {item.topic}"
        return f"-  messages {item.first} to {item.last}{of} are no longer kept"
    by = "" if item.sender is None else f" {str(item.sender)[:11]}"
    return f"{item.id}  {format_time(item.at_ns)}{by}  {item.topic}: {body_text(item)}"


def body_text(message: Message) -> str:
    """Write a message's body."""
    if message.body is None:
        return f"<{message.size} bytes: {message.fault}>"
    try:
        return message.body.decode()
    except UnicodeDecodeError:
        return f"<{len(message.body)} bytes>"


def message_fields(item: Message | Missing) -> dict[str, object]:
    """Give a message, or what is missing, for JSON: `text` where the body is text, `body` (hex) where not."""
    if isinstance(item, Missing):
        return {"missing": {"first": item.first, "last": item.last, "topic": item.topic}}
    fields: dict[str, object] = {"id": item.id, "topic": item.topic, "key": item.key, "at_ns": item.at_ns}
    fields |= {"sender": item.sender, "size": item.size}
    if item.body is None:
        return fields | {"fault": item.fault}
    try:
        return fields | {"text": item.body.decode()}
    except UnicodeDecodeError:
        return fields | {"body": item.body}


def print_now(item: Message | Missing, as_json: bool) -> None:
    """Print a message as soon as it is there."""
    text = json.dumps(to_json(message_fields(item)), ensure_ascii=False) if as_json else message_line(item)
    print(text if as_json else printable(text))
    sys.stdout.flush()


def member_lines(members: Sequence[MemberInfo], me: object) -> Iterator[str]:
    """Write members, one a line."""
    rows = []
    for each in members:
        unread = "" if each.unread_from is None else f"unread from {each.unread_from}"
        key = {None: "", True: "has the key", False: "lacks the key"}[each.can_read]
        rows.append((str(each.principal), each.role, unread, key, "you" if each.principal == me else ""))
    yield from columns(rows)


def file_lines(files: Sequence[FileInfo]) -> Iterator[str]:
    """Write a directory, one entry a line."""
    rows = []
    for each in files:
        size = "" if each.is_directory else format_size(each.size)
        rows.append((each.path + "/" * each.is_directory, size, format_time(each.at_s * 10**9)))
    yield from columns(rows)


def usage_lines(usage: Usage) -> Iterator[str]:
    """Write what a zone holds."""
    rows = []
    for kind in _KINDS:
        found: KindUsage = getattr(usage, kind)
        rows.append((kind, str(found.count), format_size(found.size_bytes)))
    yield from columns(rows)
    if usage.first_id < usage.next_id:
        yield f"{usage.topics} topics, ids {usage.first_id} to {usage.next_id - 1}"
    yield f"acknowledged by all: {usage.acknowledged_by_all - 1}"


def retention_lines(retention: Retention) -> Iterator[str]:
    """Write how much a zone keeps."""
    rows = []
    for kind in _KINDS:
        limits: Limits = getattr(retention, kind)
        age = "any age" if limits.age_ns_max is None else f"{limits.age_ns_max / 86_400e9:g} days"
        rows.append(
            (
                kind,
                f"at most {limits.count_max}",
                format_size(limits.bytes_max),
                age,
                f"then {limits.when_full}",
            )
        )
    yield from columns(rows)
