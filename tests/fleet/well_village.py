"""A fleet for tests of its funding: wells that burn cycles when drawn from, and ask for more."""

from __future__ import annotations

from cannery import (
    Call,
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    continuation,
    encode_args,
    nat,
    nat64,
    query,
    update,
)
from cannery.cdk.management import CanisterIdArg, FleetModuleArgs, Management
from cannery.fleet.directory_types import Child, Release
from cannery.fleet.funding_types import TopUpResult
from cannery.fleet.index import Index
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterListArgs,
    CanisterStatusResult,
    CyclesReport,
)
from cannery.testing import Actor, Node


class Well(Canister):
    drawn = StableCell(nat64, 0)

    @update
    def draw(self, ctx: Context, gift: nat, to: Principal) -> nat64:
        """Count, and send cycles to somebody."""
        self.drawn.set(self.drawn.get() + 1)
        if gift:
            ctx.notify(Call.of(to, "take", ()), cycles=gift)
        return self.drawn.get()

    @update
    def take(self, ctx: Context) -> None:
        """Keep the cycles that came."""
        ctx.accept(ctx.available)

    @update
    def give(self, ctx: Context, cycles: nat, to: Principal) -> Pending[None]:
        """Deposit cycles, and answer with what the node said."""
        return ctx.call(Management().deposit_cycles(CanisterIdArg(to)), cycles=cycles)

    @update
    def ask(self, ctx: Context, cycles: nat) -> Pending[TopUpResult]:
        """Ask the index for cycles, and answer with what it said."""
        assert ctx.fleet is not None
        arg = encode_args(cycles, types=[nat])
        call = Call(ctx.fleet.raw, "fleet_request_cycles", arg)
        return ctx.call(call, then=self.told)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[TopUpResult]) -> TopUpResult:
        return outcome.unwrap()

    @query
    def look(self, ctx: Context) -> nat64:
        return self.drawn.get()


class Springs(Canister):
    """The index: each caller has a well."""

    fleet = Index()
    release = StableCell(Release, Release("well", 0, b""))

    @update
    def plan(self, ctx: Context, release: Release) -> Pending[None]:
        self.release.set(release)
        return ctx.call(Management().cannery_fleet_found(), then=self.founded, saved=release)

    @continuation
    def founded(self, ctx: Context, outcome: Outcome[None], saved: Release) -> Pending[None]:
        outcome.unwrap()
        module = FleetModuleArgs(saved.module_hash, saved.kind, saved.version)
        return ctx.call(Management().cannery_fleet_module_put(module))

    @update
    def dig(self, ctx: Context, cycles: nat64) -> Child | Pending[Child]:
        found = self.fleet.directory.find("well", ctx.caller)
        if found is not None:
            return found
        return self.fleet.nursery.create(
            ctx, self.release.get(), ctx.caller, b"", then=self.dug, saved=None, cycles=cycles
        )

    @continuation
    def dug(self, ctx: Context, outcome: Outcome[Child], saved: None) -> Child:
        return outcome.unwrap()


def build_springs(node: Node, cycles: int) -> Actor:
    module_hash = node.manage("cannery_module_add", node.build(Well))
    springs = node.install(Springs, cycles=cycles)
    springs.plan(Release("well", 1, module_hash))
    return springs.as_(node.operator)


def dig(node: Node, springs: Actor, owner: str, cycles: int) -> Actor:
    return node.actor(springs.as_(owner).dig(cycles).canister, Well).as_(owner)


def balance_of(node: Node, canister: Actor) -> int:
    status = node.manage("canister_status", CanisterIdRecord(canister.id))
    assert isinstance(status, CanisterStatusResult)
    return status.cycles


def balances(node: Node) -> int:
    """Add up what all canisters have."""
    listed = node.manage("cannery_canister_list", CanisterListArgs(None, 1000))
    return sum(item.cycles for item in listed.canisters)  # type: ignore[union-attr, attr-defined]


def report_of(node: Node) -> CyclesReport:
    report = node.manage("cannery_cycles")
    assert isinstance(report, CyclesReport)
    return report
