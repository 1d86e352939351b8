"""Orphans: canisters of the fleet that no list of its index has.

One can come to be where a forced stop of the index dropped the answer to a creation. The node knows every
member; one that was in no list at two looks, long enough apart that no creation can be under way, is emptied
and goes into the pool.
"""

from __future__ import annotations

from cannery import Context, Outcome, Principal, Reject, StableCell, StableMap, continuation, nat64, update
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import FleetMembersArgs, Management
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.nursery import MAKING_NS_MAX, Nursery
from cannery.fleet.rights import require_operator
from cannery.limits import FLEET_PAGE_COUNT_MAX, SUSPECT_COUNT_MAX


class Orphans(Component, prefix="fleet.orphans"):
    """Find canisters that were lost sight of."""

    directory = Uses(Directory)
    departures = Uses(Departures)
    nursery = Uses(Nursery)
    suspects = StableMap(Principal, nat64, counted=True)
    looked_ns = StableCell(nat64, 0)

    @update
    def fleet_orphans_find(self, ctx: Context) -> None:
        """Look through the fleet's members now; the census does it as well."""
        require_operator(ctx)
        self.look(ctx)

    def look(self, ctx: Context) -> None:
        """Begin to look through all members, page by page; not while an earlier look is under way."""
        if ctx.now_ns - self.looked_ns.get() >= MAKING_NS_MAX:
            self._ask(ctx, None)

    def _ask(self, ctx: Context, after: Principal | None) -> None:
        self.looked_ns.set(ctx.now_ns)
        call = Management().cannery_fleet_members(FleetMembersArgs(ctx.id, after, FLEET_PAGE_COUNT_MAX))
        try:
            ctx.call(call, then=self.listed)
        except Reject as reject:
            ctx.log(f"members are looked through later: {reject.message}")

    @continuation
    def listed(self, ctx: Context, outcome: Outcome[list[Principal]]) -> None:
        """Compare a page of members with the lists, and ask for the next one."""
        if not outcome.ok:
            ctx.log(f"members were not listed: {outcome.reject_message}")
            return
        members = outcome.value
        for canister in members:
            self._judge(ctx, canister)
        if len(members) == FLEET_PAGE_COUNT_MAX:
            self._ask(ctx, members[-1])

    def _judge(self, ctx: Context, canister: Principal) -> None:
        if self._is_listed(canister):
            self.suspects.delete(canister)
            return
        seen_ns = self.suspects.get(canister)
        if seen_ns is None:
            if len(self.suspects) < SUSPECT_COUNT_MAX:
                self.suspects.put(canister, ctx.now_ns)
        elif ctx.now_ns - seen_ns >= MAKING_NS_MAX:
            self.suspects.delete(canister)
            ctx.log(f"{canister} was lost sight of and goes into the pool")
            self.departures.collect(ctx, canister)

    def _is_listed(self, canister: Principal) -> bool:
        return (
            self.directory.get(canister) is not None
            or canister in self.nursery.pool
            or canister in self.departures.leaving
        )
