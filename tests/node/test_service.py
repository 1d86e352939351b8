"""The round loop: nothing leaves before its sync, order is kept, time rises, bounds hold, restarts go on."""

from __future__ import annotations

import pytest

from cannery import Canister, Context, StableLog, nat64, query, update
from cannery.client.errors import Rejected
from cannery.limits import POOL_COUNT_MAX
from cannery.node.pool import IngressPool
from cannery.node.service import Subnet
from cannery.node.submitted import Durable, Known, Refusing, Waiting
from cannery.node.subnet_doors import SubnetLimits
from cannery.replica.block import Ingress
from cannery.testing import Actor, FaultyStore, Node


class Numbers(Canister):
    log = StableLog(nat64)

    @update
    def add(self, ctx: Context, number: nat64) -> nat64:
        return self.log.append(number)

    @query
    def all(self, ctx: Context) -> list[nat64]:
        return [number for _, number in self.log.page(limit=1000).items]


def ingress(node: Node, canister: Actor, number: int, request: int | None = None) -> Ingress:
    arg = canister.add._shape.encode_args((number,))
    request_id = (number if request is None else request).to_bytes(32, "big")
    return Ingress(request_id, node.operator.raw, canister.id.raw, "add", arg, node.now_ns + 10**11)


def sync(subnet: Subnet) -> Durable:
    found = subnet.begin_sync()
    assert found is not None
    found.run()
    return subnet.finish_sync(found)


def test_nothing_leaves_before_the_sync_that_covers_it_and_order_is_kept() -> None:
    store = FaultyStore()
    with Node(store) as node:
        canister = node.install(Numbers)
        subnet = node.subnet
        subnet.submit(ingress(node, canister, 1), "one")
        subnet.run_round()
        first = subnet.begin_sync()
        assert first is not None
        subnet.submit(ingress(node, canister, 2), "two")
        assert subnet.is_ready()
        subnet.run_round()
        assert not subnet.is_ready(), "only so many rounds may wait for their sync"
        assert subnet.begin_sync() is None, "one sync at a time"
        assert canister.all() == [], "queries see durable rounds alone"
        first.run()
        durable = subnet.finish_sync(first)
        assert [ticket for ticket, _ in durable.settled] == ["one"]
        assert canister.all() == [1]
        assert [ticket for ticket, _ in sync(subnet).settled] == ["two"]
        assert canister.all() == [1, 2]


def test_one_sync_covers_all_rounds_before_it() -> None:
    with Node(limits=SubnetLimits(unsynced_round_count_max=3, block_input_count_max=2)) as node:
        canister = node.install(Numbers)
        for number in range(6):
            node.subnet.submit(ingress(node, canister, number), number)
        while node.subnet.is_ready():
            node.subnet.run_round()
        assert [ticket for ticket, _ in sync(node.subnet).settled] == [0, 1, 2, 3, 4, 5]


def test_a_repeated_request_joins_the_first_and_then_gets_its_answer() -> None:
    with Node() as node:
        canister = node.install(Numbers)
        subnet = node.subnet
        assert subnet.submit(ingress(node, canister, 5), "a") == Waiting(is_accepted=False)
        assert subnet.submit(ingress(node, canister, 5), "b") == Waiting(is_accepted=False)
        subnet.run_round()
        assert subnet.submit(ingress(node, canister, 5), "c") == Waiting(is_accepted=False)
        settled = sync(subnet).settled
        assert [ticket for ticket, _ in settled] == ["a", "b", "c"]
        known = subnet.submit(ingress(node, canister, 5), "d")
        assert isinstance(known, Known)
        assert known.answer == settled[0][1]
        node.restart()
        assert isinstance(node.subnet.submit(ingress(node, canister, 5), "e"), Known)
        assert canister.all() == [5]


def test_time_rises_over_clock_steps_and_restarts() -> None:
    with Node() as node:
        canister = node.install(Numbers)
        times = [node.subnet.head.time_ns]
        for step in (10**9, -(10**15), 0, 5):
            node.clock.set_ns(node.now_ns + step)
            node.subnet.submit(ingress(node, canister, len(times)), None)
            node.subnet.run_round()
            sync(node.subnet)
            times.append(node.subnet.head.time_ns)
            assert node.subnet.time_ns >= times[-1]
        node.clock.set_ns(1)
        node.restart()
        times.append(node.subnet.head.time_ns)
        assert times == sorted(set(times))


def test_a_clock_that_was_ahead_and_was_set_back_is_named() -> None:
    with Node() as node:
        canister = node.install(Numbers)
        before_ns = node.now_ns
        node.advance(seconds=86_400)
        assert canister.as_("ann").add(1) == 0
        node.clock.set_ns(before_ns)
        submitted = node.subnet.submit(ingress(node, canister, 7), None)
        assert isinstance(submitted, Refusing)
        assert "s behind its last block" in submitted.reject.message
        node.clock.set_ns(node.subnet.head.time_ns)
        assert canister.as_("ann").add(2) == 1


def test_a_full_pool_and_an_oversized_block() -> None:
    with Node(limits=SubnetLimits(block_input_count_max=50, block_input_size_bytes_max=100)) as node:
        canister = node.install(Numbers)
        pool = IngressPool()
        large = ingress(node, canister, 1)
        big = Ingress(b"b" * 32, large.sender, large.canister_id, "add", bytes(500), large.expiry_ns)
        pool.add(big, None)
        pool.add(large, None)
        assert pool.take(50, 100) == (big,), "a message larger than a block comes alone"
        assert pool.take(50, 100) == (large,)
        pool.put_back((big, large))
        assert pool.take(50, 1_000) == (big, large)
        for number in range(POOL_COUNT_MAX):
            node.subnet._pool.add(ingress(node, canister, 0, number + 10**6), None)
        refused = node.subnet.submit(ingress(node, canister, 7), None)
        assert isinstance(refused, Refusing)
        assert "busy" in refused.reject.message


def test_refusals_can_be_read_by_their_sender_alone() -> None:
    with Node() as node:
        canister = node.install(Numbers)
        request_id = bytes(range(32))
        with pytest.raises(Rejected, match="nope"):
            node.submit_raw(canister.id, "nope", b"DIDL\x00\x00", node.operator, request_id)
        leaves = (b"status", b"reject_code", b"reply")
        paths = tuple((b"request_status", request_id, leaf) for leaf in leaves)
        values = node.subnet.read(node.operator.raw, paths)
        assert isinstance(values, tuple)
        assert values[0] == b"rejected"
        assert values[1] in (b"\x03", b"\x05")
        assert values[2] is None
        assert node.subnet.read(node.principal("bob").raw, paths) == (None, None, None)


def test_a_failed_write_puts_the_messages_back() -> None:
    for operation in (1, 2):
        store = FaultyStore()
        with Node(store) as node:
            canister = node.install(Numbers)
            store.fail_at(store.operation_count + operation)
            sent = [canister.add.submit(number) for number in range(3)]
            node.run()
            assert node.subnet.failure is not None
            assert canister.all() == []
            assert node.recover()
            node.run()
            assert [one.result() for one in sent] == [0, 1, 2]
            assert canister.all() == [0, 1, 2]


def test_little_room_on_the_disk_stops_updates_before_the_store_fails() -> None:
    room = [2**40]
    with Node() as node:
        canister = node.install(Numbers)
        doors = node.subnet._doors
        object.__setattr__(doors, "free_bytes", lambda: room[0])
        canister.add(1)
        waiting = canister.add.submit(2)
        room[0] = 1000
        with pytest.raises(Rejected, match=r"disk is full.*make room"):
            canister.add(3)
        node.run()
        assert node.subnet.failure is not None
        with pytest.raises(Rejected, match=r"disk is full.*make room"):
            canister.add(3)
        assert canister.all() == [1]
        assert not node.recover()
        room[0] = 2**40
        assert node.recover()
        node.run()
        assert waiting.result() == 1


def test_what_has_run_is_answered_while_the_disk_is_full_and_is_not_remembered_as_refused() -> None:
    room = [2**40]
    with Node() as node:
        canister = node.install(Numbers)
        object.__setattr__(node.subnet._doors, "free_bytes", lambda: room[0])
        sent = ingress(node, canister, 1)
        assert isinstance(node.subnet.submit(sent, "lost"), Waiting)
        node.subnet.run_round()
        sync(node.subnet)
        room[0] = 1000
        again = node.subnet.submit(sent, "again")
        assert isinstance(again, Known)
        assert again.answer.reply is not None
        # Once its status is pruned, who polls finds nothing, and above all no refusal.
        room[0] = 2**40
        node.advance(seconds=700)
        canister.add(2)
        assert node.subnet.read(node.operator.raw, ((b"request_status", sent.request_id, b"status"),)) == (
            None,
        )
