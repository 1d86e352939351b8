"""A canister that its owners share, for tests: a house with a counter, its next version, and a wallet."""

from __future__ import annotations

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    StableCell,
    continuation,
    method,
    nat,
    nat64,
    query,
    update,
)
from cannery.cdk.management import CanisterIdArg, CanisterInfo, CanisterInfoArgs, Management
from cannery.fleet.ownership import SharedOwnership
from cannery.fleet.ownership_types import Ownership


class House(Canister):
    ownership = SharedOwnership()
    knocks = StableCell(nat64, 0)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()


class HouseWithBell(House):
    @query
    def ring(self, ctx: Context) -> nat64:
        return self.knocks.get()


class Shared(Service):
    @method
    def ownership_pay(self, owner: Principal) -> nat: ...

    @method
    def ownership_join(self, shares: nat64) -> Ownership: ...


class Wallet(Canister):
    """Holds cycles of somebody, and sends them with a call."""

    @update
    def pay(self, ctx: Context, house: Principal, owner: Principal, cycles: nat) -> Pending[nat]:
        return ctx.call(Shared(house).ownership_pay(owner), then=self.paid, cycles=cycles)

    @continuation
    def paid(self, ctx: Context, outcome: Outcome[nat]) -> nat:
        return outcome.value if outcome.ok else ctx.reject(outcome.reject_message)

    @update
    def join(self, ctx: Context, house: Principal, shares: nat64, cycles: nat) -> Pending[Ownership]:
        return ctx.call(Shared(house).ownership_join(shares), then=self.joined, cycles=cycles)

    @continuation
    def joined(self, ctx: Context, outcome: Outcome[Ownership]) -> Ownership:
        return outcome.value if outcome.ok else ctx.reject(outcome.reject_message)

    @update
    def give(self, ctx: Context, to: Principal, cycles: nat) -> None:
        ctx.notify(Management().deposit_cycles(CanisterIdArg(to)), cycles=cycles)


class Witness(Canister):
    """Asks the node what everybody may know of a canister."""

    @update
    def controllers_of(self, ctx: Context, canister: Principal) -> Pending[list[Principal]]:
        return ctx.call(Management().canister_info(CanisterInfoArgs(canister, 0)), then=self.told)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[CanisterInfo]) -> list[Principal]:
        return outcome.value.controllers
