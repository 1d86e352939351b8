"""Arguments and results of the fleet methods, as their Candid types have them. No decision stands here."""

from __future__ import annotations

from cannery.candid.python import nat32, nat64, record
from cannery.protocol.principal import Principal


@record
class FleetModuleArgs:
    """A module of the node for a fleet's registry."""

    module_hash: bytes
    kind: str
    version: nat64


@record
class FleetRole:
    """Principals in a role."""

    role: str
    principals: list[Principal]


@record
class FleetValue:
    """A named value to set; without a value the name is removed."""

    name: str
    value: str | None


@record
class FleetConfigureArgs:
    """Changes to a fleet's configuration: roles that are given, roles that are taken away, values."""

    roles: list[FleetRole]
    remove_roles: list[FleetRole]
    values: list[FleetValue]


@record
class FleetConfigureResult:
    """The configuration's version; `waiting` are the members that do not have it yet.

    Members on the index's own subnet always have it: their contexts read the same state.
    """

    version: nat64
    waiting: list[Principal]


@record
class FleetMembersArgs:
    """A page of a fleet's members, in the order of their ids, from the one behind `after`."""

    fleet: Principal
    after: Principal | None
    limit: nat32


@record
class FleetInfo:
    """A fleet as the node knows it."""

    members: nat64
    config_version: nat64
    config_at_ns: nat64
    modules: list[FleetModuleArgs]
    roles: list[FleetRole]
    values: list[FleetValue]
