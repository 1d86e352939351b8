"""Records of fleets: what stands in the spaces `FLEETS` and `FLEET_MODULES`.

They follow the rules of `records`, and `tests/formats/management_records.json` holds examples. Members, roles
and values of a fleet are keys of their own (`keys`), so that each is read and written alone.
"""

from __future__ import annotations

import msgspec

from cannery.replica.records import RecordDecoder


class FleetRecord(msgspec.Struct, frozen=True, array_like=True):
    """A fleet, under the principal of its index: counts of what it has, and its configuration's version.

    `members` counts the canisters that the index made and that still belong to it, `holders` the principals
    in its roles (one with two roles counts twice), `values` its named values.
    """

    founded_ns: int
    members: int = 0
    config_version: int = 0
    config_at_ns: int = 0
    holders: int = 0
    values: int = 0
    is_stale: bool = False


class FleetModule(msgspec.Struct, frozen=True, array_like=True):
    """A module in a fleet's registry: what kind of canister it makes, and which version of it."""

    kind: str
    version: int


FLEET = RecordDecoder(FleetRecord, "fleet")
FLEET_MODULE = RecordDecoder(FleetModule, "fleet module")
