"""What a zone's client gives and takes: messages, what is missing, members, files, figures, refusals."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from cannery.client.errors import ClientError
from cannery.protocol.principal import Principal

KEY_SIZE_BYTES = 41
ROLES = ("reader", "member", "moderator", "admin", "owner")
_RETRY = re.compile(r"; retry after (\d+) s$")
# What the node says of updates by those whom the zone does not let in.
_NOT_LET_IN = "inspect_message did not accept"
_STRANGER = "Not a member of the zone: ask an admin of it for an invitation"
_FINAL = "; retrying does not help"
Topic: TypeAlias = str | bytes
"""A topic by its name (up to 41 bytes of UTF-8), or by its key of 41 bytes."""


class ZoneRefused(ClientError):
    """The zone says no: why, and after how many seconds the same may be asked again (None: never)."""

    def __init__(self, reason: str, retry_after_s: int | None) -> None:
        super().__init__(reason if retry_after_s is None else f"{reason}; retry after {retry_after_s} s")
        self.reason = reason
        self.retry_after_s = retry_after_s


class ZoneRewound(ClientError):
    """The zone was taken back to an earlier state, as after a restore: ids that were seen are given anew."""


class NoZone(ClientError):
    """The canister is another thing than a zone."""


class BadTopic(ClientError):
    """A name or key cannot be a topic."""


def is_text(name: str) -> bool:
    """Say whether a name can be written in UTF-8: names that come from a shell need not be."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def refusal_of(text: str) -> ZoneRefused:
    """Read what a zone refuses with: the reason, and when to come back."""
    found = _RETRY.search(text)
    if _NOT_LET_IN in text:
        return ZoneRefused(_STRANGER, None)
    if found is not None:
        return ZoneRefused(text[: found.start()], int(found[1]))
    return ZoneRefused(text.removesuffix(_FINAL), None)


@dataclass(frozen=True, slots=True)
class Message:
    """A message: `topic` is its topic's name, `key` the 41 bytes under which the zone keeps it.

    `body` is None where it cannot be given, and `fault` says why: it was left out of the answer, erased, or
    cannot be opened. `sender` is who signed it, in an encrypted zone; a plain one does not keep it.
    """

    id: int
    topic: str
    key: bytes
    at_ns: int
    body: bytes | None
    size: int
    sender: Principal | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Missing:
    """Ids from `first` to `last` that the zone has dropped, as far as they were of `topic` (None: of any)."""

    first: int
    last: int
    topic: str | None = None


@dataclass(frozen=True, slots=True)
class MemberInfo:
    """A member: `unread_from` is the first id that they have not acknowledged; `can_read`: has the key."""

    principal: Principal
    role: str
    since_ns: int
    by: Principal
    unread_from: int | None
    can_read: bool | None = None


@dataclass(frozen=True, slots=True)
class InvitationInfo:
    """An open invitation; `id` is the hash of its code, which only the invited know."""

    id: bytes
    role: str
    uses_left: int
    expires_ns: int
    by: Principal


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic that has messages, `count` of them with ids from `first` to `last`."""

    topic: str
    key: bytes
    first: int
    last: int
    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class FileInfo:
    """A file or a directory at a path; `size` counts the bytes that the zone keeps for it."""

    path: str
    is_directory: bool
    size: int
    at_s: int
    file_id: int | None = None
    content_hash: bytes | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of one kind is kept; `when_full`: prune_oldest, refuse, or prune_acknowledged (messages)."""

    count_max: int
    bytes_max: int
    age_ns_max: int | None
    when_full: str


@dataclass(frozen=True, slots=True)
class Retention:
    """How much a zone keeps."""

    messages: Limits
    attachments: Limits
    files: Limits


@dataclass(frozen=True, slots=True)
class KindUsage:
    """What one kind takes, indexes included."""

    count: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Usage:
    """What a zone holds: messages have ids from `first_id` up to, not including, `next_id`."""

    messages: KindUsage
    attachments: KindUsage
    files: KindUsage
    topics: int
    first_id: int
    next_id: int
    acknowledged_by_all: int

    @property
    def has_been_used(self) -> bool:
        """Whether anybody has posted, or has put something there that is still there."""
        return self.next_id > 1 or self.attachments.count + self.files.count > 0


# Values of an actor are records as dicts, known at run time only.
Fields: TypeAlias = Mapping[str, Any]


def usage_of(fields: Fields) -> Usage:
    """Read what a zone says that it holds."""
    messages, attachments, files = (
        KindUsage(**fields[kind]) for kind in ("messages", "attachments", "files")
    )
    others = (fields[name] for name in ("topics", "first_id", "next_id", "acknowledged_by_all"))
    return Usage(messages, attachments, files, *others)


def limits_of(fields: Fields) -> Limits:
    """Read the limits of one kind."""
    full = fields["when_full"].tag
    return Limits(fields["count_max"], fields["bytes_max"], fields["age_ns_max"], full)
