"""What a subnet says: to a submission at once, with each sync, and to a read that it refuses."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cannery.errors import Reject
from cannery.ports import WriteBatch
from cannery.replica.state import Answer, Emitted


@dataclass(frozen=True, slots=True)
class Durable:
    """What one sync let out: tickets whose request is accepted, answers with the ticket they go to, events.

    `batches` are the writes of its rounds.
    """

    time_ns: int
    accepted: tuple[object, ...] = ()
    settled: tuple[tuple[object, Answer], ...] = ()
    emitted: tuple[Emitted, ...] = ()
    batches: tuple[WriteBatch, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusing:
    """A submission was not let in."""

    reject: Reject


class Waiting(msgspec.Struct, frozen=True):
    """A submission waits with its ticket; `is_accepted`: it is durable already."""

    is_accepted: bool


@dataclass(frozen=True, slots=True)
class Known:
    """A submission repeats a request whose durable answer is this."""

    time_ns: int
    answer: Answer


Submitted = Refusing | Waiting | Known


@dataclass(frozen=True, slots=True)
class Denied:
    """A read that its sender may not do."""

    text: str
