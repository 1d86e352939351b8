"""A canister upgrades others in a node whose machine goes down at every place, under a real watch."""

from __future__ import annotations

from hashlib import sha256

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    continuation,
    health,
    nat64,
    post_upgrade,
    query,
    update,
)
from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.cdk.management import Management, UpgradeManyArgs, UpgradeResult
from cannery.replica import keys
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Actor, Crashed, FaultyStore, Node


class First(Canister):
    number = StableCell(nat64, 0)

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        return self.number.get()


class Second(Canister):
    number = StableCell(nat64, 0)

    @post_upgrade
    def begin(self, ctx: Context) -> None:
        self.number.set(nat64(self.number.get() + 10))
        if self.number.get() == 11:
            ctx.trap("cannot begin")
        while self.number.get() == 12:
            self.number.set(nat64(12))

    @health
    def is_well(self, ctx: Context) -> bool:
        return self.number.get() != 13

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        return self.number.get()


class Index(Canister):
    answers = StableCell(nat64, 0)

    @update
    def roll(self, ctx: Context, args: UpgradeManyArgs) -> Pending[list[UpgradeResult]]:
        return ctx.call(Management().cannery_upgrade_many(args), then=self.rolled)

    @continuation
    def rolled(self, ctx: Context, outcome: Outcome[list[UpgradeResult]]) -> list[UpgradeResult]:
        self.answers.set(nat64(self.answers.get() + 1))
        return outcome.unwrap()

    @query
    def answered(self, ctx: Context) -> nat64:
        return self.answers.get()


def make(node: Node, numbers: list[int]) -> tuple[Actor, list[Actor], UpgradeManyArgs]:
    index = node.install(Index)
    targets = [node.install(First, controllers=(index,)) for _ in numbers]
    for target, number in zip(targets, numbers, strict=True):
        target.set(number)
    module = node.build(Second)
    node.manage("cannery_module_add", module)
    args = UpgradeManyArgs(sha256(module).digest(), b"", [target.id for target in targets], False)
    return index, targets, args


def show(results: list[UpgradeResult]) -> list[tuple[Principal, str]]:
    return [(result.canister_id, result.outcome.tag) for result in results]


def test_a_hook_that_hangs_is_stopped_and_the_others_are_upgraded() -> None:
    with Node(config=ReplicaConfig(hook_cpu_ns_max=100_000_000)) as node:
        index, targets, args = make(node, [0, 2, 1, 3, 4])
        results = index.roll(args)
        assert [tag for _, tag in show(results)] == ["upgraded", "failed", "failed", "failed", "upgraded"]
        assert "0.1 s of CPU time" in results[1].outcome.failed.text
        assert results[1].outcome.failed.error_code == "IC0522"
        assert [target.get() for target in targets] == [10, 2, 1, 3, 14]


def test_a_crash_between_any_two_rounds_leads_to_the_same_answer() -> None:
    """Each operation of the batch's rounds crashes; whoever has no answer submits the same call again."""
    config = ReplicaConfig(work_count_max=2_000)
    with Node(FaultyStore(seed=5), config=config) as node:
        _, first = roll_with_crash(node, 0)
        expected, operations = first
    assert operations >= 6, "the batch takes several rounds"
    for operation in range(1, operations + 1):
        with Node(FaultyStore(seed=operation), config=config) as node:
            has_crashed, (answer, _) = roll_with_crash(node, operation)
            assert has_crashed
            assert answer == expected


def roll_with_crash(node: Node, operation: int) -> tuple[bool, tuple[list[tuple[Principal, str]], int]]:
    """Run a batch, with a crash at one of its operations; give the answer and the count of operations."""
    store = node.store
    assert isinstance(store, FaultyStore)
    index, targets, args = make(node, [0, 1, 3, 4, 5, 6])
    node.manage("stop_canister", CanisterIdRecord(targets[4].id))
    begun = store.operation_count
    arg = encoder((type_of(UpgradeManyArgs),))((args,))
    request_id, has_crashed = bytes(range(32)), False
    store.crash_at(begun + operation if operation else 0)
    for _ in range(3):
        try:
            ticket = node.submit_raw(index.id, "roll", arg, node.operator, request_id)
            node.run()
            answer = node.take_answer(ticket)
            break
        except Crashed:
            has_crashed = True
            node.restart()
    else:
        pytest.fail("it goes down again and again")
    operations = store.operation_count - begun
    assert answer is not None
    assert answer.reply is not None, answer.reject_message
    (results,) = decoder((type_of(list[UpgradeResult]),))(answer.reply)
    assert isinstance(results, list)
    assert index.answered() == 1
    node.manage("start_canister", CanisterIdRecord(targets[4].id))
    assert [target.get() for target in targets] == [10, 1, 3, 14, 15, 16]
    for space in (keys.UPGRADE_BATCHES, keys.UPGRADE_RESULTS, keys.QUEUES):
        assert list(store.scan(*keys.space_range(space))) == []
    return has_crashed, (show(results), operations)
