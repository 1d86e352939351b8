"""Guards on a node: who is let in, and that a stranger's call costs a canister nothing."""

from __future__ import annotations

import pytest

from cannery import Call, Context, Principal, composite_query, controller, encode_args, same_fleet, update
from cannery.candid.python import nat64
from cannery.replica.block import PriceSchedule
from cannery.replica.ingress import Admitted, Refused, admit
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import types as t
from tests.replica.fleet_world import Fleet, Member
from tests.replica.management_world import (
    EMPTY_ARG,
    OPERATOR,
    STRANGER,
    Rejected,
    World,
    int_argument,
    int_result,
    make_puppet,
    puppet_call,
)


class Guarded(Member):
    """A member that lets sisters add, and its controllers set."""

    @update(only=same_fleet)
    def add(self, ctx: Context, value: nat64) -> nat64:
        """Add to the number."""
        self.number.value += value
        return self.number.get()

    @update(only=controller)
    def replace(self, ctx: Context, value: nat64) -> None:
        """Set the number."""
        self.number.set(value)

    @composite_query(only=same_fleet)
    def sum(self, ctx: Context, value: nat64) -> nat64:
        """Add to the number without keeping it."""
        return self.number.get() + value

    @composite_query
    def sum_of(self, ctx: Context, other: Principal) -> nat64:
        """Ask another one's sum."""
        return int_result(ctx.query(Call.raw(other, "sum", int_argument(1))).unwrap())


def _guarded(fleet: Fleet) -> Principal:
    module_hash = fleet.world.manage(OPERATOR, "cannery_module_add", fleet.world.programs.module_of(Guarded))
    fleet.manage("cannery_fleet_module_put", ft.FleetModuleArgs(module_hash, "guarded", 1))
    return fleet.create(module_hash, [fleet.index, OPERATOR])


def test_a_member_is_let_in_and_strangers_are_not() -> None:
    fleet = Fleet()
    guarded = _guarded(fleet)
    sister = fleet.create(fleet.module())
    assert int_result(puppet_call(fleet.world, sister, guarded, "add", int_argument(2)).reply) == 2
    assert int_result(puppet_call(fleet.world, fleet.index, guarded, "add", int_argument(3)).reply) == 5
    with pytest.raises(Rejected, match="add is for canisters of the same fleet") as caught:
        puppet_call(fleet.world, fleet.witness, guarded, "add", int_argument(1))
    assert caught.value.code == 4
    with pytest.raises(Rejected, match="add is for canisters of the same fleet"):
        fleet.world.call(OPERATOR, guarded, "add", int_argument(1))
    fleet.set_controllers(sister, STRANGER)
    with pytest.raises(Rejected, match="add is for"):
        puppet_call(fleet.world, sister, guarded, "add", int_argument(1))
    assert int_result(fleet.world.query(STRANGER, guarded, "get")) == 5


def test_queries_of_other_canisters_are_guarded_alike() -> None:
    fleet = Fleet()
    one, other = _guarded(fleet), _guarded(fleet)
    outside = make_puppet(fleet.world, Guarded)
    ask = encode_args(other)
    assert int_result(fleet.world.query(STRANGER, one, "sum_of", ask)) == 1
    with pytest.raises(Rejected, match="sum is for canisters of the same fleet"):
        fleet.world.query(STRANGER, outside, "sum_of", ask)
    with pytest.raises(Rejected, match="sum is for canisters of the same fleet"):
        fleet.world.query(STRANGER, other, "sum", int_argument(1))


def test_a_stranger_s_signed_call_is_refused_before_it_is_ordered() -> None:
    prices = PriceSchedule(per_message=100, per_byte=1, per_key=1)
    fleet = Fleet(World(prices=prices))
    guarded = _guarded(fleet)
    world = fleet.world
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(guarded, 10**9))

    def ask(sender: Principal, method: str, arg: bytes = EMPTY_ARG) -> object:
        ingress = world.ingress(sender, guarded, method, arg)
        return admit(world.store.snapshot(), ingress, world.programs, None, world.time_ns)

    refused = ask(STRANGER, "replace", b"garbage")
    assert isinstance(refused, Refused)
    assert refused.reject.error_code == "IC0516"
    assert refused.reject.message.startswith("replace is for controllers of the canister: ")
    assert isinstance(ask(OPERATOR, "add"), Refused)
    assert isinstance(ask(OPERATOR, "replace", int_argument(1)), Admitted)
    assert isinstance(ask(STRANGER, "set", int_argument(1)), Admitted), "what has no guard is for everybody"
