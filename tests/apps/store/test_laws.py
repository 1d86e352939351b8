"""Laws: whatever is put, got, deleted and found, by whomever, while buckets come and go, roles change and the
node crashes, the store answers as a plain dictionary does."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from cannery.testing import Crashed, FaultyStore, Rejected
from tests.apps.store.world import StoreWorld

PEOPLE = ("ann", "bob", "cid")
TAGS = ("red", "blue", "ru\u0308n \U0001f600")
KEYS = tuple(f"k/{number}" for number in range(10))


@dataclass(frozen=True)
class Kept:
    """What the model knows of an entry."""

    owner: str
    value: bytes
    tags: frozenset[str]
    private: bool
    readers: frozenset[str]
    at: int


class Model:
    """A plain dictionary of entries, and who moderates."""

    def __init__(self) -> None:
        self.entries: dict[str, Kept] = {}
        self.moderators: set[str] = set()
        self.clock = 0

    def sees(self, who: str, key: str) -> bool:
        entry = self.entries.get(key)
        return entry is not None and (
            not entry.private or who == entry.owner or who in entry.readers or who in self.moderators
        )

    def put(self, who: str, key: str, kept: Kept) -> str:
        if key in self.entries and self.entries[key].owner != who:
            return "refused"
        self.entries[key] = kept
        return "ok"

    def may_delete(self, who: str, key: str) -> str:
        if not self.sees(who, key):
            return "absent"
        return "ok" if who == self.entries[key].owner or who in self.moderators else "refused"

    def find(self, who: str, tags: tuple[str, ...]) -> list[str]:
        seen = [key for key in self.entries if self.sees(who, key)]
        having = [key for key in seen if self.entries[key].tags.issuperset(tags)]
        return sorted(having, key=lambda key: self.entries[key].at, reverse=True)


people = st.sampled_from(PEOPLE)
keys = st.sampled_from(KEYS)
tags = st.sets(st.sampled_from(TAGS)).map(lambda chosen: tuple(sorted(chosen)))
puts = st.tuples(
    st.just("put"), people, keys, st.binary(max_size=40), tags, st.booleans(), st.sets(people).map(tuple)
)
steps = st.lists(
    st.one_of(
        puts,
        puts,
        puts,
        st.tuples(st.just("delete"), people, keys),
        st.tuples(st.just("moderate"), people, st.booleans()),
        st.tuples(st.just("slots"), st.integers(3, 12)),
        st.tuples(st.just("drain"), st.integers(0, 9)),
        st.tuples(st.just("rounds"), st.integers(1, 9)),
        st.tuples(st.just("wait"), st.integers(1, 9)),
        st.tuples(st.just("crash"), st.integers(1, 30)),
        st.tuples(st.just("look"), people, tags),
    ),
    min_size=8,
    max_size=25,
)


class Law:
    """A store beside its model."""

    def __init__(self, subnets: int) -> None:
        self.disks = [FaultyStore(seed=3 + number) for number in range(subnets)]
        self.world = StoreWorld(self.disks, slots=6, subnets=subnets)
        self.model = Model()

    def run(self, step: tuple[object, ...]) -> None:
        while True:
            try:
                self._run(*step)
                return
            except Crashed:
                # Whoever got no answer asks again; what was half done is done once.
                if len(self.disks) == 1:
                    self.world.node.restart()
                for number, disk in enumerate(self.disks):
                    if disk.is_crashed:
                        self.world.node.restart_subnet(number)

    def _run(self, name: object, *args: object) -> None:
        world, model = self.world, self.model
        match name, args:
            case "put", (str(who), str(key), bytes(value), tuple(tags), bool(private), tuple(readers)):
                result = world.put(who, key, value, tags, private=private, readers=readers)
                model.clock += 1
                kept = Kept(who, value, frozenset(tags), private, frozenset(readers), model.clock)
                assert result.tag == model.put(who, key, kept)
            case "delete", (str(who), str(key)):
                # A deletion that a crash hid was done: asked again, nothing is there.
                wanted = model.may_delete(who, key)
                assert world.delete(who, key) in (wanted, "absent")
                if wanted == "ok":
                    del model.entries[key]
            case "moderate", (str(who), bool(is_given)):
                world.role("moderator", who, is_given=is_given)
                (model.moderators.add if is_given else model.moderators.discard)(who)
            case "slots", (int(slots),):
                world.configure(bucket_slots=slots)
            case "drain", (int(number),):
                buckets = world.buckets
                with suppress(Rejected):  # the last one, or one that is only being filled
                    world.index.place_drain(buckets[number % len(buckets)])
            case "rounds", (int(count),):
                for _ in range(count):
                    world.node.step()
            case "wait", (int(seconds),):
                world.node.advance(seconds=seconds)
            case "crash", (int(operations),):
                disk = self.disks[operations % len(self.disks)]
                disk.crash_at(disk.operation_count + operations)
            case "look", (str(who), tuple(tags)):
                self.look(who, tags)

    def look(self, who: str, tags: tuple[str, ...]) -> None:
        world, model = self.world, self.model
        assert world.keys(who, *tags) == model.find(who, tags)
        for key in KEYS:
            wanted = model.entries[key].value if model.sees(who, key) else None
            assert world.get(who, key) == wanted

    def end(self) -> None:
        for disk in self.disks:
            disk.crash_at(0)
        self.world.settle()
        self.run(("look", "bob", ()))
        for who in PEOPLE:
            found = self.world.index.as_(who).sum([], None)
            assert (found.count, found.is_exact) == (len(self.model.find(who, ())), True)
        sizes = [len(kept.value) for kept in self.model.entries.values()]
        stats = self.world.index.stats()
        assert (stats.count, stats.size_bytes) == (len(sizes), sum(sizes))
        self.world.node.close()


@pytest.mark.parametrize("subnets", [1, 2])
@settings(
    max_examples=15,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(steps=steps)
@example(
    steps=[("put", "ann", key, b"v", ("red",), False, ()) for key in KEYS] + [("drain", 0), ("crash", 9)]
)
def test_a_store_answers_as_a_dictionary_does(subnets: int, steps: list[tuple[object, ...]]) -> None:
    law = Law(subnets)
    for step in steps:
        law.run(step)
    law.end()


@pytest.mark.parametrize("subnets", [1, 2])
def test_a_read_runs_no_round_and_calls_nobody(subnets: int) -> None:
    world = StoreWorld(slots=6, subnets=subnets)
    for key in KEYS:
        world.put("ann", key, b"v", ("red",), private=True)
    world.settle()
    assert len(world.buckets) > 1
    assert len({world.subnet_of(bucket) for bucket in world.buckets}) == subnets
    before = [subnet.head.number for subnet in world.node.subnets]
    assert world.keys("ann", "red") == list(reversed(KEYS))
    assert [world.get("ann", key) for key in KEYS] == [b"v"] * len(KEYS)
    assert world.keys("bob", "red") == []
    assert [world.get("bob", key) for key in KEYS] == [None] * len(KEYS)
    assert [subnet.head.number for subnet in world.node.subnets] == before
