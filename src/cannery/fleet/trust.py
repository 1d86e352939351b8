"""The configuration of a fleet: who has which role, and named values, for every member at once.

The node keeps both beside the fleet and each member's context reads them there, so that a change holds for
all members, stopped, frozen and unborn ones included, from the round on that answers it. The node's own
answer tells the version and the members that do not have it yet.
"""

from __future__ import annotations

from cannery import Context, Pending, update
from cannery.cdk.component import Component
from cannery.cdk.management import FleetConfigureArgs, FleetConfigureResult, Management
from cannery.fleet.rights import require_operator


class Trust(Component, prefix="fleet.trust"):
    """Set roles and values of the fleet."""

    @update
    def fleet_config_set(self, ctx: Context, change: FleetConfigureArgs) -> Pending[FleetConfigureResult]:
        """Give and take roles, set and remove values; answers once every member in reach has it."""
        require_operator(ctx)
        return ctx.call(Management().cannery_fleet_configure(change))
