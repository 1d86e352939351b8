"""Cycles: charges from counts, storage over block time, the freezing line; nothing is lost to the unit."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.errors import Reject, RejectCode
from cannery.limits import CYCLES_MINTED_MAX
from cannery.replica import keys, records
from cannery.replica.block import Configure, PriceSchedule, ReplicaConfig
from cannery.replica.cycles import (
    burn,
    credit,
    debit,
    freezing_limit,
    idle_burned_per_day,
    is_frozen,
    mint,
    settle_storage,
)
from cannery.replica.ingress import Refused, admit
from cannery.replica.records import AccountRecord, CanisterRecord, Settings
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import CONTROLLER, World

GIB = 1 << 30


def test_a_message_is_charged_by_its_counts() -> None:
    world = World(ReplicaConfig(prices=PriceSchedule(per_message=1000, per_byte=1, per_key=10, per_call=100)))
    a, b = world.add(puppet(), cycles=100_000), world.add(puppet(), cycles=100_000)
    arg = pack([["put", b"k", b"12345"], ["reply", b"123"]])
    world.call(a, "run", arg)
    assert world.account(a).burned == 1000 + len(arg) + 5 + 3 + 10
    arg = pack([["call", b, "run", [["reply", b""]], 0, None], ["reply", b""]])
    before = world.account(a).burned
    world.call(a, "run", arg)
    inner = len(pack([["reply", b""]]))
    assert world.account(a).burned - before == 1000 + len(arg) + inner + 100
    assert world.account(b).burned == 1000 + inner


def test_a_trap_is_charged_and_a_stopped_message_pays_its_fee_alone() -> None:
    world = World(ReplicaConfig(prices=PriceSchedule(per_message=1000, per_key=10)))
    canister = world.add(puppet(), cycles=100_000)
    world.call(canister, "run", pack([["put", b"k", b"v"], ["trap", "x"]]))
    assert world.account(canister).burned == 1010
    world.call(canister, "run", pack([["put", b"k", b"v"], ["stop"]]))
    assert world.account(canister).burned == 2010


def test_who_cannot_pay_is_rejected_before_and_after() -> None:
    world = World(ReplicaConfig(prices=PriceSchedule(per_message=1000, per_key=10)))
    canister = world.add(puppet(), cycles=1005)
    answer = world.call(canister, "run", pack([["put", b"k", b"v"], ["reply", b""]]))
    assert answer is not None
    assert answer.error_code == "IC0207"
    assert "ran out of cycles" in answer.reject_message
    assert world.value(canister, b"k") is None
    assert world.account(canister).cycles == 0
    answer = world.call(canister, "run", pack([["reply", b""]]))
    assert answer is not None
    assert "at least 1000 additional cycles" in answer.reject_message
    assert answer.reject_code == RejectCode.SYS_TRANSIENT


def test_a_frozen_canister_rejects_updates_keeps_its_state_and_answers_queries() -> None:
    world = World()
    canister = world.add(puppet(), cycles=50)
    world.call(canister, "run", pack([["put", b"k", b"v"], ["reply", b""]]))
    world.round(Configure(ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=GIB))))
    ingress = world.ingress(canister, "run")
    verdict = admit(world.store, ingress, world.shelf, None, world.time_ns)
    assert isinstance(verdict, Refused)
    assert "please top up" in verdict.reject.message
    world.round(ingress)
    assert world.answers[ingress.request_id].error_code == "IC0207"
    assert world.value(canister, b"k") == b"v"
    assert world.query(canister, "read", pack([["reply", b"still here"]])).reply == b"still here"
    world.edit(lambda message: mint(message, canister, 10**10))
    answer = world.call(canister, "run", pack([["reply", b"awake"]]))
    assert answer is not None
    assert answer.reply == b"awake"


def test_responses_reach_a_frozen_canister() -> None:
    world = World(ReplicaConfig(activation_count_max=1))
    a, b = world.add(puppet(), cycles=10), world.add(puppet())
    call: Act = ["call", b, "run", [["reply", b"b"]], 0, [["pass"]]]
    ingress = world.ingress(a, "run", pack([["put", b"k", b"v"], call, ["later", 0]]))
    world.round(ingress)
    world.round()
    config = ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=GIB * 1000))
    world.round(Configure(config))
    assert world.answers[ingress.request_id].reply == b"b"


@settings(max_examples=30)
@given(st.lists(st.floats(0.1, 5000), min_size=1, max_size=6), st.integers(1, 10**7))
def test_storage_costs_the_same_however_often_it_is_charged(pauses: list[float], price: int) -> None:
    burned = []
    for touches in (True, False):
        world = World(ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=price * 1000)))
        canister = world.add(puppet(), cycles=10**15, settings=Settings(freezing_threshold_s=0))
        world.call(canister, "run", pack([["put", b"k", b"x" * 1000], ["reply", b""]]))
        start_ns = world.time_ns
        for pause in pauses:
            world.time_ns += int(pause * 1e9)
            if touches:
                world.call(canister, "run", pack([["reply", b""]]))
                world.edit(lambda message, canister=canister: settle_storage(message, canister))
        world.time_ns = start_ns + 40_000 * 10**9
        world.round()
        world.edit(lambda message, canister=canister: settle_storage(message, canister))
        burned.append(world.account(canister).burned)
    assert burned[0] == burned[1] > 0


def test_no_storage_is_charged_for_the_time_before_a_price_was_set() -> None:
    world = World()
    canister = world.add(puppet(), cycles=10**12, settings=Settings(freezing_threshold_s=0))
    world.call(canister, "run", pack([["put", b"k", b"x" * 1023], ["reply", b""]]))
    world.round(seconds=10**6)
    world.round(Configure(ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=1 << 20))))
    world.round(seconds=10)
    world.edit(lambda message: settle_storage(message, canister))
    assert world.account(canister).burned == 10


def test_the_freezing_line_is_the_idle_burn_over_the_threshold() -> None:
    config = ReplicaConfig(prices=PriceSchedule(storage_per_gib_second=100))
    account = AccountRecord(memory_bytes=2 * GIB, cycles=200 * 86_400 * 2)
    canister = CanisterRecord(
        (CONTROLLER,), CONTROLLER, 0, settings=Settings(freezing_threshold_s=86_400 * 2)
    )
    assert idle_burned_per_day(config, account) == 200 * 86_400
    assert freezing_limit(config, canister, account) == account.cycles
    assert not is_frozen(config, canister, account, 0)
    account.cycles -= 1
    assert is_frozen(config, canister, account, 0)
    assert not is_frozen(ReplicaConfig(), canister, account, 0)


def test_minting_has_a_bound_and_movements_keep_the_sum() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    world.edit(lambda message: mint(message, a, CYCLES_MINTED_MAX))
    with pytest.raises(Reject, match="cannot be minted"):
        world.edit(lambda message: mint(message, a, 1))
    with pytest.raises(Reject, match="cannot be minted"):
        world.edit(lambda message: mint(message, a, -1))

    def move(message) -> None:
        debit(message, a, 1000)
        credit(message, b, 1000)
        assert burn(message, b, 2000) == 1000
        with pytest.raises(Reject, match="fewer than"):
            debit(message, b, 1)
        with pytest.raises(Reject, match="not found"):
            credit(message, keys.canister_id(1), 1)

    world.edit(move)
    world.round()
    stored = world.store.get(keys.SUBNET_KEY)
    assert stored is not None
    assert records.SUBNET.decode(stored).burned == 1000
