"""The buckets that a placement knows, in the order in which they joined, and what each last said of itself.

The order is a number that is never given twice: lists of groups name buckets by it. What becomes of them is
`place_driver`'s.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import Principal, StableCell, StableMap, nat64
from cannery.cdk.component import Component
from cannery.fleet.place_changes import with_report
from cannery.fleet.place_types import Report
from cannery.fleet.placement_census import Census, Child, ChildState


class Members(Component, prefix="place.known"):
    """Know the buckets."""

    children = StableMap(nat64, Child, renamed_from="place.members")
    orders = StableMap(Principal, nat64, renamed_from="place.orders")
    next_order = StableCell(nat64, 0, renamed_from="place.next_order")
    given = StableMap(Principal, nat64, renamed_from="place.given")

    def census(self) -> Census:
        """Return what is known of the buckets."""
        return Census(tuple(self.children.values()))

    def has(self, canister: Principal) -> bool:
        """Say whether a canister is one of them."""
        return self.orders.get(canister) is not None

    def add(self, canister: Principal) -> None:
        """Take a bucket in."""
        order = self.next_order.get()
        self.next_order.set(order + 1)
        self.orders.put(canister, order)
        self.children.put(order, Child(canister, 0))

    def rename(self, old: Principal, new: Principal) -> None:
        """Go on with a bucket under another canister."""
        order = self.orders.get(old)
        if order is not None:
            self.orders.delete(old)
            self.orders.put(new, order)
            self.children.put(order, replace(self.children[order], id=new))

    def note(
        self, canister: Principal, *, report: Report | None = None, state: ChildState | None = None
    ) -> None:
        """Note what a bucket reports, or where it stands."""
        order = self.orders.get(canister)
        if order is None:
            return
        child = self.children[order]
        if state is not None:
            child = replace(child, state=state)
        if report is not None:
            child = with_report(child, report)
            self.given.put(canister, report.given_count)
        self.children.put(order, child)

    def drop(self, canister: Principal) -> None:
        """Forget a bucket."""
        order = self.orders.get(canister)
        if order is not None:
            self.orders.delete(canister)
            self.children.delete(order)
