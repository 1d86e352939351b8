"""Scaling: when to add a child, when to empty one, and who may be about it.

An author gives two predicates over the census; `plan_scale` asks them and holds back until they are steady
(hysteresis), so that a predicate that flaps moves nothing. `plan_spawn` counts slots (free, desired, planned)
and hands out holds of a spawn lock that expires by itself: a creation that never ends blocks nobody.
Everything that must outlast a message is a record, to be kept in a stable cell. This module creates nothing
and moves nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cannery import limits
from cannery.candid.python import nat64, record
from cannery.fleet.placement_census import Census, is_used_over
from cannery.fleet.placement_policy import Policy, plan_departure
from cannery.protocol.principal import Principal

Predicate = Callable[[Census], bool]

SECOND_NS = 1_000_000_000


def is_free_below(slots: int) -> Predicate:
    """Grow when fewer slots are free than this."""
    return lambda census: census.free_slots < slots


def is_over(permille: int) -> Predicate:
    """Grow when more of the whole capacity is in use; for FillFirst, BalancedLoad and LastNode."""
    return lambda census: is_used_over(census.used_slots, census.capacity_slots, permille)


def is_any_over(permille: int) -> Predicate:
    """Grow when any child is fuller than this; for AnchorHash, which cannot pass a full one over."""
    return lambda census: any(is_used_over(c.used_slots, c.capacity_slots, permille) for c in census)


def is_under(permille: int) -> Predicate:
    """Shrink when at most so much of the whole capacity is in use."""
    return lambda census: not is_used_over(census.used_slots, census.capacity_slots, permille)


@dataclass(frozen=True, slots=True)
class ScaleRule:
    """When to grow and shrink.

    A predicate must answer true at every look for `hold_ns` before it counts; after a change both rest for
    `pause_ns`. Raise ValueError for counts that make no sense.
    """

    grow: Predicate
    shrink: Predicate
    hold_ns: int = 30 * SECOND_NS
    pause_ns: int = 300 * SECOND_NS
    child_count_min: int = 1
    child_count_max: int = limits.PLACEMENT_CHILD_COUNT_MAX

    def __post_init__(self) -> None:
        if not 1 <= self.child_count_min <= self.child_count_max <= limits.PLACEMENT_CHILD_COUNT_MAX:
            raise ValueError(
                f"a fleet has 1 to {limits.PLACEMENT_CHILD_COUNT_MAX} children, "
                f"not {self.child_count_min} to {self.child_count_max}"
            )
        if self.hold_ns < 0 or self.pause_ns < 0:
            raise ValueError("a time to hold or to pause is not negative")


@record
class ScaleState:
    """Since when each predicate has been true without a break, and when the fleet changed last."""

    grow_since_ns: nat64 | None = None
    shrink_since_ns: nat64 | None = None
    changed_ns: nat64 | None = None


@dataclass(frozen=True, slots=True)
class ScaleStep:
    """What to do now, why, and the state to keep. `leaving` is the child to empty, for shrink alone."""

    state: ScaleState
    action: Literal["none", "grow", "shrink"]
    reason: str
    leaving: Principal | None = None


def plan_scale(
    rule: ScaleRule,
    policy: Policy,
    state: ScaleState,
    census: Census,
    now_ns: int,
    *,
    is_changing: bool = False,
) -> ScaleStep:
    """Decide whether to add a child, empty one, or leave things as they are.

    `is_changing` says that a spawn or a migration is under way: then nothing new begins. Growing is urgent,
    and neither held nor paused, where the policy can place no new key. Shrinking looks ahead: it is not begun
    where the others lack the room, or where the fleet would want to grow again right after it.
    """
    grows = rule.grow(census)
    shrinks = not grows and rule.shrink(census)
    seen = ScaleState(
        _since(state.grow_since_ns, now_ns) if grows else None,
        _since(state.shrink_since_ns, now_ns) if shrinks else None,
        state.changed_ns,
    )
    if is_changing:
        return ScaleStep(seen, "none", "a change is under way")
    is_urgent = not policy.has_room(census)
    if grows or is_urgent:
        return _plan_growth(rule, seen, census, now_ns, is_urgent=is_urgent)
    if shrinks:
        return _plan_shrinking(rule, policy, seen, census, now_ns)
    return ScaleStep(seen, "none", "neither predicate holds")


def _plan_growth(
    rule: ScaleRule, seen: ScaleState, census: Census, now_ns: int, *, is_urgent: bool
) -> ScaleStep:
    if len(census) >= rule.child_count_max:
        return ScaleStep(seen, "none", f"there are {len(census)} children, as many as there may be")
    wait = "" if is_urgent else _must_wait(rule, seen, seen.grow_since_ns, now_ns)
    if wait:
        return ScaleStep(seen, "none", wait)
    reason = "no new key can be placed" if is_urgent else "the grow predicate holds"
    return ScaleStep(ScaleState(changed_ns=now_ns), "grow", reason)


def _plan_shrinking(
    rule: ScaleRule, policy: Policy, seen: ScaleState, census: Census, now_ns: int
) -> ScaleStep:
    if len(census) <= rule.child_count_min:
        return ScaleStep(seen, "none", f"there are {len(census)} children, as few as there may be")
    wait = _must_wait(rule, seen, seen.shrink_since_ns, now_ns)
    if wait:
        return ScaleStep(seen, "none", wait)
    leaving = policy.plan_leaving(census)
    if leaving is None:
        return ScaleStep(seen, "none", "no child can leave now")
    after = plan_departure(policy, census, leaving)
    if after is None:
        return ScaleStep(seen, "none", f"the others lack the room for what {leaving} holds")
    if not policy.has_room(after) or rule.grow(after):
        return ScaleStep(seen, "none", f"without {leaving} the fleet would grow again")
    return ScaleStep(ScaleState(changed_ns=now_ns), "shrink", "the shrink predicate holds", leaving)


def _since(since_ns: int | None, now_ns: int) -> int:
    return now_ns if since_ns is None else min(since_ns, now_ns)


def _must_wait(rule: ScaleRule, seen: ScaleState, since_ns: int | None, now_ns: int) -> str:
    if since_ns is None or now_ns - since_ns < rule.hold_ns:
        return "the predicate has not been steady for long enough"
    if seen.changed_ns is not None and now_ns - seen.changed_ns < rule.pause_ns:
        return "the fleet changed a short while ago"
    return ""


@dataclass(frozen=True, slots=True)
class Slots:
    """How many slots can be given at once, how many should be, and how many are being made."""

    free: int
    desired: int
    planned: int

    @property
    def missing(self) -> int:
        """Slots for which no child is there or being made."""
        return max(0, self.desired - self.free - self.planned)


@record
class SpawnHold:
    """One creation under way: its number, the slots it will bring, and when nobody waits for it any more."""

    number: nat64
    slots: nat64
    expires_ns: nat64


@record
class SpawnLock:
    """Who is creating children. Numbers are never given twice, so that a late creation is recognised."""

    next_number: nat64
    holds: list[SpawnHold]


UNLOCKED = SpawnLock(0, [])


@dataclass(frozen=True, slots=True)
class SpawnRule:
    """How many slots are wanted free, what one child brings, and how many are created at the same time."""

    desired_slots: int
    child_slots: int
    hold_ns: int = 300 * SECOND_NS
    spawn_count_max: int = 1
    child_count_max: int = limits.PLACEMENT_CHILD_COUNT_MAX

    def __post_init__(self) -> None:
        if self.child_slots < 1 or self.desired_slots < 0:
            raise ValueError("a child brings at least one slot, and the slots desired are not negative")
        if not 1 <= self.spawn_count_max <= limits.SPAWN_COUNT_MAX:
            raise ValueError(f"1 to {limits.SPAWN_COUNT_MAX} children are created at the same time")
        if self.hold_ns <= 0:
            raise ValueError("a hold lasts for some time")


@dataclass(frozen=True, slots=True)
class SpawnStep:
    """The lock to keep, the creations to begin now, and the count of slots that led to it."""

    lock: SpawnLock
    begun: tuple[SpawnHold, ...]
    slots: Slots


def count_slots(census: Census, lock: SpawnLock, desired_slots: int, now_ns: int) -> Slots:
    """Count slots; those of a hold that has expired are not planned any more."""
    planned = sum(hold.slots for hold in lock.holds if hold.expires_ns > now_ns)
    return Slots(census.free_slots, desired_slots, planned)


def plan_spawn(
    rule: SpawnRule, lock: SpawnLock, census: Census, now_ns: int, *, wanted_count: int = 0
) -> SpawnStep:
    """Take holds for as many creations as the missing slots ask for, at least `wanted_count` (of a `grow`).

    Holds that have expired are dropped. Two that ask at the same moment, one after the other, cannot both get
    the last hold: the second sees the first one's slots planned.
    """
    open_holds = [hold for hold in lock.holds if hold.expires_ns > now_ns]
    slots = count_slots(census, lock, rule.desired_slots, now_ns)
    asked = max(-(-slots.missing // rule.child_slots), wanted_count - len(open_holds))
    room = min(rule.spawn_count_max - len(open_holds), rule.child_count_max - len(census) - len(open_holds))
    count = max(0, min(asked, room))
    begun = tuple(
        SpawnHold(lock.next_number + at, rule.child_slots, now_ns + rule.hold_ns) for at in range(count)
    )
    return SpawnStep(SpawnLock(lock.next_number + count, [*open_holds, *begun]), begun, slots)


@dataclass(frozen=True, slots=True)
class SpawnEnd:
    """The lock to keep, and what to do with the canister that was made: `adopt` it, or keep it as `spare`.

    A spare is one whose hold expired and may have been given to another: it is used for the next creation
    instead of being lost.
    """

    lock: SpawnLock
    canister: Literal["adopt", "spare"]


def plan_spawn_end(lock: SpawnLock, number: int, now_ns: int) -> SpawnEnd:
    """Give a hold back, after success or failure; only the hold of this number is released."""
    is_held = any(hold.number == number and hold.expires_ns > now_ns for hold in lock.holds)
    kept = [hold for hold in lock.holds if hold.number != number]
    return SpawnEnd(SpawnLock(lock.next_number, kept), "adopt" if is_held else "spare")
