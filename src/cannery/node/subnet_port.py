"""A gateway's door to a subnet: submit, ask, read.

`LocalSubnet` (in `local_subnet`) drives a subnet in the same process; `RemoteSubnet` (in `remote_subnet`)
speaks to a subnet process over a socket. Results are values: a refusal is a `Refused` and never an exception,
so that a future that nobody awaits any more (the client went away) is nothing to report.

This module holds the protocol and its values only.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Protocol

import msgspec

from cannery.node.handover import (
    Answered,
    Decided,
    Events,
    EventsRead,
    IngressMessage,
    QueryDone,
    QueryMessage,
    Refused,
    StateRead,
    Values,
)
from cannery.node.vitals import Vitals


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class SettledRound:
    """All answers that reached this gateway with one sync. Compared by identity: sign it once, use it for
    each answer.

    `answers` holds each request id once. A round of one answer is usual for a repeated call, whose answer was
    stored.
    """

    time_ns: int
    answers: tuple[tuple[bytes, Answered], ...]


class SettledAnswer(msgspec.Struct, frozen=True):
    """One request's final answer: `round.answers[index]`."""

    round: SettledRound
    index: int

    @property
    def answer(self) -> Answered:
        return self.round.answers[self.index][1]


class Submission(msgspec.Struct, frozen=True):
    """An update call on its way.

    `accepted` is done as soon as the message is durable in a block (True), or refused; `settled` when the
    final answer is durable, or with the same refusal. `settled` never finishes before `accepted`.
    """

    accepted: asyncio.Future[bool | Refused]
    settled: asyncio.Future[SettledAnswer | Refused]


class EventListener(Protocol):
    """Whoever hears of watches. After a restart of the subnet each watch is decided again."""

    def decided(self, decided: Decided) -> None: ...

    def stale(self, ids: tuple[int, ...]) -> None: ...

    def events(self, events: Events) -> None: ...


class EventPort(Protocol):
    """A subnet's events, as its gateways see them."""

    def listen(self, listener: EventListener) -> None:
        """Tell who hears of watches; there is one."""
        ...

    def watch(self, query: QueryMessage) -> int:
        """Begin a watch and give its number."""
        ...

    def unwatch(self, id: int) -> None:
        """End a watch."""
        ...

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        """Read a page of a canister's events from a number on."""
        ...


class SubnetPort(Protocol):
    """A subnet as its gateways see it. What is under way survives a restart of the subnet: its clients only
    wait.
    """

    def submit(self, ingress: IngressMessage) -> Submission:
        """Hand over an authenticated update call. A full pool answers with `Refused` (SYS_TRANSIENT)."""
        ...

    async def ask(self, query: QueryMessage) -> QueryDone:
        """Run a query on the state of the last durable round."""
        ...

    async def read(self, read: StateRead) -> Values:
        """Read certified state of the last durable round."""
        ...

    async def measure(self) -> str:
        """Give the subnet's metrics in Prometheus' text format."""
        ...

    async def examine(self) -> Vitals:
        """Say how the subnet is. One that is gone for good refuses updates, and says so."""
        ...

    async def close(self) -> None:
        """Let go of the subnet. What is still under way is answered with `Refused` (SYS_TRANSIENT)."""
        ...
