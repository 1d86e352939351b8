"""A canister that is no zone and asks the factory for cycles."""

from __future__ import annotations

from cannery import Canister, Context, Pending, Principal, Service, method, nat, update
from cannery.apps.zones.diode_types import TransferCyclesResult


class Battery(Service):
    @method
    def cycles_manager_transferCycles(self, amount: nat) -> TransferCyclesResult: ...


class Beggar(Canister):
    @update
    def beg(self, ctx: Context, factory: Principal, amount: nat) -> Pending[TransferCyclesResult]:
        return ctx.call(Battery(factory).cycles_manager_transferCycles(amount))
