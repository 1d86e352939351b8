"""What a member of a fleet brings, as one component of a canister: `member = Member()`.

Every child of an index should have it: it says which release runs here and which configuration it reads.
"""

from __future__ import annotations

from cannery import Context, Principal, nat64, query, record
from cannery.cdk.component import Component


@record
class MemberVersion:
    """What runs here: kind and version as the fleet's registry has them (version 0: not registered), the
    version of the fleet's configuration, and the fleet."""

    kind: str
    version: nat64
    config_version: nat64
    fleet: Principal | None


class Member(Component, prefix="fleet.member"):
    """Be a member of a fleet."""

    @query
    def get_version(self, ctx: Context) -> MemberVersion:
        """Say which release runs here, and which version of the fleet's configuration it reads."""
        release = ctx.release
        kind, version = ("", 0) if release is None else (release.kind, release.version)
        return MemberVersion(kind, version, ctx.fleet_config_version, ctx.fleet)
