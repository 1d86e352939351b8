"""What a topic log keeps and gives: its messages, topics and refusals. Times are nanoseconds since 1970."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cannery.candid.python import nat32, nat64, record
from cannery.errors import CanneryError


@record
class TopicMessage:
    """A message as it is stored and answered: `hash` is the SHA-256 of the payload, `size` its bytes.

    An empty payload with a size above 0 was left out of an answer; one with size 0 was erased.
    """

    id: nat64
    at_ns: nat64
    hash: bytes
    size: nat32
    payload: bytes


@record
class TopicBlock:
    """Messages of a topic side by side, oldest first; `previous` is the id before them, 0 for none."""

    previous: nat64
    messages: list[TopicMessage]


@record
class Topic:
    """A topic with messages: ids from `first` (or above) to `last`; those up to `dropped_through` are gone.

    `size_bytes` counts the messages with their share of every index.
    """

    key: bytes
    first: nat64
    last: nat64
    count: nat64
    size_bytes: nat64
    dropped_through: nat64


@record
class TopicLogState:
    """Ids from `first` to `next` - 1 are there; `size_bytes` counts everything that is stored for them."""

    first: nat64
    next: nat64
    size_bytes: nat64
    topic_next: nat32
    topic_count: nat64

    @property
    def count(self) -> int:
        """How many messages there are: ids are dense, for what goes is always the oldest."""
        return self.next - self.first


@dataclass(frozen=True, slots=True)
class Posted:
    """What became of a message: its id, and whether it is new or was there already."""

    id: int
    is_new: bool


@dataclass(frozen=True, slots=True)
class Found:
    """A message with its topic's key and its neighbours in the topic; 0 where there is none any more."""

    key: bytes
    message: TopicMessage
    previous: int
    next: int


class Located(msgspec.Struct, frozen=True):
    """A topic with the number that it has in this log."""

    number: int
    topic: Topic


class Whole(msgspec.Struct, frozen=True):
    """All messages of a topic, one behind the other; `count` 0: there are none, or too many for this."""

    first: int
    last: int
    count: int
    dropped_through: int
    data: bytes


def whole_size(whole: Whole) -> int:
    """Say how many bytes of messages it holds."""
    return len(whole.data)


class TopicLogFull(CanneryError):
    """A topic log has no room for a message, and its rule lets nothing go that would make some.

    `passes` says that there is more to drop than one message may: the same again may succeed.
    """

    def __init__(self, reason: str, *, passes: bool = False) -> None:
        super().__init__(reason)
        self.passes = passes


EMPTY_STATE = TopicLogState(1, 1, 0, 1, 0)
