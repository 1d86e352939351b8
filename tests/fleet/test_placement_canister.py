"""An index keeps what placement gives it: records in cells and maps, the table as bytes."""

from __future__ import annotations

from cannery import Canister, Context, Principal, StableCell, StableMap, nat32, query, update
from cannery.fleet.placement import (
    UNLOCKED,
    Census,
    Child,
    Departure,
    Leg,
    ScaleState,
    SpawnLock,
    SpawnRule,
    child_of,
    decode_table,
    encode_table,
    make_table,
    plan_join,
    plan_spawn,
)
from cannery.testing import Node


class Index(Canister):
    """Keeps a census, a table, a lock, the state of scaling and a leg."""

    children = StableMap(nat32, Child, counted=True)
    table = StableCell(bytes, b"")
    lock = StableCell(SpawnLock, UNLOCKED)
    scale = StableCell(ScaleState, ScaleState())
    legs = StableMap(nat32, Departure)

    @update
    def join(self, ctx: Context, id: Principal) -> None:
        """Take a child in."""
        data = self.table.get()
        if data:
            table = plan_join(decode_table(data), id)
        else:
            table = make_table((id,), capacity=100, seed=ctx.random_bytes(16))
        self.table.set(encode_table(table))
        self.legs.put(0, Departure(Leg(1, ctx.id, id)))
        self.scale.set(ScaleState(ctx.now_ns))
        self.children.put(len(self.children), Child(id, 20))
        census = Census(tuple(self.children.values()))
        self.lock.set(plan_spawn(SpawnRule(60, 20), self.lock.get(), census, ctx.now_ns).lock)

    @query
    def where(self, ctx: Context, group: bytes) -> Principal:
        """Name the child of a group."""
        return child_of(decode_table(self.table.get()), group)

    @query
    def spawning(self, ctx: Context) -> SpawnLock:
        """Show the lock."""
        return self.lock.get()


def test_an_index_keeps_placement_over_a_restart() -> None:
    with Node() as node:
        index = node.install(Index)
        ids = [Principal.opaque(bytes((number,))) for number in range(3)]
        for id in ids:
            index.join(id)
        groups = [b"group %d" % number for number in range(40)]
        places = [index.where(group) for group in groups]
        assert set(places) == set(ids)
        node.restart()
        assert [index.where(group) for group in groups] == places
        assert [hold.number for hold in index.spawning().holds] == [0]
