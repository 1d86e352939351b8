"""Policies: which child gets a key, which child leaves first, and who takes what it leaves behind.

Four of them, after the scaling bounty's entries: `FillFirst` and `BalancedLoad` (quickstart_scaling's upload
orders), `LastNode` (only the newest grows, as in ICSP and auto-scaling-notes) and `AnchorHash` (Scaled
Storage; arXiv 1812.09674). With the first three an index keeps a directory of where each group is; with
AnchorHash a place is computed from a few bytes that anybody can hold.

A *group* is a set of keys that stay together: what is placed is always a group, and a key alone is a group
of one. These functions only decide; `placement_migration` says how keys move.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from heapq import heapify, heappop, heappush
from typing import Protocol

from cannery import limits
from cannery.fleet.placement_census import PERMILLE, Census, Child, free_slots
from cannery.fleet.placement_table import AnchorTable, child_of
from cannery.protocol.principal import Principal

GroupRule = Callable[[bytes], bytes]


def group_alone(key: bytes) -> bytes:
    """Let each key be a group of its own."""
    return key


def group_before(separator: bytes) -> GroupRule:
    """Let keys stay together that are equal before the first separator; without one a key is alone.

    The group is the beginning of its keys, so that in key order a group's keys stand side by side.
    """
    if not separator:
        raise ValueError("a separator has at least one byte")
    return lambda key: key.partition(separator)[0]


@dataclass(frozen=True, slots=True)
class Placed:
    """The key goes to this child."""

    child: Principal


@dataclass(frozen=True, slots=True)
class Relocate:
    """The group's home lacks room, another child has it for all of the group: move the group, then put."""

    source: Principal
    target: Principal


@dataclass(frozen=True, slots=True)
class NoRoom:
    """The key cannot be put now; `reason` says what to do about it."""

    reason: str


Placing = Placed | Relocate | NoRoom


@dataclass(frozen=True, slots=True)
class Need:
    """What a put asks for: slots for the key, and those that its group takes already."""

    key_slots: int = 1
    group_slots: int = 0


@dataclass(frozen=True, slots=True)
class Share:
    """So many slots' worth of groups for one child."""

    child: Principal
    slots: int


class Policy(Protocol):
    """What the functions below ask of a policy. All of it is pure, and equal for equal arguments."""

    def plan_order(self, census: Census, group: bytes) -> tuple[Child, ...]:
        """Return the children that may take a new group, best first; each takes new keys."""

    def has_room(self, census: Census) -> bool:
        """Tell whether there are new groups that can be placed."""

    def plan_leaving(self, census: Census) -> Principal | None:
        """Return the child to empty when there are too many; None where none should leave."""

    def plan_shares(self, census: Census, slots: int) -> tuple[Share, ...]:
        """Divide slots among the children, in the order in which they should be filled; less than asked where
        there is less room.
        """


@dataclass(frozen=True, slots=True)
class FillFirst:
    """The fullest child that has room first: few children in use, the emptiest easily freed."""

    def plan_order(self, census: Census, group: bytes) -> tuple[Child, ...]:  # noqa: ARG002 - any group
        return tuple(sorted(census.open_children, key=_Emptiness))

    def has_room(self, census: Census) -> bool:
        return bool(census.open_children)

    def plan_leaving(self, census: Census) -> Principal | None:
        return _emptiest(census)

    def plan_shares(self, census: Census, slots: int) -> tuple[Share, ...]:
        return _fill(self.plan_order(census, b""), slots)


@dataclass(frozen=True, slots=True)
class BalancedLoad:
    """The emptiest child first, by the part of its capacity in use: load spreads, new children fill first."""

    def plan_order(self, census: Census, group: bytes) -> tuple[Child, ...]:  # noqa: ARG002 - any group
        return tuple(sorted(census.open_children, key=_Emptiness, reverse=True))

    def has_room(self, census: Census) -> bool:
        return bool(census.open_children)

    def plan_leaving(self, census: Census) -> Principal | None:
        return _emptiest(census)

    def plan_shares(self, census: Census, slots: int) -> tuple[Share, ...]:
        return _level(census.open_children, slots)


@dataclass(frozen=True, slots=True)
class LastNode:
    """The newest child alone gets new keys; those before it are done and never touched again.

    A child that lost keys to deletions gets no new ones: room is given back when the last one leaves, whose
    keys then move to the children before it, the oldest first, so that the new last one keeps its room.
    """

    def plan_order(self, census: Census, group: bytes) -> tuple[Child, ...]:  # noqa: ARG002 - any group
        last = _last(census)
        return (last,) if last is not None and free_slots(last) else ()

    def has_room(self, census: Census) -> bool:
        return bool(self.plan_order(census, b""))

    def plan_leaving(self, census: Census) -> Principal | None:
        last = _last(census)
        leaving = _draining(census) or ([last] if last is not None and last.state.tag != "away" else [])
        return leaving[0].id if leaving else None

    def plan_shares(self, census: Census, slots: int) -> tuple[Share, ...]:
        return _fill(census.open_children, slots)


@dataclass(frozen=True, slots=True)
class AnchorHash:
    """The child that the table computes, and no other: no directory, no choice.

    A full child cannot be passed over, so add one while all have room (`placement_scale.is_any_over`).
    """

    table: AnchorTable

    def plan_order(self, census: Census, group: bytes) -> tuple[Child, ...]:
        child = census.find(child_of(self.table, group))
        return (child,) if child is not None and free_slots(child) else ()

    def has_room(self, census: Census) -> bool:
        members = set(self.table.children)
        return any(child.id in members for child in census.open_children)

    def plan_leaving(self, census: Census) -> Principal | None:
        """Return the newest child: any could leave at the same price."""
        members = set(self.table.children)
        for child in (*_draining(census), *reversed(census.children)):
            if child.state.tag in _LEAVING and child.id in members:
                return child.id
        return None

    def plan_shares(self, census: Census, slots: int) -> tuple[Share, ...]:
        """Divide evenly, as the table will do; used for looking ahead alone."""
        return _level(census.open_children, slots)


def plan_put(
    policy: Policy, census: Census, group: bytes, *, home: Principal | None = None, need: Need = Need()
) -> Placing:
    """Decide where a new key of a group goes.

    `home` is where the group is already, None for a new group. A group stays at home while that has room, and
    is never divided. With AnchorHash the home is computed and `home` stays None.
    """
    if len(group) > limits.GROUP_SIZE_BYTES_MAX:
        raise ValueError(f"a group's name has {len(group)} bytes, more than {limits.GROUP_SIZE_BYTES_MAX}")
    if home is None:
        for child in policy.plan_order(census, group):
            if free_slots(child) >= need.key_slots:
                return Placed(child.id)
        return NoRoom("no child has room for the key: add one, or wait for the one that is being added")
    return _plan_put_at_home(policy, census, group, home, need)


def _plan_put_at_home(policy: Policy, census: Census, group: bytes, home: Principal, need: Need) -> Placing:
    child = census.find(home)
    if child is None:
        return NoRoom(f"the group's home {home} is gone: restore it, or drop the group")
    if child.state.tag == "away":
        return NoRoom(f"the group's home {home} cannot be reached now: try again")
    if free_slots(child) >= need.key_slots:
        return Placed(home)
    for other in policy.plan_order(census, group):
        if free_slots(other) >= need.group_slots + need.key_slots:
            return Relocate(home, other.id)
    return NoRoom(f"the group's home {home} is full, and no other child has room for the whole group")


def plan_departure(policy: Policy, census: Census, leaving: Principal) -> Census | None:
    """Return what the census would be had a child given its keys to the others; None where they lack the
    room.
    """
    left = census.child(leaving).used_slots
    rest = census.without(leaving)
    shares = policy.plan_shares(rest, left)
    if sum(share.slots for share in shares) < left:
        return None
    return rest.with_children(_with_used(rest.child(share.child), share.slots) for share in shares)


_LEAVING = ("serving", "full", "draining")


def _with_used(child: Child, more: int) -> Child:
    return Child(
        child.id,
        child.capacity_slots,
        child.used_slots + more,
        child.size_bytes,
        child.cycles,
        child.last_active_ns,
        child.state,
    )


class _Emptiness:
    """Order open children by the part of their capacity that is free, without a rounded quotient."""

    __slots__ = ("capacity", "free")

    def __init__(self, child: Child) -> None:
        self.free = free_slots(child)
        self.capacity = child.capacity_slots

    def __lt__(self, other: _Emptiness) -> bool:
        return self.free * other.capacity < other.free * self.capacity


def _emptiest(census: Census) -> Principal | None:
    """Return the child with the fewest keys to move, the newest of equals; one that drains first."""
    able = [child for child in reversed(census.children) if child.state.tag in _LEAVING]
    return min(_draining(census) or able, key=lambda child: child.used_slots).id if able else None


def _draining(census: Census) -> list[Child]:
    return [child for child in reversed(census.children) if child.state.tag == "draining"]


def _last(census: Census) -> Child | None:
    """Return the newest child that stays; one that is away is still the last."""
    for child in reversed(census.children):
        if child.state.tag != "draining":
            return child
    return None


def _fill(order: Iterable[Child], slots: int) -> tuple[Share, ...]:
    shares: list[Share] = []
    for child in order:
        if slots == 0:
            break
        taken = min(slots, free_slots(child))
        shares.append(Share(child.id, taken))
        slots -= taken
    return tuple(shares)


def _level(children: tuple[Child, ...], slots: int) -> tuple[Share, ...]:
    """Give slot after slot to the emptiest child, the oldest of equals.

    All slots below a common level are given at once; those that lie at the level itself, at most one per
    child, are given singly.
    """
    largest = max((child.capacity_slots for child in children), default=0)
    low, high = 0, largest * PERMILLE
    while low < high:
        middle = (low + high + 1) // 2
        if sum(_rise(child, middle, largest) for child in children) <= slots:
            low = middle
        else:
            high = middle - 1
    rises = [_rise(child, low, largest) if largest else 0 for child in children]
    left = slots - sum(rises)
    heap = [
        (Fraction(child.used_slots + rise, child.capacity_slots), at)
        for at, (child, rise) in enumerate(zip(children, rises, strict=True))
        if rise < free_slots(child)
    ]
    heapify(heap)
    while left and heap:
        _, at = heappop(heap)
        child = children[at]
        rises[at] += 1
        left -= 1
        if rises[at] < free_slots(child):
            heappush(heap, (Fraction(child.used_slots + rises[at], child.capacity_slots), at))
    return tuple(Share(child.id, rise) for child, rise in zip(children, rises, strict=True) if rise)


def _rise(child: Child, level: int, largest: int) -> int:
    """Return the slots of a child that begin below a level, given in thousandths of the largest capacity."""
    wanted = -(-child.capacity_slots * level // (largest * PERMILLE))
    return max(0, min(wanted, child.capacity_slots) - child.used_slots)
