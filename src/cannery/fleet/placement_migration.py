"""Migration: which groups move from where to where, as data; in chunks, resumable, while clients go on.

A *leg* is one source and one target. The source walks through its groups in order and sends chunks; the
target takes them in order. Who answers for a group follows from two positions alone:

    the source   for what lies behind its last chunk, until it is sent
    the target   for everything up to its last chunk taken

A chunk on its way belongs to neither: the source passes requests on, and calls between canisters arrive in
the order in which they were made, hence after the chunk. A chunk that is refused (the target was stopped)
goes back to the source. So each group has one owner at most at any time, a request is passed on once at most,
and nothing is lost or taken twice. `Departure` (the source's record) and `Arrival` (the target's) are what
must be durable; both change together with the data. A crash at any step finds either the old or the new.

Which child a group belongs to after all says `placement_table`, or the directory of the index. This module
moves nothing, and trusts its caller that chunks come from the fleet (a guard's matter).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from cannery import limits
from cannery.candid.python import nat64, record
from cannery.errors import CanneryError
from cannery.fleet.placement_census import Census
from cannery.fleet.placement_policy import Policy, Share
from cannery.fleet.placement_table import (
    AnchorTable,
    child_of,
    encode_table,
    plan_join,
    plan_part,
    plan_swap,
)
from cannery.protocol.principal import Principal

Mover = Callable[[bytes], bool]


class MigrationError(CanneryError):
    """A step of a migration does not fit the state: a stranger's, or a bug's."""


@record
class Leg:
    """Groups that move from one child to another.

    With `is_by_table` those that the table before gives to the source and the table after to the target,
    otherwise those that the source holds with names from `low` up to, not including, `high` (None: no end).
    """

    migration: nat64
    source: Principal
    target: Principal
    low: bytes = b""
    high: bytes | None = None
    is_by_table: bool = False


@record
class Migration:
    """All legs of one change; `before` and `after` are encoded tables, empty where ranges move."""

    number: nat64
    before: bytes
    after: bytes
    legs: list[Leg]


@record
class Departure:
    """The source's record of a leg.

    All groups through `passed` are the target's. A chunk through `sent` is on its way, or none (`chunk` is
    the number of that or the next one). `is_done`: all of the leg is the target's.
    """

    leg: Leg
    chunk: nat64 = 0
    passed: bytes | None = None
    sent: bytes | None = None
    is_last_sent: bool = False
    is_done: bool = False


@record
class Arrival:
    """The target's record of a leg: the number of the chunk that comes next, and through where it has all."""

    leg: Leg
    chunk: nat64 = 0
    through: bytes | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class Group:
    """A group with what it weighs."""

    name: bytes
    slots: int = 1
    size_bytes: int = 0


@record
class Chunk:
    """What one message carries, the groups' data apart: `names` in order, and `through` where it reaches.

    It may be empty: then it says only that nothing of the leg stands before `through`.
    """

    leg: Leg
    number: nat64
    names: list[bytes]
    through: bytes | None
    is_last: bool


# plans


def plan_table_migration(number: int, before: AnchorTable, after: AnchorTable) -> Migration:
    """Return the legs from one table to the next: a child joined, parted or was swapped for another.

    Exactly the keys that change their child move (arXiv 1812.09674, "minimal disruption"). Raise
    MigrationError where the tables differ by more than one change.
    """
    old, new = before.anchor, after.anchor
    came = [child for child in after.children if child not in before.places]
    went = [child for child in before.children if child not in after.places]
    if old == new and len(came) == len(went) == 1 and plan_swap(before, went[0], came[0]) == after:
        pairs = [(went[0], came[0])]
    elif len(came) == 1 and not went and old.R and plan_join(before, came[0]) == after:
        pairs = [(source, came[0]) for source in before.children]
    elif len(went) == 1 and not came and old.working_count > 1 and plan_part(before, went[0]) == after:
        pairs = [(went[0], target) for target in after.children]
    else:
        raise MigrationError("two tables differ by one child that joined, parted or was swapped")
    legs = [Leg(number, source, target, is_by_table=True) for source, target in pairs]
    return Migration(number, encode_table(before), encode_table(after), legs)


def plan_drain(
    number: int, policy: Policy, census: Census, leaving: Principal, groups: Sequence[Group]
) -> Migration | None:
    """Return the legs that give all of a child's groups, in the order of their names, to the others.

    For policies with a directory. None where the others lack the room: add a child first. Groups that are
    many slots each may need more room than their sum, because none is divided.
    """
    rest = census.without(leaving)
    slots, free = sum(group.slots for group in groups), rest.free_slots
    while slots <= free:
        legs = _cut_ranges(number, leaving, groups, policy.plan_shares(rest, max(slots, 1)))
        if legs is not None:
            return Migration(number, b"", b"", legs)
        if slots == free:
            return None
        slots = min(max(slots * 2, 1), free)
    return None


def plan_spill(
    number: int, source: Principal, target: Principal, groups: Iterable[Group], keep_slots: int
) -> Migration:
    """Return the leg that gives the groups after the first `keep_slots` slots, in the order of their names,
    to a new child: how LastNode divides its last one, where that got more than it should have.
    """
    kept = 0
    legs: list[Leg] = []
    for group in _in_order(groups):
        kept += group.slots
        if kept > keep_slots:
            legs.append(Leg(number, source, target, group.name))
            break
    return Migration(number, b"", b"", legs)


def _cut_ranges(
    number: int, source: Principal, groups: Iterable[Group], shares: Sequence[Share]
) -> list[Leg] | None:
    """Give each share a range of names, the first from the very beginning, the last without an end, so that
    a group that comes in meanwhile has its place too. None where the shares are too small.
    """
    starts: list[tuple[bytes, Principal]] = []
    left, room = list(shares), 0
    for group in _in_order(groups):
        if group.slots > room:
            while left and left[0].slots < group.slots:
                left.pop(0)
            if not left:
                return None
            share = left.pop(0)
            room = share.slots
            starts.append((group.name if starts else b"", share.child))
        room -= group.slots
    ends = [low for low, _ in starts[1:]]
    return [
        Leg(number, source, target, low, high)
        for (low, target), high in zip(starts, [*ends, None], strict=False)
    ]


def _in_order(groups: Iterable[Group]) -> Iterator[Group]:
    last: bytes | None = None
    for group in groups:
        if last is not None and group.name <= last:
            raise MigrationError("groups are given in the order of their names, each once")
        last = group.name
        yield group


def mover_of(leg: Leg, before: AnchorTable | None = None, after: AnchorTable | None = None) -> Mover:
    """Return the test for the groups of a leg, from its migration's decoded tables where it moves by them."""
    low, high, source, target = leg.low, leg.high, leg.source, leg.target
    if not leg.is_by_table:
        return lambda group: group >= low and (high is None or group < high)
    if before is None or after is None:
        raise MigrationError("the leg moves by tables: decode those of its migration")
    old, new = before, after
    return lambda group: child_of(new, group) == target and child_of(old, group) == source


# the source


@dataclass(frozen=True, slots=True)
class ChunkRule:
    """How much one chunk carries, and how many groups are looked at for it. One group always goes."""

    group_count_max: int = 100
    size_bytes_max: int = limits.MIGRATION_CHUNK_SIZE_BYTES_MAX
    scan_count_max: int = 1_000

    def __post_init__(self) -> None:
        if not 1 <= self.group_count_max <= limits.CHUNK_GROUP_COUNT_MAX:
            raise ValueError(f"a chunk carries 1 to {limits.CHUNK_GROUP_COUNT_MAX} groups")
        if not 1 <= self.scan_count_max <= limits.CHUNK_SCAN_COUNT_MAX:
            raise ValueError(f"1 to {limits.CHUNK_SCAN_COUNT_MAX} groups are looked at for a chunk")
        if self.size_bytes_max < 1:
            raise ValueError("a chunk carries at least one byte")


@dataclass(frozen=True, slots=True)
class ChunkStep:
    """The record to keep, and the chunk to send with its groups' data."""

    departure: Departure
    chunk: Chunk


def plan_chunk(
    departure: Departure, groups: Iterable[Group], moves: Mover, rule: ChunkRule = ChunkRule()
) -> ChunkStep | None:
    """Cut the next chunk; None where one is on its way or the leg is done.

    `groups` are the source's, in the order of their names, from the first after `departure.passed` on; no
    more of them are read than the rule says.
    """
    if departure.is_done or departure.sent is not None or departure.is_last_sent:
        return None
    names: list[bytes] = []
    size, at, through = 0, 0, departure.passed
    for group in groups:
        if through is not None and group.name <= through:
            raise MigrationError("groups are given in the order of their names, from the cursor on")
        is_moving = moves(group.name)
        is_full = len(names) == rule.group_count_max or size + group.size_bytes > rule.size_bytes_max
        if at == rule.scan_count_max or (is_moving and names and is_full):
            return _step(departure, names, through, is_last=False)
        at, through = at + 1, group.name
        if is_moving:
            names.append(group.name)
            size += group.size_bytes
    return _step(departure, names, through, is_last=True)


def _step(departure: Departure, names: list[bytes], through: bytes | None, *, is_last: bool) -> ChunkStep:
    number = departure.chunk
    sent = Departure(departure.leg, number, departure.passed, None if is_last else through, is_last)
    return ChunkStep(sent, Chunk(departure.leg, number, names, through, is_last))


def plan_acknowledged(departure: Departure, number: int) -> Departure:
    """Return the source's record after the target has taken a chunk: drop the chunk's groups with it.

    A repeated acknowledgement changes nothing; raise MigrationError for a chunk that was never sent.
    """
    if number < departure.chunk:
        return departure
    if number > departure.chunk or not is_on_its_way(departure):
        raise MigrationError(f"chunk {number} is acknowledged, but was not sent")
    return Departure(departure.leg, number + 1, departure.sent, is_done=departure.is_last_sent)


def plan_refused(departure: Departure, number: int) -> Departure:
    """Return the source's record after a chunk certainly was not taken: its groups are the source's again.

    Only for a reject that says so (the target is stopped, its queue is full), never for a silence.
    """
    if number != departure.chunk or not is_on_its_way(departure):
        return departure
    return Departure(departure.leg, number, departure.passed)


def is_on_its_way(departure: Departure) -> bool:
    """Tell whether a chunk was sent and not yet answered."""
    return departure.sent is not None or departure.is_last_sent


# the target


@dataclass(frozen=True, slots=True)
class ArrivalStep:
    """The record to keep, and whether the chunk's groups are to be stored or are there already."""

    arrival: Arrival
    outcome: Literal["take", "repeated"]


def plan_arrival(arrival: Arrival, chunk: Chunk) -> ArrivalStep:
    """Decide about a chunk: take it, or say again that it was taken; raise MigrationError for any other."""
    if chunk.leg != arrival.leg:
        raise MigrationError("the chunk belongs to another leg")
    if chunk.number < arrival.chunk and _covers(arrival, chunk):
        return ArrivalStep(arrival, "repeated")
    if chunk.number != arrival.chunk or arrival.is_done:
        raise MigrationError(f"chunk {chunk.number} comes where {arrival.chunk} should")
    through = arrival.through if chunk.is_last else chunk.through
    return ArrivalStep(Arrival(arrival.leg, chunk.number + 1, through, chunk.is_last), "take")


def _covers(arrival: Arrival, chunk: Chunk) -> bool:
    """Tell whether a chunk of an earlier number reaches no further than what was taken."""
    return arrival.is_done or (not chunk.is_last and (chunk.through or b"") <= (arrival.through or b""))


# requests while groups move


@dataclass(frozen=True, slots=True)
class Serve:
    """This child answers."""


@dataclass(frozen=True, slots=True)
class Forward:
    """Another child answers: pass the request on, once."""

    to: Principal


@dataclass(frozen=True, slots=True)
class Redirect:
    """Tell the client to ask another child; None: to ask the index.

    While a chunk is on its way, source and target may name each other: a client that meets it pauses, and
    asks a bounded number of times.
    """

    to: Principal | None


Route = Serve | Forward | Redirect


@dataclass(frozen=True, slots=True)
class Moving:
    """What a child takes part in: its legs, each with the test for its groups."""

    departures: tuple[tuple[Departure, Mover], ...] = ()
    arrivals: tuple[tuple[Arrival, Mover], ...] = ()


def plan_route(
    group: bytes, me: Principal, owner: Principal | None, moving: Moving, *, is_forwarded: bool = False
) -> Route:
    """Decide who answers for a group.

    `owner` is the child that has it by what `me` knows, legs left aside: by its table (before or after, both
    do), or, with a directory, `me` where it holds the group or was just given it, and None elsewhere. A
    request that was passed on once is never passed on again.
    """
    for departure, moves in moving.departures:
        if moves(group):
            if _is_passed(departure, group):
                return _elsewhere(departure.leg.target, is_forwarded)
            if departure.leg.is_by_table:
                return Serve()
    for arrival, moves in moving.arrivals:
        by_table = arrival.leg.is_by_table
        if moves(group) and (by_table or owner != me):
            if not _has_arrived(arrival, group):
                return _elsewhere(arrival.leg.source, is_forwarded)
            return Serve() if by_table else Redirect(None)
    if owner == me:
        return Serve()
    return Redirect(None) if owner is None else _elsewhere(owner, is_forwarded)


def _elsewhere(to: Principal, is_forwarded: bool) -> Route:
    return Redirect(to) if is_forwarded else Forward(to)


def _is_passed(departure: Departure, group: bytes) -> bool:
    if departure.is_done or departure.is_last_sent:
        return True
    edge = departure.sent if departure.sent is not None else departure.passed
    return edge is not None and group <= edge


def _has_arrived(arrival: Arrival, group: bytes) -> bool:
    return arrival.is_done or (arrival.through is not None and group <= arrival.through)
