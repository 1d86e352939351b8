"""No call leaves garbage in cycles: the collector, which stops the whole subnet, then has nothing to do."""

from __future__ import annotations

import gc
from collections.abc import Callable

import pytest

from cannery import Canister, Context, StableCell, controller, nat64, query, update
from cannery.node.submitted import Refusing, Waiting
from cannery.replica.block import Ingress
from cannery.replica.queries import Query
from cannery.testing import Actor, Node

CALLS = 20
NO_ARGUMENTS = b"DIDL\x00\x00"


class Door(Canister):
    """Answer, refuse and fail in every way."""

    count = StableCell(nat64, 0)

    @update(only=controller)
    def guarded(self, ctx: Context) -> None:
        """Let controllers in."""

    @update
    def count_up(self, ctx: Context) -> nat64:
        """Count."""
        self.count.set(self.count.get() + 1)
        return self.count.get()

    @update
    def refuse(self, ctx: Context) -> None:
        """Refuse after a write."""
        self.count.set(self.count.get() + 1)
        ctx.reject("no")

    @update
    def trap(self, ctx: Context) -> None:
        """Fail after a write."""
        self.count.set(self.count.get() + 1)
        raise ValueError("a bug")

    @query
    def look(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()

    @query
    def look_away(self, ctx: Context) -> nat64:
        """Refuse to give the count."""
        ctx.reject("no")

    @query
    def look_wrong(self, ctx: Context) -> nat64:
        """Fail to give the count."""
        raise ValueError("a bug")


def _cyclic_garbage(call: Callable[[int], None]) -> int:
    """Count the objects that only the collector could free after some calls."""
    for i in range(CALLS):
        call(i)
    gc.collect()
    gc.disable()
    try:
        for i in range(CALLS, 2 * CALLS):
            call(i)
        return gc.collect()
    finally:
        gc.enable()


def _ingress(node: Node, door: Actor, method: str, i: int) -> Ingress:
    stranger = node.principal("bob")
    return Ingress(
        i.to_bytes(32, "big"), stranger.raw, door.id.raw, method, NO_ARGUMENTS, node.now_ns + 60_000_000_000
    )


@pytest.mark.parametrize("method", ["count_up", "refuse", "trap"])
def test_an_executed_call_leaves_no_cycles(method: str) -> None:
    with Node() as node:
        door = node.install(Door)

        def call(i: int) -> None:
            assert isinstance(node.subnet.submit(_ingress(node, door, method, i), None), Waiting)
            node.subnet.run_round()
            sync = node.subnet.begin_sync()
            assert sync is not None
            sync.run()
            assert node.subnet.finish_sync(sync).settled

        assert _cyclic_garbage(call) == 0


@pytest.mark.parametrize("method", ["guarded", "no_such_method"])
def test_a_refused_call_leaves_no_cycles(method: str) -> None:
    with Node() as node:
        door = node.install(Door)

        def call(i: int) -> None:
            assert isinstance(node.subnet.submit(_ingress(node, door, method, i), None), Refusing)

        assert _cyclic_garbage(call) == 0


@pytest.mark.parametrize("method", ["look", "look_away", "look_wrong", "no_such_method"])
def test_a_query_leaves_no_cycles(method: str) -> None:
    with Node() as node:
        door = node.install(Door)
        stranger = node.principal("bob")

        def call(i: int) -> None:
            query = Query(i.to_bytes(32, "big"), stranger.raw, door.id.raw, method, NO_ARGUMENTS)
            result = node.subnet.query(query)
            assert (result.reject is None) == (method == "look")

        assert _cyclic_garbage(call) == 0
