"""What a store that fails must not lead to: traps that stay, refusals of what runs, calls that run late."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cannery import Canister, Context, StableLog, StableMap, nat64, query, update
from cannery.errors import StoreError
from cannery.node.read_cache import ReadCache
from cannery.node.submitted import Durable, Refusing, Waiting
from cannery.testing import FaultyStore, MemoryStore, Node
from tests.node.test_service import ingress

MINUTE_NS = 60_000_000_000


class Notes(Canister):
    log = StableLog(nat64)
    kept = StableMap(nat64, nat64)

    @update
    def add(self, ctx: Context, number: nat64) -> nat64:
        return self.log.append(number)

    @update
    def swallow(self, ctx: Context) -> str:
        try:
            return str(self.kept.get(1))
        except Exception:
            return "nothing"

    @update
    def exhaust(self, ctx: Context) -> None:
        raise MemoryError

    @query
    def peek(self, ctx: Context) -> str:
        try:
            return str(self.kept.get(1))
        except Exception:
            return "nothing"


class DamagedStore(MemoryStore):
    """A store that cannot read some keys."""

    def __init__(self) -> None:
        super().__init__()
        self.is_damaged: Callable[[bytes], bool] = lambda key: False

    def get(self, key: bytes) -> bytes | None:
        if self.is_damaged(key):
            raise StoreError("cannot read: the store is damaged; restore a backup")
        return super().get(key)


def settle(node: Node) -> Durable:
    sync = node.subnet.begin_sync()
    assert sync is not None
    sync.run()
    return node.subnet.finish_sync(sync)


def test_a_read_error_is_no_answer_even_where_a_program_swallows_it() -> None:
    store = DamagedStore()
    with Node(store) as node:
        notes = node.install(Notes)
        sent = notes.swallow.submit()
        store.is_damaged = lambda key: key[0] == 4
        node.run()
        assert node.subnet.failure is not None
        assert not sent.is_answered
        store.is_damaged = lambda key: False
        assert node.recover()
        node.run()
        assert sent.result() == "None"


def test_a_query_that_swallows_a_read_error_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    with Node() as node:
        notes = node.install(Notes)

        def fail(key: bytes) -> bytes | None:
            if key[0] == 4:
                raise StoreError("cannot read: the store is damaged; restore a backup")
            return node.store.get(key)

        class Broken:
            get = staticmethod(fail)
            multi_get = node.store.multi_get
            scan = node.store.scan

            def close(self) -> None: ...

        monkeypatch.setattr(node.subnet._durable, "_cache", ReadCache(Broken()))
        with pytest.raises(StoreError, match="damaged"):
            notes.peek()


def test_memory_that_runs_out_in_a_program_is_a_verdict() -> None:
    with Node() as node:
        notes = node.install(Notes)
        sent = notes.exhaust.submit()
        node.subnet.run_round()
        executed = node.subnet._unsynced[-1]
        settle(node)
        assert len(executed.outcome.block.verdicts) == 1
        assert not sent.is_answered


def test_a_repeat_of_what_waits_is_not_refused_while_the_store_fails() -> None:
    store = FaultyStore()
    with Node(store) as node:
        notes = node.install(Notes)
        first = ingress(node, notes, 1)
        node.subnet.submit(first, "a")
        store.fail_at(store.operation_count + 1)
        node.subnet.run_round()
        assert node.subnet.failure is not None
        assert node.subnet.submit(first, "b") == Waiting(is_accepted=False)
        assert isinstance(node.subnet.submit(ingress(node, notes, 2), "c"), Refusing)
        path = (b"request_status", first.request_id, b"status")
        assert node.subnet.read(first.sender, (path,)) == (None,)
        assert node.recover()
        node.subnet.run_round()
        assert [ticket for ticket, _ in settle(node).settled] == ["a", "b"]


def test_what_survived_a_failed_sync_is_answered_however_long_the_failure_lasts() -> None:
    store = FaultyStore()
    with Node(store) as node:
        notes = node.install(Notes)
        call = ingress(node, notes, 1)
        node.subnet.submit(call, "a")
        store.fail_at(store.operation_count + 2)
        node.subnet.run_round()
        settle(node)
        assert node.subnet.failure is not None
        node.clock.set_ns(node.now_ns + 15 * MINUTE_NS)
        durable = node.subnet.recover()
        assert durable is not None
        ((ticket, answer),) = durable.settled
        assert ticket == "a"
        assert answer.reply is not None


def test_what_survived_a_sync_that_hung_is_answered_though_its_status_is_pruned() -> None:
    store = FaultyStore()
    with Node(store) as node:
        notes = node.install(Notes)
        call = ingress(node, notes, 1)
        node.subnet.submit(call, "a")
        node.subnet.run_round()
        hanging = node.subnet.begin_sync()
        assert hanging is not None
        node.clock.set_ns(node.now_ns + 15 * MINUTE_NS)
        # A later round prunes the status of what has expired, and does not become durable either.
        node.subnet.submit(ingress(node, notes, 2), "b")
        node.subnet.run_round()
        store.fail_at(store.operation_count + 1)
        hanging.run()
        assert node.subnet.finish_sync(hanging).settled == ()
        assert node.subnet.failure is not None
        durable = node.subnet.recover()
        assert durable is not None
        assert {ticket: answer.reply is not None for ticket, answer in durable.settled} == {
            "a": True,
            "b": True,
        }
        node.subnet.run_round()
        assert settle(node).settled == ()
