"""The index of a fleet, as one component of a canister: `fleet = Index()`.

It makes the fleet's canisters and finds them, brings releases and rolls them out, funds, watches, and says
what is wrong. Each area is a component of its own; their methods (`fleet_...`) join the canister's interface
and are for operators of the node and controllers of the index unless they say otherwise. docs/fleet.md.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cannery import Context, Pending, Principal, query
from cannery.cdk.component import Component
from cannery.cdk.management import SubnetChoice
from cannery.fleet.alarms import Alarms
from cannery.fleet.census import Census
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import FleetStatus
from cannery.fleet.funding import Funding
from cannery.fleet.gauges import Gauges
from cannery.fleet.nursery import Nursery
from cannery.fleet.orphans import Orphans
from cannery.fleet.registry import Registry
from cannery.fleet.replacements import Replacements
from cannery.fleet.rights import require_operator
from cannery.fleet.rollouts import Rollouts
from cannery.fleet.treasury import Treasury
from cannery.fleet.trust import Trust

__all__ = ["Index"]


class Index(Component, prefix="fleet"):
    """Everything that an index of a fleet does."""

    alarms = Alarms()
    directory = Directory()
    registry = Registry()
    rollouts = Rollouts()
    nursery = Nursery()
    departures = Departures()
    orphans = Orphans()
    census = Census()
    replacements = Replacements()
    treasury = Treasury()
    funding = Funding()
    trust = Trust()
    gauges = Gauges()

    def is_making(self, ctx: Context, kind: str, owner: Principal) -> bool:
        """Say whether an owner's child of a kind is being made now."""
        return self.nursery.is_making(ctx, kind, owner)

    def create(
        self,
        ctx: Context,
        kind: str,
        owner: Principal,
        arg: bytes,
        *,
        then: Callable[..., object],
        saved: object,
        cycles: int | None = None,
        subnet: SubnetChoice | None = None,
    ) -> Pending[Any]:  # of what `then` answers
        """Make an owner's child with the current release of a kind; return this from the method.

        It gets `cycles` of the index's, or what `fleet_birth_set` says for its kind. It is made on `subnet`:
        a named one, the one with the fewest canisters (`any`), or None: where the node puts it.
        `then` is a continuation of the canister: `(self, ctx, outcome: Outcome[Child], saved)`. Look the
        owner up first (`directory.find`, `is_making`): raises `AlreadyMade`, LookupError where the kind has
        no release, Reject where the index has too few cycles or too many calls in flight.
        """
        release = self.registry.current(kind)
        if release is None:
            raise LookupError(f"there is no release of {kind}: an operator adds one with fleet_release_add")
        self.census.keep(ctx)
        if cycles is None:
            cycles = self.nursery.births.get(kind, 0)
        return self.nursery.create(
            ctx, release, owner, arg, then=then, saved=saved, cycles=cycles, subnet=subnet
        )

    @query
    def fleet_status(self, ctx: Context) -> FleetStatus:
        """Return the fleet at a glance."""
        require_operator(ctx)
        return FleetStatus(
            children=self.directory.count_all(),
            counts=self.directory.counts(),
            pool=len(self.nursery.pool),
            pool_target=self.nursery.pool_rule.get().target,
            making=self.nursery.making_count(),
            leaving=len(self.departures.leaving),
            alarms_open=len(self.alarms.open),
        )
