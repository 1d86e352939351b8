"""The index of a fleet for tests of backups: it founds one, and makes its members one by one."""

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableLog,
    continuation,
    encode_args,
    query,
    update,
)
from cannery.cdk.management import CreateInstalledArgs, CreateInstalledResult, FleetModuleArgs, Management


class Founder(Canister):
    """Found a fleet and make members."""

    members = StableLog(Principal)

    @update
    def found(self, ctx: Context, module_hash: bytes) -> Pending[None]:
        """Found the fleet and put a module into its registry."""
        ctx.call(Management().cannery_fleet_found(), then=None)
        args = FleetModuleArgs(module_hash=module_hash, kind="book", version=1)
        return ctx.call(Management().cannery_fleet_module_put(args), then=self.founded)

    @continuation
    def founded(self, ctx: Context, outcome: Outcome[None]) -> None:
        """Answer."""
        outcome.unwrap()

    @update
    def make(self, ctx: Context, module_hash: bytes) -> Pending[Principal]:
        """Make a member that is controlled by this index alone."""
        args = CreateInstalledArgs(module_hash=module_hash, arg=encode_args(None), controllers=[ctx.id])
        return ctx.call(Management().cannery_create_installed(args), then=self.made)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult]) -> Principal:
        """Remember the member."""
        member = outcome.unwrap().canister_id
        self.members.append(member)
        return member

    @query
    def count(self, ctx: Context) -> int:
        """Say how many members it remembers."""
        return len(self.members)
