"""The IC's prices on our counters: each count to the unit, and both schedules conserve what was minted."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from cannery import Canister, Context, Pending, Principal, nat32, update
from cannery.cdk.management import CreateCanisterArgs, CreateCanisterResult, Management
from cannery.limits import RESPONSE_PRICED_SIZE_BYTES_MAX
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.replica.cycles import settle_storage
from cannery.replica.management.types import CanisterIdRecord, CanisterStatusResult
from cannery.replica.prices import FREE, IC, SCHEDULES
from cannery.replica.records import Settings
from cannery.testing import Node, Rejected
from tests.replica.laws import check_cycles
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import World

T = 10**12
# Storage apart: it is charged by time, and tested by itself.
COUNTED = replace(IC, storage_per_gib_second=0)


def test_the_schedules_are_those_of_the_documents() -> None:
    assert dict(SCHEDULES) == {"free": PriceSchedule(), "ic": IC}
    assert (IC.per_message, IC.per_call, IC.per_call_byte) == (5_000_000, 260_000, 1_000)
    assert (IC.per_ingress, IC.per_ingress_byte) == (1_200_000, 2_000)
    outcalls = IC.per_outcall, IC.per_outcall_request_byte, IC.per_outcall_response_byte
    assert outcalls == (49_140_000, 5_200, 10_400)
    assert (IC.storage_per_gib_second, IC.creation) == (127_000, 500_000_000_000)


def test_a_signed_call_costs_reception_execution_and_work() -> None:
    world = World(ReplicaConfig(prices=COUNTED))
    canister = world.add(puppet(), cycles=T)
    arg = pack([["put", b"k", b"12345"], ["reply", b"123"]])
    world.call(canister, "run", arg)
    expected = 5_000_000 + 1_200_000 + 2_000 * len(arg) + 20 * (len(arg) + 5 + 3) + 40_000
    assert world.account(canister).burned == expected


def test_a_call_costs_its_sender_the_way_there_and_back_and_its_callee_the_execution() -> None:
    world = World(ReplicaConfig(prices=COUNTED))
    a, b = world.add(puppet(), cycles=T), world.add(puppet(), cycles=T)
    inner = pack([["reply", b"x" * 700]])
    then: list[Act] = [["reply", b""]]
    arg = pack([["call", b, "run", [["reply", b"x" * 700]], 0, then], ["later", 0]])
    world.call(a, "run", arg)
    assert world.account(b).burned == 5_000_000 + 20 * (len(inner) + 700)
    begun = 5_000_000 + 1_200_000 + 2_000 * len(arg) + 20 * (len(arg) + len(inner))
    sent = 260_000 + 1_000 * len(inner)
    assert world.account(a).burned == begun + sent + 1_000 * 700 + 5_000_000


def test_what_a_response_costs_its_receiver_has_a_bound() -> None:
    world = World(ReplicaConfig(prices=PriceSchedule(per_call_byte=1)))
    a, b = world.add(puppet(), cycles=T), world.add(puppet())
    big = b"x" * (RESPONSE_PRICED_SIZE_BYTES_MAX + 100_000)
    world.call(b, "run", pack([["put", b"big", big], ["reply", b""]]))
    before = world.account(a).burned
    acts: list[Act] = [["scan", b"", b"\xff", False], ["reply", big]]
    arg = pack([["call", b, "run", acts, 0, [["reply", b""]]], ["later", 0]])
    world.call(a, "run", arg)
    assert world.account(a).burned - before == len(pack(acts)) + RESPONSE_PRICED_SIZE_BYTES_MAX


def test_a_gib_costs_its_price_per_second() -> None:
    world = World(ReplicaConfig(prices=replace(FREE, storage_per_gib_second=127_000)))
    canister = world.add(puppet(), cycles=T, settings=Settings(freezing_threshold_s=0))
    world.call(canister, "run", pack([["put", b"k", b"x" * (2**20 - 1)], ["reply", b""]]))
    world.edit(lambda message: settle_storage(message, canister))
    before = world.account(canister).burned
    world.time_ns += 1024 * 1_000_000_000
    world.edit(lambda message: settle_storage(message, canister))
    assert world.account(canister).burned - before == 127_000


class Maker(Canister):
    @update
    def make(self, ctx: Context, cycles: nat32) -> Pending[CreateCanisterResult]:
        return ctx.call(Management().create_canister(CreateCanisterArgs()), cycles=cycles * 10**9)


def test_a_canister_pays_for_the_canisters_that_it_creates() -> None:
    with Node(config=ReplicaConfig(prices=IC)) as node:
        maker = node.install(Maker, cycles=3 * T)
        with pytest.raises(Rejected, match="Creating a canister costs 500000000000 cycles"):
            maker.make(499)
        made = maker.make(600)
        assert isinstance(made.canister_id, Principal)
        assert _balance(node, made.canister_id) == 100 * 10**9
        check_cycles(node.store)


def _balance(node: Node, canister_id: Principal) -> int:
    status = node.manage("canister_status", CanisterIdRecord(canister_id))
    assert isinstance(status, CanisterStatusResult)
    return status.cycles


_ACTS = st.sampled_from(
    [
        ["put", b"k", b"v" * 50],
        ["delete", b"k"],
        ["scan", b"", b"\xff", False],
        ["accept", 1000],
        ["trap", "no"],
        ["reject", "no"],
        ["reply", b"yes"],
    ]
)


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from([FREE, IC]),
    st.lists(st.tuples(st.booleans(), st.lists(_ACTS, max_size=4), st.integers(0, 5000)), max_size=6),
    st.integers(0, 100_000_000),
)
def test_both_schedules_conserve_what_was_minted(
    prices: PriceSchedule, plan: list[tuple[bool, list[Act], int]], cycles: int
) -> None:
    # Every round of the world is checked by the law of cycles, and replayed.
    world = World(ReplicaConfig(prices=prices, activation_count_max=2))
    a, b = world.add(puppet(), cycles=cycles), world.add(puppet(), cycles=cycles)
    for direct, acts, attached in plan:
        call: Act = ["call", b, "run", acts, attached, [["pass"]]]
        world.call(*((b, "run", pack(acts)) if direct else (a, "run", pack([call, ["later", 0]]))))
        world.time_ns += 3_600 * 1_000_000_000
    world.settle()
    if prices == FREE:
        assert world.account(a).burned == world.account(b).burned == 0
