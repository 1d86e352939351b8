"""A census: what an index knows of each of its children when it decides where something goes.

It counts in slots: units of capacity that the author chooses (entries, kilobytes, users). This module holds
facts and sums over them; it decides nothing (`placement_policy`, `placement_scale`) and asks nobody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cannery import limits
from cannery.candid.python import Case, Variant, nat, nat64, record, variant
from cannery.errors import CanneryError
from cannery.protocol.principal import Principal

PERMILLE = 1_000


class CensusError(CanneryError):
    """A census contradicts itself, or was asked for a child that it does not hold."""


@variant
class ChildState(Variant):
    """What a child may be used for.

    `serving` takes new keys while it has room; `full` was taken out of rotation whatever its counts say;
    `draining` is being emptied; `away` cannot be reached (stopped, frozen, its subnet down): its keys are
    still its own; `gone` is deleted.
    """

    serving: Case[None]
    full: Case[None]
    draining: Case[None]
    away: Case[None]
    gone: Case[None]


SERVING = ChildState.serving()


@record
class Child:
    """One child as last reported. `used_slots` may exceed `capacity_slots`: a report is never refused."""

    id: Principal
    capacity_slots: nat64
    used_slots: nat64 = 0
    size_bytes: nat64 = 0
    cycles: nat = 0
    last_active_ns: nat64 = 0
    state: ChildState = SERVING


def free_slots(child: Child) -> int:
    """Return how many slots a child can still give to new keys; 0 unless it is serving."""
    if child.state.tag != "serving":
        return 0
    return max(0, child.capacity_slots - child.used_slots)


@dataclass(frozen=True, slots=True)
class Census:
    """The children in the order in which they were made, those that are gone left out.

    Raise CensusError where an id stands twice or there are more than `PLACEMENT_CHILD_COUNT_MAX`.
    """

    children: tuple[Child, ...] = ()
    _by_id: dict[Principal, Child] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        present = tuple(child for child in self.children if child.state.tag != "gone")
        if len(present) > limits.PLACEMENT_CHILD_COUNT_MAX:
            raise CensusError(f"a census holds at most {limits.PLACEMENT_CHILD_COUNT_MAX} children")
        by_id = {child.id: child for child in present}
        if len(by_id) != len(present):
            raise CensusError("a census names each child once")
        object.__setattr__(self, "children", present)
        object.__setattr__(self, "_by_id", by_id)

    def __iter__(self) -> Iterator[Child]:
        return iter(self.children)

    def __len__(self) -> int:
        return len(self.children)

    def find(self, id: Principal) -> Child | None:
        """Return a child; None where the census does not hold it."""
        return self._by_id.get(id)

    def child(self, id: Principal) -> Child:
        """Return a child; raise CensusError where the census does not hold it."""
        found = self._by_id.get(id)
        if found is None:
            raise CensusError(f"no child {id} in the census")
        return found

    @property
    def open_children(self) -> tuple[Child, ...]:
        """The children that take new keys."""
        return tuple(child for child in self.children if free_slots(child))

    @property
    def free_slots(self) -> int:
        """Slots that new keys can take at once."""
        return sum(map(free_slots, self.children))

    @property
    def used_slots(self) -> int:
        """Slots taken, over all children."""
        return sum(child.used_slots for child in self.children)

    @property
    def capacity_slots(self) -> int:
        """Slots that there are, over all children."""
        return sum(child.capacity_slots for child in self.children)

    def with_children(self, changed: Iterable[Child]) -> Census:
        """Return the census with new facts of children it holds; those it does not hold are added at the
        end.
        """
        news = {child.id: child for child in changed}
        kept = tuple(news.pop(child.id, child) for child in self.children)
        return Census(kept + tuple(news.values()))

    def without(self, id: Principal) -> Census:
        """Return the census as if a child were not there."""
        return Census(tuple(child for child in self.children if child.id != id))


def is_used_over(used_slots: int, capacity_slots: int, permille: int) -> bool:
    """Tell whether more than so many thousandths of a capacity are used; nothing of nothing is not."""
    return used_slots * PERMILLE > capacity_slots * permille
