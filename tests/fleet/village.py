"""A fleet for tests: an index that gives each caller a cottage."""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    continuation,
    encode_args,
    init,
    nat64,
    query,
    record,
    update,
)
from cannery.cdk.management import FleetModuleArgs, Management
from cannery.fleet.directory_types import Child, Release
from cannery.fleet.index import Index
from cannery.fleet.member import Member


@record
class Deed:
    """What a cottage is installed with."""

    owner: Principal
    fails: bool


class Cottage(Canister):
    member = Member()
    deed = StableCell(Deed, Deed(Principal.anonymous(), False))
    knocks = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, deed: Deed) -> None:
        if deed.fails:
            ctx.trap("the roof fell in")
        self.deed.set(deed)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def toll(self, ctx: Context) -> str | None:
        return ctx.fleet_value("toll")

    @query
    def forge(self, ctx: Context) -> str:
        if not ctx.has_role("smith"):
            ctx.reject("you are no smith here")
        return "a sword"

    @query
    def owner(self, ctx: Context) -> Principal:
        return self.deed.get().owner


class Village(Canister):
    fleet = Index()
    cottage = StableCell(Release, Release("cottage", 0, b""))

    @update
    def plan(self, ctx: Context, release: Release) -> Pending[None]:
        self.cottage.set(release)
        return ctx.call(Management().cannery_fleet_found(), then=self.founded, saved=release)

    @continuation
    def founded(self, ctx: Context, outcome: Outcome[None], saved: Release) -> Pending[None]:
        outcome.unwrap()
        module = FleetModuleArgs(saved.module_hash, saved.kind, saved.version)
        return ctx.call(Management().cannery_fleet_module_put(module))

    @update
    def settle(self, ctx: Context, fails: bool) -> Child | Pending[Child]:
        found = self.fleet.directory.find("cottage", ctx.caller)
        if found is not None:
            return found
        if self.fleet.nursery.is_making(ctx, "cottage", ctx.caller):
            ctx.reject("your cottage is being built")
        return self.fleet.nursery.create(
            ctx,
            self.cottage.get(),
            ctx.caller,
            encode_args(Deed(ctx.caller, fails)),
            then=self.settled,
            saved=ctx.caller,
            cycles=self.fleet.nursery.births.get("cottage", 0),
        )

    @continuation
    def settled(self, ctx: Context, outcome: Outcome[Child], saved: Principal) -> Child:
        if not outcome.ok:
            ctx.reject(f"no cottage: {outcome.reject_message}")
        assert outcome.value.owner == saved
        return outcome.value
