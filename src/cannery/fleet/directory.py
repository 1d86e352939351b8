"""The directory of a fleet: which canister belongs to whom, found by kind and owner, by id, or in pages.

A child is made once for a kind and owner, however many messages ask for it at the same time: the place is
taken in the message that asks, and given back where no canister could be made. Pages go by the order of
creation, so that a fleet that grows or shrinks meanwhile is listed whole. Making is `making`'s, leaving
`leaving`'s.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from cannery import Context, Principal, StableCell, StableMap, StableSet, nat32, nat64, query
from cannery.cdk.component import Component
from cannery.fleet.directory_types import Child, ChildCount, ChildFilter, ChildPage, ChildState, Replacement
from cannery.fleet.rights import require_operator
from cannery.limits import FLEET_LOOK_COUNT_MAX, FLEET_PAGE_COUNT_MAX

NO_VERSION = 0


class Directory(Component, prefix="fleet.directory"):
    """Keep and find children."""

    children = StableMap(Principal, Child)
    by_owner = StableMap(tuple[str, Principal], Principal)
    by_number = StableMap(nat64, Principal)
    by_version = StableMap(tuple[str, nat64, nat64], Principal)
    tallies = StableMap(tuple[str, str, nat64], nat64)
    next_number = StableCell(nat64, 0)
    actives = StableMap(Principal, nat64)
    replacing = StableMap(Principal, Replacement, counted=True)
    joint = StableSet(Principal)
    moved = StableMap(Principal, tuple[str, Principal])
    notes_moves = StableCell(bool, False)

    # for the other components and the author

    def get(self, canister: Principal) -> Child | None:
        """Return a child by its canister."""
        return self.children.get(canister)

    def find(self, kind: str, owner: Principal) -> Child | None:
        """Return the child of a kind that an owner has."""
        canister = self.by_owner.get((kind, owner))
        return None if canister is None else self.children.get(canister)

    def add(self, ctx: Context, canister: Principal, kind: str, owner: Principal, version: int) -> Child:
        """Note a new child."""
        number = self.next_number.get()
        self.next_number.set(number + 1)
        child = Child(canister, kind, owner, number, ctx.now_ns, version, ChildState.active())
        self.by_owner.put((kind, owner), canister)
        self.by_number.put(number, canister)
        self._write(None, child)
        return child

    def set_versions(self, arrived: list[tuple[Child, int]]) -> None:
        """Note the releases that children run now."""
        counts: dict[tuple[str, str, int], int] = {}
        for child, version in arrived:
            if child.version == version:
                continue
            for of, difference in ((child.version, -1), (version, 1)):
                key = (child.kind, child.state.tag, of)
                counts[key] = counts.get(key, 0) + difference
            self.by_version.delete((child.kind, child.version, child.number))
            self.by_version.put((child.kind, version, child.number), child.canister)
            self.children.put(child.canister, replace(child, version=version))
        for key, difference in counts.items():
            self._count(key, difference)

    def set_state(self, child: Child, state: ChildState) -> Child:
        """Note where a child stands; its owner may have another one once it is leaving or replaced."""
        changed = replace(child, state=state)
        self._write(child, changed)
        if state.tag in ("leaving", "replaced"):
            self._free_owner(child)
        return changed

    def forget(self, child: Child) -> None:
        """Drop a child that is gone."""
        self._free_owner(child)
        self.by_number.delete(child.number)
        self._write(child, None)

    def note_joint(self, canister: Principal) -> None:
        """Note that a child's owner controls it beside the index: it is a child, and no member any more."""
        self.joint.add(canister)

    def is_joint(self, canister: Principal) -> bool:
        """Say whether a child's owner controls it beside the index."""
        return canister in self.joint

    def note_active(self, canister: Principal, active_ns: int) -> None:
        """Note when a child last ran a message, as the census has read it."""
        if self.actives.get(canister) != active_ns:
            self.actives.put(canister, active_ns)

    def count(self, kind: str, state: str | None = None, version: int | None = None) -> int:
        """Count children without looking at them."""
        found = self.tallies.items(prefix=(kind,) if state is None else (kind, state))
        return sum(count for (_, _, of), count in found if version is None or of == version)

    def count_all(self) -> int:
        """Count all children without looking at them."""
        return sum(count for _, count in self.tallies.items())

    def versions(self, kind: str) -> list[int]:
        """List the versions that children of a kind run, without looking at them."""
        return sorted({version for (_, _, version), _ in self.tallies.items(prefix=(kind,))})

    def run_of(self, kind: str, version: int, after: int | None, limit: int) -> list[Child]:
        """Return children of a kind on a version in the order of creation, from the one behind `after`."""
        start = (kind, version, 0 if after is None else after + 1)
        keys = self.by_version.items(start=start, prefix=(kind, version), limit=limit)
        return [self.children[canister] for _, canister in keys]

    # methods

    @query
    def fleet_lookup(self, ctx: Context, kind: str, owner: Principal) -> Child | None:
        """Find an owner's child of a kind; the owner may ask, and who operates the fleet."""
        if ctx.caller != owner:
            require_operator(ctx)
        return self.find(kind, owner)

    @query
    def fleet_child(self, ctx: Context, canister: Principal) -> Child | None:
        """Find a child by its canister; the child and its owner may ask, and who operates the fleet."""
        child = self.get(canister)
        if child is None or ctx.caller not in (child.owner, child.canister):
            require_operator(ctx)
        return child

    @query
    def fleet_page(self, ctx: Context, filter: ChildFilter, after: nat64 | None, limit: nat32) -> ChildPage:
        """List children that pass a filter, in the order of creation; `active_since_ns` goes by the last
        census."""
        require_operator(ctx)
        limit = max(1, min(limit, FLEET_PAGE_COUNT_MAX))
        items: list[Child] = []
        for looked, (number, child) in enumerate(self._candidates(filter, after), 1):
            if self._passes(filter, child):
                items.append(child)
            if len(items) == limit or looked == FLEET_LOOK_COUNT_MAX:
                return ChildPage(items, number)
        return ChildPage(items, None)

    def counts(self) -> list[ChildCount]:
        """Return how many children stand where, by kind, state and version."""
        return [ChildCount(*key, count) for key, count in self.tallies.items(limit=FLEET_PAGE_COUNT_MAX)]

    # within

    def _candidates(self, filter: ChildFilter, after: int | None) -> Iterator[tuple[int, Child]]:
        start = 0 if after is None else after + 1
        if filter.kind is None or filter.version is None:
            for number, canister in self.by_number.items(start=start):
                yield number, self.children[canister]
            return
        lead = (filter.kind, filter.version)
        for key, canister in self.by_version.items(start=(*lead, start), prefix=lead):
            yield key[2], self.children[canister]

    def _passes(self, filter: ChildFilter, child: Child) -> bool:
        return (
            (filter.kind is None or child.kind == filter.kind)
            and (filter.version is None or child.version == filter.version)
            and (filter.state is None or child.state.tag == filter.state)
            and (filter.created_from_ns is None or child.created_ns >= filter.created_from_ns)
            and (filter.created_before_ns is None or child.created_ns < filter.created_before_ns)
            and (
                filter.active_since_ns is None
                or self.actives.get(child.canister, child.created_ns) >= filter.active_since_ns
            )
        )

    def _free_owner(self, child: Child) -> None:
        key = (child.kind, child.owner)
        if self.by_owner.get(key) != child.canister:
            return
        self.by_owner.delete(key)
        if self.notes_moves.get():
            self.moved.put(child.canister, key)

    def _write(self, before: Child | None, after: Child | None) -> None:
        if before is not None:
            self._tally(before, -1)
            self.by_version.delete((before.kind, before.version, before.number))
        if after is not None:
            self._tally(after, 1)
            self.by_version.put((after.kind, after.version, after.number), after.canister)
            self.children.put(after.canister, after)
        elif before is not None:
            self.children.delete(before.canister)
            self.actives.delete(before.canister)
            self.joint.discard(before.canister)

    def _tally(self, child: Child, difference: int) -> None:
        self._count((child.kind, child.state.tag, child.version), difference)

    def _count(self, key: tuple[str, str, int], difference: int) -> None:
        count = self.tallies.get(key, 0) + difference
        if count:
            self.tallies.put(key, count)
        else:
            self.tallies.delete(key)
