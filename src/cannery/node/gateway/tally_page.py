"""The counters of one gateway process, in a page of memory that every gateway of the node can read.

Gateways share a port, so any of them must be able to tell what all have counted: without asking, since a
sibling may hang or be dead, and at no cost for whoever counts. Each process adds in place in a mapped file of
its own (`run/gateway-K.tally`), and whoever renders `/metrics` reads them all. A process that was killed
leaves its counters to its successor, so that none falls while the node runs; gauges begin anew.

A page is a row of unsigned 64-bit numbers of this machine. The first tells how the rest is laid out: a
process of another version (an upgrade under a running node) begins its page anew, and readers leave out what
they cannot read.
This module knows no text format and no clock.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeVar

from cannery.node.gateway.routes import Verb
from cannery.node.mapped_file import map_numbers
from cannery.node.metrics import SECONDS_BUCKETS

OTHER_VERB: Final = "other"
"""The kind of what is no request for anything that is served."""

VERBS: Final = (*(verb.value for verb in Verb), OTHER_VERB)
STATUSES: Final = tuple(int(status) for status in HTTPStatus)
REASONS: Final = ("rejected", "rate", "busy", "invalid")

COUNTERS: Final = (
    "round_signatures_total",
    "rate_limited_addresses_total",
    "rate_limited_principals_total",
    "rate_limited_refused_calls_total",
    "events_sent_total",
    "event_gaps_total",
)
GAUGES: Final = (
    "connections",
    "known_delegations",
    "bodies_in_memory_bytes",
    "spool_bytes",
    "spool_files",
    "event_connections",
    "event_subscriptions",
)

Key = TypeVar("Key", int, str)

_NUMBER_BYTES: Final = 8
# The same for every version, so that each maps what the others made.
_PAGE_SIZE_BYTES: Final = 16 * 1024
_LAYOUT, _PID, _STARTS, _BEAT_NS = range(4)
_FIRST: Final = 4
_BUCKET_COUNT: Final = len(SECONDS_BUCKETS) + 1


@dataclass(frozen=True, slots=True)
class VerbPlaces:
    """Where the numbers of one kind of request stand."""

    statuses: Mapping[int, int]
    reasons: Mapping[str, int]
    timeouts: int
    buckets: int
    sum_ns: int


def _lay_out() -> tuple[dict[str, int], dict[str, VerbPlaces], int]:
    named = {name: _FIRST + number for number, name in enumerate((*COUNTERS, *GAUGES))}
    free = _FIRST + len(named)
    by_verb: dict[str, VerbPlaces] = {}
    for verb in VERBS:
        statuses = {status: free + number for number, status in enumerate(STATUSES)}
        free += len(STATUSES)
        reasons = {reason: free + number for number, reason in enumerate(REASONS)}
        free += len(REASONS)
        by_verb[verb] = VerbPlaces(statuses, reasons, free, free + 1, free + 1 + _BUCKET_COUNT)
        free += _BUCKET_COUNT + 2
    return named, by_verb, free


_NAMED, BY_VERB, _NUMBER_COUNT = _lay_out()
_NAMES: Final = repr((VERBS, STATUSES, REASONS, COUNTERS, GAUGES, SECONDS_BUCKETS))
_LAYOUT_ID: Final = int.from_bytes(sha256(_NAMES.encode()).digest()[:_NUMBER_BYTES], "little")
assert _NUMBER_COUNT * _NUMBER_BYTES <= _PAGE_SIZE_BYTES, "a page has room for all numbers"


class Cell:
    """One counter."""

    __slots__ = ("_at", "_numbers")

    def __init__(self, numbers: memoryview | None = None, at: int = 0) -> None:
        """Count at a place of a page, or where nobody else looks."""
        self._numbers = memoryview(bytearray(_NUMBER_BYTES)).cast("Q") if numbers is None else numbers
        self._at = at

    @property
    def value(self) -> int:
        found: int = self._numbers[self._at]
        return found

    def add(self, count: int = 1) -> None:
        """Count."""
        self._numbers[self._at] += count


class TallyPage:
    """One process's page."""

    def __init__(self, path: Path | None = None) -> None:
        """Map the page at a path, made if need be; without one, a page that nobody else sees.

        Raises `StoreError`.
        """
        if path is None:
            self.numbers = memoryview(bytearray(_PAGE_SIZE_BYTES)).cast("Q")
        else:
            self.numbers = map_numbers(path, _PAGE_SIZE_BYTES)
        if path is None:
            self.begin(os.getpid())

    # --- who counts

    def begin(self, pid: int) -> None:
        """Take the page over for a process that starts: counters stay, gauges begin at nothing, and it is not
        alive before it says so.
        """
        numbers = self.numbers
        if numbers[_LAYOUT] != _LAYOUT_ID:
            numbers[_LAYOUT] = 0
            for at in range(_PID, _NUMBER_COUNT):
                numbers[at] = 0
            numbers[_LAYOUT] = _LAYOUT_ID
        for name in GAUGES:
            self.set(name, 0)
        numbers[_PID] = pid
        numbers[_STARTS] += 1
        self.beat(0)

    def beat(self, now_ns: int) -> None:
        """Note that the process is alive at this time of the machine's monotonic clock."""
        self.numbers[_BEAT_NS] = now_ns

    def cell(self, name: str) -> Cell:
        """Give the counter with this name."""
        return Cell(self.numbers, _NAMED[name])

    def set(self, name: str, value: int) -> None:
        """Set a gauge."""
        self.numbers[_NAMED[name]] = value

    # --- who reads

    @property
    def is_known(self) -> bool:
        """Say whether a process has begun the page, and with the layout of this version."""
        return bool(self.numbers[_LAYOUT] == _LAYOUT_ID)

    @property
    def pid(self) -> int:
        return self._at(_PID)

    @property
    def starts(self) -> int:
        """How often the process was started."""
        return self._at(_STARTS)

    @property
    def beat_ns(self) -> int:
        """When the process was last alive."""
        return self._at(_BEAT_NS)

    def named(self, name: str) -> int:
        """Give a counter or gauge."""
        return self._at(_NAMED[name])

    def answered(self, verb: str) -> Iterator[tuple[int, int]]:
        """Give statuses with the number of answers, where there were any."""
        yield from self._counted(BY_VERB[verb].statuses)

    def refusals(self, verb: str) -> Iterator[tuple[str, int]]:
        """Give reasons with the number of refusals, where there were any."""
        yield from self._counted(BY_VERB[verb].reasons)

    def timeouts(self, verb: str) -> int:
        """Give how many requests were not answered in time."""
        return self._at(BY_VERB[verb].timeouts)

    def durations(self, verb: str) -> tuple[list[int], int]:
        """Give the counts by `SECONDS_BUCKETS` and one beyond, and the sum in nanoseconds."""
        places = BY_VERB[verb]
        return self.numbers[places.buckets : places.buckets + _BUCKET_COUNT].tolist(), self._at(places.sum_ns)

    def _at(self, at: int) -> int:
        found: int = self.numbers[at]
        return found

    def _counted(self, places: Mapping[Key, int]) -> Iterator[tuple[Key, int]]:
        return ((key, count) for key, at in places.items() if (count := self._at(at)))


@dataclass(frozen=True, slots=True)
class Tallies:
    """The pages of a node's gateways by number, and which of them is this process's."""

    pages: tuple[TallyPage, ...]
    number: int = 0

    @property
    def own(self) -> TallyPage:
        return self.pages[self.number]
