"""Migration: while groups move and clients go on, every answer is a plain dictionary's, and nobody waits
long.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal, limits
from cannery.candid.codec import value_decoder, value_encoder
from cannery.candid.python import type_of
from cannery.fleet.placement_census import Census, Child
from cannery.fleet.placement_migration import (
    Arrival,
    Chunk,
    ChunkRule,
    Departure,
    Forward,
    Group,
    Leg,
    Migration,
    MigrationError,
    Mover,
    Moving,
    Redirect,
    Serve,
    is_on_its_way,
    mover_of,
    plan_acknowledged,
    plan_arrival,
    plan_chunk,
    plan_drain,
    plan_refused,
    plan_route,
    plan_spill,
    plan_table_migration,
)
from cannery.fleet.placement_policy import BalancedLoad, FillFirst, LastNode, Policy
from cannery.fleet.placement_table import (
    AnchorTable,
    child_of,
    decode_table,
    make_table,
    plan_join,
    plan_part,
    plan_swap,
)

SEED = bytes(range(16))


def named(number: int) -> Principal:
    return Principal(bytes((number + 1, 1)))


def key(number: int) -> bytes:
    return b"%03d" % number


KEYS = [key(number) for number in range(60)]


def saved(value: object) -> object:
    """Write a record as a stable cell does, and read it back, as after a crash."""
    type_ = type_of(type(value))
    return value_decoder(type_)(value_encoder(type_)(value))


# a fleet of plain dictionaries on the real plans


@dataclass
class Bucket:
    """A canister in miniature: what it stores, and its records of legs."""

    id: Principal
    table: AnchorTable
    data: dict[bytes, int] = field(default_factory=dict)
    departures: list[tuple[Departure, Mover]] = field(default_factory=list)
    arrivals: list[tuple[Arrival, Mover]] = field(default_factory=list)
    is_stopped: bool = False

    def route(self, group: bytes, is_forwarded: bool) -> object:
        moving = Moving(tuple(self.departures), tuple(self.arrivals))
        owner = child_of(self.table, group)
        return plan_route(group, self.id, owner, moving, is_forwarded=is_forwarded)

    def groups_after(self, edge: bytes | None) -> list[Group]:
        return [Group(name) for name in sorted(self.data) if edge is None or name > edge]


class World:
    """Buckets with one migration under way; messages between two buckets arrive in the order in which they
    were sent, and nothing else is certain.
    """

    def __init__(self, before: AnchorTable, after: AnchorTable, seed: int) -> None:
        self.random = Random(seed)
        ids = {*before.children, *after.children}
        self.buckets = {id: Bucket(id, before) for id in sorted(ids)}
        self.model: dict[bytes, int] = {}
        self.wires: dict[tuple[Principal, Principal], deque[tuple[str, object]]] = {}
        self.migration = plan_table_migration(1, before, after)
        self.after = after
        self.before = before
        self.redirected_to: Principal | None = None

    def begin(self) -> None:
        before, after = decode_table(self.migration.before), decode_table(self.migration.after)
        for bucket in self.buckets.values():
            # News of the change reach some earlier than others.
            bucket.table = self.random.choice([before, after])
        for leg in self.migration.legs:
            moves = mover_of(leg, before, after)
            self.buckets[leg.source].departures.append((Departure(leg), moves))
            self.buckets[leg.target].arrivals.append((Arrival(leg), moves))

    # what happens in some order

    def send_chunk(self) -> None:
        bucket = self.random.choice(list(self.buckets.values()))
        for at, (departure, moves) in enumerate(bucket.departures):
            rule = ChunkRule(self.random.randint(1, 4), 10_000, self.random.randint(1, 9))
            step = plan_chunk(departure, bucket.groups_after(departure.passed), moves, rule)
            if step is None:
                continue
            data = {name: bucket.data[name] for name in step.chunk.names}
            bucket.departures[at] = (saved(step.departure), moves)  # type: ignore[assignment]
            wire = self.wires.setdefault((bucket.id, departure.leg.target), deque())
            wire.append(("chunk", (saved(step.chunk), data)))

    def deliver(self) -> None:
        waiting = sorted(pair for pair, wire in self.wires.items() if wire)
        if not waiting:
            return
        pair = self.random.choice(waiting)
        kind, content = self.wires[pair].popleft()
        source, target = (self.buckets[id] for id in pair)
        if kind == "chunk":
            self.take(source, target, *content)  # type: ignore[misc]
        else:
            self.settle(target, kind, content)

    def take(self, source: Bucket, target: Bucket, chunk: Chunk, data: dict[bytes, int]) -> None:
        back = self.wires.setdefault((target.id, source.id), deque())
        if target.is_stopped:
            back.append(("refused", chunk))
            return
        for at, (arrival, moves) in enumerate(target.arrivals):
            if arrival.leg == chunk.leg:
                step = plan_arrival(arrival, chunk)
                assert step.outcome == "take"
                assert not set(data) & set(target.data)
                target.data.update(data)
                target.arrivals[at] = (saved(step.arrival), moves)  # type: ignore[assignment]
                assert plan_arrival(step.arrival, chunk).outcome == "repeated"
        back.append(("taken", chunk))

    def settle(self, source: Bucket, kind: str, chunk: object) -> None:
        assert isinstance(chunk, Chunk)
        for at, (departure, moves) in enumerate(source.departures):
            if departure.leg != chunk.leg:
                continue
            if kind == "taken":
                for name in chunk.names:
                    del source.data[name]
                after = plan_acknowledged(departure, chunk.number)
                assert plan_acknowledged(after, chunk.number) == after
            else:
                after = plan_refused(departure, chunk.number)
                assert plan_refused(after, chunk.number) == after
            source.departures[at] = (saved(after), moves)  # type: ignore[assignment]

    def ask(self, group: bytes, value: int | None, at: Principal | None = None) -> bool:
        """Ask a child, as a client with the right map, a stale one or none does; tell whether it answered."""
        id = self.random.choice(list(self.buckets)) if at is None else at
        bucket, hops, self.redirected_to = self.buckets[id], 0, None
        while True:
            route = bucket.route(group, hops > 0)
            if isinstance(route, Forward):
                assert hops == 0, "passed on twice"
                hops += 1
                bucket = self.buckets[route.to]
                continue
            if isinstance(route, Serve):
                self.serve(bucket, group, value)
                return True
            assert isinstance(route, Redirect)
            self.redirected_to = route.to
            return False

    def follow(self, group: bytes, value: int | None) -> bool:
        """Ask the child that the last answer named."""
        return self.redirected_to is not None and self.ask(group, value, self.redirected_to)

    def serve(self, bucket: Bucket, group: bytes, value: int | None) -> None:
        assert bucket.data.get(group) == self.model.get(group), "an answer that the model does not give"
        if value is None:
            bucket.data.pop(group, None)
            self.model.pop(group, None)
        else:
            bucket.data[group] = value
            self.model[group] = value

    @property
    def is_over(self) -> bool:
        records = [d for b in self.buckets.values() for d, _ in b.departures]
        return all(departure.is_done for departure in records)

    def finish(self) -> None:
        for bucket in self.buckets.values():
            bucket.is_stopped = False
        for _ in range(20_000):
            if self.is_over:
                break
            self.send_chunk()
            self.deliver()
        assert self.is_over, "the migration does not end"
        for bucket in self.buckets.values():
            assert all(arrival.is_done for arrival, _ in bucket.arrivals)


@st.composite
def table_changes(draw: st.DrawFn) -> tuple[AnchorTable, AnchorTable]:
    count = draw(st.integers(2, 6))
    table = make_table(tuple(map(named, range(count))), capacity=9, seed=SEED)
    if draw(st.booleans()):
        table = plan_part(table, draw(st.sampled_from(table.children)))
    how = draw(st.sampled_from(["join", "part", "swap"]))
    if how == "part" and len(table.children) > 1:
        return table, plan_part(table, draw(st.sampled_from(table.children)))
    if how == "swap":
        return table, plan_swap(table, draw(st.sampled_from(table.children)), named(50))
    return table, plan_join(table, named(50))


@given(table_changes(), st.integers(0, 2**32), st.integers(0, 150))
@settings(max_examples=120)
def test_clients_see_a_dictionary_whatever_moves_below_them(
    change: tuple[AnchorTable, AnchorTable], seed: int, steps: int
) -> None:
    before, after = change
    world = World(before, after, seed)
    for group in world.random.sample(KEYS, 30):
        assert world.ask(group, 0, child_of(before, group))
    world.begin()
    for value in range(1, steps):
        act = world.random.randrange(10)
        if act < 2:
            world.send_chunk()
        elif act < 4:
            world.deliver()
        elif act == 4:
            bucket = world.random.choice(list(world.buckets.values()))
            bucket.is_stopped = not bucket.is_stopped
        elif act == 5:
            world.ask(world.random.choice(KEYS), None)
        elif act == 6:
            while any(world.wires.values()):
                world.deliver()
            # Nothing is on its way: whoever is asked answers, or names who does.
            group = world.random.choice(KEYS)
            assert world.ask(group, value) or world.follow(group, value)
        else:
            world.ask(world.random.choice(KEYS), value)
    world.finish()
    stored = [(name, value) for bucket in world.buckets.values() for name, value in bucket.data.items()]
    assert len(stored) == len(world.model), "something stands twice"
    assert dict(stored) == world.model
    for bucket in world.buckets.values():
        for name in bucket.data:
            assert child_of(after, name) == bucket.id
        bucket.table, bucket.departures, bucket.arrivals = after, [], []
    for number, group in enumerate(KEYS):
        assert world.ask(group, number)


@given(table_changes(), st.integers(0, 2**32))
@settings(max_examples=60)
def test_the_legs_move_exactly_the_keys_that_change_their_child(
    change: tuple[AnchorTable, AnchorTable], seed: int
) -> None:
    before, after = change
    migration = plan_table_migration(7, before, after)
    movers = [(leg, mover_of(leg, before, after)) for leg in migration.legs]
    for group in KEYS:
        old, new = child_of(before, group), child_of(after, group)
        hit = [(leg.source, leg.target) for leg, moves in movers if moves(group)]
        assert hit == ([(old, new)] if old != new else [])


def test_two_changes_at_once_are_refused() -> None:
    table = make_table(tuple(map(named, range(4))), capacity=9, seed=SEED)
    twice = plan_join(plan_join(table, named(8)), named(9))
    replaced = plan_join(plan_part(table, named(0)), named(8))
    assert len(plan_table_migration(1, table, replaced).legs) == 1
    for other in (table, twice, make_table(table.children, capacity=9, seed=bytes(16))):
        with pytest.raises(MigrationError, match="one child"):
            plan_table_migration(1, table, other)
    with pytest.raises(MigrationError, match="decode"):
        mover_of(plan_table_migration(1, table, replaced).legs[0])


# single steps

LEG = Leg(1, named(0), named(1))


def groups(*names: bytes, size: int = 10) -> list[Group]:
    return [Group(name, 1, size) for name in names]


def test_chunks_are_cut_by_count_by_bytes_and_by_what_is_looked_at() -> None:
    all_of = groups(*KEYS[:10])

    def names(rule: ChunkRule, moves: Mover) -> tuple[list[bytes], bytes | None, bool]:
        step = plan_chunk(Departure(LEG), all_of, moves, rule)
        assert step is not None
        return step.chunk.names, step.chunk.through, step.chunk.is_last

    assert names(ChunkRule(3), lambda _: True) == (KEYS[:3], KEYS[2], False)
    assert names(ChunkRule(9, 25), lambda _: True) == (KEYS[:2], KEYS[1], False)
    assert names(ChunkRule(9, 5), lambda _: True) == (KEYS[:1], KEYS[0], False)
    assert names(ChunkRule(9, 100, 4), lambda name: name == KEYS[1]) == (KEYS[1:2], KEYS[3], False)
    assert names(ChunkRule(9, 100, 4), lambda _: False) == ([], KEYS[3], False)
    assert names(ChunkRule(3), lambda name: name < KEYS[3]) == (KEYS[:3], KEYS[9], True)
    assert names(ChunkRule(10), lambda _: True) == (KEYS[:10], KEYS[9], True)
    with pytest.raises(MigrationError, match="in the order"):
        plan_chunk(Departure(LEG, passed=KEYS[4]), all_of, lambda _: True)
    for bad in (
        {"group_count_max": 0},
        {"scan_count_max": limits.CHUNK_SCAN_COUNT_MAX + 1},
        {"size_bytes_max": 0},
    ):
        with pytest.raises(ValueError):
            ChunkRule(**bad)


def test_one_chunk_is_on_its_way_at_a_time() -> None:
    step = plan_chunk(Departure(LEG), groups(*KEYS), lambda _: True, ChunkRule(5))
    assert step is not None
    assert is_on_its_way(step.departure)
    assert plan_chunk(step.departure, groups(*KEYS), lambda _: True) is None
    with pytest.raises(MigrationError, match="was not sent"):
        plan_acknowledged(Departure(LEG), 0)
    with pytest.raises(MigrationError, match="was not sent"):
        plan_acknowledged(step.departure, 1)
    taken = plan_acknowledged(step.departure, 0)
    assert (taken.passed, taken.chunk, taken.is_done) == (KEYS[4], 1, False)
    last = plan_chunk(taken, groups(*KEYS[5:]), lambda _: True)
    assert last is not None
    done = plan_acknowledged(last.departure, 1)
    assert done.is_done
    assert plan_chunk(done, [], lambda _: True) is None


def test_the_target_takes_each_chunk_once_and_in_order() -> None:
    chunks = [Chunk(LEG, n, [KEYS[n]], KEYS[n], n == 2) for n in range(3)]
    arrival = Arrival(LEG)
    with pytest.raises(MigrationError, match="comes where 0 should"):
        plan_arrival(arrival, chunks[1])
    with pytest.raises(MigrationError, match="another leg"):
        plan_arrival(arrival, Chunk(Leg(1, named(5), named(1)), 0, [], None, True))
    for chunk in chunks:
        step = plan_arrival(arrival, chunk)
        assert step.outcome == "take"
        arrival = step.arrival
        assert plan_arrival(arrival, chunk).outcome == "repeated"
    assert arrival.is_done
    with pytest.raises(MigrationError):
        plan_arrival(arrival, Chunk(LEG, 3, [], None, True))
    with pytest.raises(MigrationError):
        plan_arrival(Arrival(LEG, 1, KEYS[0]), Chunk(LEG, 0, [KEYS[5]], KEYS[5], False))


# ranges, for policies with a directory


@st.composite
def drains(draw: st.DrawFn) -> tuple[Census, list[Group]]:
    weights = draw(st.lists(st.integers(1, 4), max_size=12))
    own = [Group(key(number), weight) for number, weight in enumerate(weights)]
    used = sum(weights)
    others = draw(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=5))
    children = [Child(named(0), 99, used), *(Child(named(n), *f) for n, f in enumerate(others, 1))]
    return Census(tuple(children)), own


@given(drains(), st.sampled_from([FillFirst(), BalancedLoad(), LastNode()]))
@settings(max_examples=200)
def test_a_drained_child_gives_each_group_whole_to_one_that_has_room(
    drain: tuple[Census, list[Group]], policy: Policy
) -> None:
    census, own = drain
    migration = plan_drain(3, policy, census, named(0), own)
    rest = census.without(named(0))
    total = sum(group.slots for group in own)
    if migration is None:
        assert any(group.slots > 1 for group in own) or rest.free_slots < total
        return
    movers = [(leg, mover_of(leg)) for leg in migration.legs]
    got: dict[Principal, int] = {}
    for group in own:
        (leg,) = [leg for leg, moves in movers if moves(group.name)]
        got[leg.target] = got.get(leg.target, 0) + group.slots
    for target, slots in got.items():
        free = rest.child(target).capacity_slots - rest.child(target).used_slots
        assert slots <= free
    if own:
        for stranger in (b"", b"000a", b"\xff" * 9):
            assert len([leg for leg, moves in movers if moves(stranger)]) == 1


def test_the_last_node_alone_gives_what_it_has_too_much() -> None:
    migration = plan_spill(4, named(0), named(1), groups(*KEYS[:8]), keep_slots=5)
    assert migration.legs == [Leg(4, named(0), named(1), KEYS[5])]
    moves = mover_of(migration.legs[0])
    assert [name for name in KEYS[:8] if moves(name)] == KEYS[5:8]
    assert plan_spill(4, named(0), named(1), groups(*KEYS[:5]), keep_slots=5).legs == []
    with pytest.raises(MigrationError, match="each once"):
        plan_spill(4, named(0), named(1), groups(KEYS[1], KEYS[1]), keep_slots=9)


def test_with_a_directory_who_holds_a_group_answers_and_else_the_index() -> None:
    me, other = named(1), named(0)
    leg = Leg(1, other, me, b"b", b"m")
    arriving = Moving(arrivals=((Arrival(leg, 1, b"d"), mover_of(leg)),))
    assert plan_route(b"c", me, me, arriving) == Serve()
    assert plan_route(b"c", me, None, arriving) == Redirect(None)
    assert plan_route(b"e", me, None, arriving) == Forward(other)
    assert plan_route(b"e", me, None, arriving, is_forwarded=True) == Redirect(other)
    assert plan_route(b"e", me, me, arriving) == Serve()
    assert plan_route(b"z", me, None, arriving) == Redirect(None)
    leaving = Moving(departures=((Departure(leg, 1, b"d"), mover_of(leg)),))
    assert plan_route(b"c", other, None, leaving) == Forward(me)
    assert plan_route(b"c", other, None, leaving, is_forwarded=True) == Redirect(me)
    assert plan_route(b"e", other, other, leaving) == Serve()
    assert plan_route(b"e", other, None, leaving) == Redirect(None)


def test_records_are_kept_as_they_are() -> None:
    migration = Migration(1, b"x", b"y", [LEG, Leg(2, named(3), named(4), b"a", b"b", True)])
    assert saved(migration) == migration
    for record in (
        Departure(LEG, 3, b"a", b"b"),
        Arrival(LEG, 2, None, True),
        Chunk(LEG, 0, [b"a"], None, True),
    ):
        assert saved(record) == record
