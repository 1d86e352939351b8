"""Calls about many canisters of several subnets: each does its part once, the answer has all in order."""

from __future__ import annotations

import pytest

from cannery import Canister, Context, Pending, Principal, StableCell, nat64, query, update
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.cdk.management import (
    Management,
    StatusManyResult,
    UpgradeManyArgs,
    UpgradeResult,
)
from cannery.replica.block import ReplicaConfig
from cannery.replica.keys import canister_id
from cannery.replica.management.alarm import AlarmSetArgs
from cannery.testing import Actor, Crashed, FaultyStore, Node
from cannery.testing.actor import reply_of
from tests.fleet.test_index import OWNERS, build_village
from tests.testing.test_upgrade_crashes import First, Index, Second, show

RESULTS = decoder((type_of(list[UpgradeResult]),))
ROLL = encoder((type_of(UpgradeManyArgs),))


class Asker(Canister):
    """Asks about many."""

    asked = StableCell(nat64, 0)

    @update
    def statuses(self, ctx: Context, targets: list[Principal]) -> Pending[list[StatusManyResult]]:
        self.asked.set(self.asked.get() + 1)
        return ctx.call(Management().cannery_status_many(targets))

    @query
    def count(self, ctx: Context) -> nat64:
        return self.asked.get()


def _make(node: Node) -> tuple[Actor, list[Actor], UpgradeManyArgs]:
    """Make canisters on both subnets by turns, two of which a build is bad for."""
    index = node.install(Index)
    module = node.build(First)
    targets = [node.install(module, controllers=(index,), subnet=number % 2) for number in range(4)]
    for target, number in zip(targets, (0, 1, 3, 5), strict=True):
        target.set(number)
    module_hash = node.manage("cannery_module_add", node.build(Second))
    assert isinstance(module_hash, bytes)
    return index, targets, UpgradeManyArgs(module_hash, b"", [target.id for target in targets], False)


def test_upgrades_of_canisters_on_both_subnets_have_one_answer_in_order() -> None:
    with Node(subnets=2) as node:
        index, targets, args = _make(node)
        results = index.roll(args)
        assert [result.canister_id for result in results] == [target.id for target in targets]
        tags = [tag for _, tag in show(results)]
        assert tags[0] == tags[3]
        assert len({tags[0], tags[1]}) == 2
        assert [target.get() for target in targets] == [10, 1, 3, 15]


@pytest.mark.parametrize("which", [0, 1])
def test_a_crash_of_either_subnet_changes_no_answer_of_a_split_upgrade(which: int) -> None:
    with Node(subnets=2) as node:
        index, _, args = _make(node)
        calm = [tag for _, tag in show(index.roll(args))]
    for at in range(1, 40, 3):
        stores = [FaultyStore(seed=at), FaultyStore(seed=at + 1)]
        with Node(stores, subnets=2) as node:
            index, targets, args = _make(node)
            stores[which].crash_at(stores[which].operation_count + at)
            request = bytes(32)
            is_crashed = False
            for _ in range(2):
                try:
                    ticket = node.submit_raw(index.id, "roll", ROLL((args,)), node.operator, request)
                    node.run()
                except Crashed:
                    is_crashed = True
                    node.restart_subnet(which)
                    continue
                break
            stores[which].crash_at(0)
            ticket = node.submit_raw(index.id, "roll", ROLL((args,)), node.operator, request)
            node.run()
            answer = node.take_answer(ticket)
            assert answer is not None
            (results,) = RESULTS(reply_of(answer))
            assert isinstance(results, list)
            assert [tag for _, tag in show(results)] == calm
            assert [target.get() for target in targets] == [10, 1, 3, 15]
            assert index.answered() == 1
        if not is_crashed:
            break


def test_statuses_of_canisters_on_both_subnets_come_in_order() -> None:
    with Node(subnets=2) as node:
        asker = node.install(Asker, controllers=())
        module = node.build(First)
        targets = [node.install(module, controllers=(asker,), subnet=number % 2).id for number in range(5)]
        missing = [Principal(canister_id((number << 40) + 0x700000)) for number in range(2)]
        wanted = [targets[0], missing[1], *targets[1:], missing[0]]
        results = asker.statuses(wanted)
        assert [result.canister_id for result in results] == wanted
        assert asker.count() == 1


def test_an_alarm_over_both_subnets_names_those_left_out() -> None:
    with Node(subnets=2, config=ReplicaConfig(spreads=True)) as node:
        village = build_village(node)
        members = [village.as_(name).settle(False).canister for name in OWNERS]
        assert len({node._subnet_of(member).number for member in members}) == 2
        stranger = node.install(First, subnet=1).id
        args = AlarmSetArgs([*members, stranger], 5)
        assert node.manage("cannery_alarm_set", args, sender=village.id) == [stranger]
