"""Orphans: canisters of the fleet that no list of its index has.

One can come to be where a forced stop of the index dropped the answer to a creation, or where the index went
back to an earlier state. The node knows every member; one that was in no list at two looks, long enough apart
that no creation can be under way, is emptied and goes into the pool if it has never run a message. One that
has may hold what somebody was promised to be kept: it stays as it is, with an alarm, until an operator says
whose it is. None is emptied while a replacement is under way: its canister holds what a child has stored.
"""

from __future__ import annotations

from typing import Final

from cannery import (
    Case,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    Variant,
    continuation,
    nat64,
    record,
    update,
    variant,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import CanisterReport, FleetMembersArgs, Management, StatusManyResult
from cannery.fleet.alarms import Alarms
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child
from cannery.fleet.nursery import MAKING_NS_MAX, Nursery
from cannery.fleet.replacements import Replacements
from cannery.fleet.rights import require_operator
from cannery.fleet.treasury import Treasury
from cannery.limits import FLEET_PAGE_COUNT_MAX, SUSPECT_COUNT_MAX

UNLISTED: Final = "unlisted"


@record
class Adopting:
    """A canister that an operator says is somebody's."""

    canister: Principal
    owner: Principal


@variant
class AdoptResult(Variant):
    """The child as it is listed now, or why it is not."""

    ok: Case[Child]
    err: Case[str]


class Orphans(Component, prefix="fleet.orphans"):
    """Find canisters that were lost sight of."""

    alarms = Uses(Alarms)
    directory = Uses(Directory)
    departures = Uses(Departures)
    nursery = Uses(Nursery)
    replacements = Uses(Replacements)
    treasury = Uses(Treasury)
    suspects = StableMap(Principal, nat64, counted=True)
    looked_ns = StableCell(nat64, 0)

    @update
    def fleet_orphans_find(self, ctx: Context) -> None:
        """Look through the fleet's members now; the census does it as well."""
        require_operator(ctx)
        self.look(ctx)

    def look(self, ctx: Context) -> None:
        """Begin to look through all members, page by page; not while an earlier look is under way."""
        self.replacements.recover(ctx)
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
        due = [canister for canister in members if self._is_due(ctx, canister)]
        if due:
            self._examine(ctx, due)
        if len(members) == FLEET_PAGE_COUNT_MAX:
            self._ask(ctx, members[-1])

    def _is_due(self, ctx: Context, canister: Principal) -> bool:
        """Say whether a member was in no list for long enough; note one that is seen so the first time."""
        seen_ns = self.suspects.get(canister)
        if self._is_listed(ctx, canister):
            if seen_ns is not None:
                self._clear(ctx, canister, "it is listed again")
            return False
        if seen_ns is None and len(self.suspects) < SUSPECT_COUNT_MAX:
            self.suspects.put(canister, ctx.now_ns)
        is_old = seen_ns is not None and ctx.now_ns - seen_ns >= MAKING_NS_MAX
        return is_old and not len(self.directory.replacing)

    def _examine(self, ctx: Context, canisters: list[Principal]) -> None:
        try:
            ctx.call(Management().cannery_status_many(canisters), then=self.examined)
        except Reject as reject:
            ctx.log(f"{len(canisters)} members without an entry are examined later: {reject.message}")

    @continuation
    def examined(self, ctx: Context, outcome: Outcome[list[StatusManyResult]]) -> None:
        """Empty what never served anybody; tell of what has."""
        if not outcome.ok:
            ctx.log(f"members without an entry were not examined: {outcome.reject_message}")
            return
        for result in outcome.value:
            canister, report = result.canister_id, result.status
            if report is None or self._is_listed(ctx, canister) or len(self.directory.replacing):
                continue
            if _has_served(report):
                text = (
                    f"{canister} ({report.kind}) has served somebody and is in no list: "
                    f"cannery fleet adopt {canister} --owner WHO lists it"
                )
                self.alarms.begin(ctx, UNLISTED, str(canister), text)
                continue
            self._clear(ctx, canister, "it goes into the pool")
            ctx.log(f"{canister} was lost sight of and goes into the pool")
            self.departures.collect(ctx, canister)

    def _clear(self, ctx: Context, canister: Principal, text: str) -> None:
        self.suspects.delete(canister)
        self.alarms.end(ctx, UNLISTED, str(canister), text)

    @update
    def fleet_adopt(
        self, ctx: Context, canister: Principal, owner: Principal
    ) -> AdoptResult | Pending[AdoptResult]:
        """List a member that is in no list as the child of an owner; of which kind says its module."""
        require_operator(ctx)
        if self._is_listed(ctx, canister):
            return AdoptResult.err(f"{canister} is listed already")
        call = Management().cannery_status_many([canister])
        return ctx.call(call, then=self.adopted, saved=Adopting(canister, owner))

    @continuation
    def adopted(self, ctx: Context, outcome: Outcome[list[StatusManyResult]], saved: Adopting) -> AdoptResult:
        """List it, if it belongs to this fleet and its owner has no other child of its kind."""
        canister, owner = saved.canister, saved.owner
        report = outcome.value[0].status if outcome.ok else None
        if report is None or report.fleet != ctx.fleet or report.kind is None:
            return AdoptResult.err(f"{canister} is no member of this fleet with a module of its registry")
        if self._is_listed(ctx, canister) or self.directory.find(report.kind, owner) is not None:
            return AdoptResult.err(f"{owner} has a {report.kind} already, or {canister} is listed")
        if self.nursery.is_making(ctx, report.kind, owner):
            return AdoptResult.err(f"a {report.kind} for {owner} is being made: ask again in a moment")
        child = self.directory.add(ctx, canister, report.kind, owner, report.version or 0)
        self.treasury.welcome(ctx, child)
        self._clear(ctx, canister, f"it is the {child.kind} of {owner}")
        return AdoptResult.ok(child)

    def _is_listed(self, ctx: Context, canister: Principal) -> bool:
        return (
            self.directory.get(canister) is not None
            or canister in self.nursery.pool
            or self.nursery.is_fitting(ctx, canister)
            or canister in self.departures.leaving
        )


def _has_served(report: CanisterReport) -> bool:
    """Say whether a canister has code and has run messages since it was made."""
    return report.module_hash is not None and report.active_ns > report.created_ns
