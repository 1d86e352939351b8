"""Placement by a list: FillFirst, BalancedLoad and LastNode behind `Place`. New groups go where the policy
says, what grows and shrinks moves what it says, groups stay together, and nothing is lost."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cannery.protocol.principal import Principal
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Crashed, FaultyStore, Rejected
from tests.fleet.desk_world import DeskWorld

POLICIES = ("BalancedLoad", "FillFirst", "LastNode")
PEOPLE = tuple(f"p{number}" for number in range(6))
PAPERS = ("a", "b", "c")

people, papers = st.sampled_from(PEOPLE), st.sampled_from(PAPERS)
steps = st.lists(
    st.one_of(
        st.tuples(st.just("put"), people, papers),
        st.tuples(st.just("put"), people, papers),
        st.tuples(st.just("put"), people, papers),
        st.tuples(st.just("drop"), people, papers),
        st.tuples(st.just("slots"), st.integers(3, 9)),
        st.tuples(st.just("policy"), st.sampled_from(POLICIES)),
        st.tuples(st.just("grow")),
        st.tuples(st.just("drain"), st.integers(0, 9)),
        st.tuples(st.just("stop"), st.integers(0, 9), st.integers(1, 5)),
        st.tuples(st.just("rounds"), st.integers(1, 9)),
        st.tuples(st.just("crash"), st.integers(1, 30)),
    ),
    min_size=10,
    max_size=30,
)


class Law:
    """A desk beside a plain dictionary."""

    def __init__(self, policy: str, subnets: int) -> None:
        self.disks = [FaultyStore(seed=5 + number) for number in range(subnets)]
        self.world = DeskWorld(policy, self.disks, slots=5)
        self.model: dict[tuple[str, str], str] = {}
        self.count = 0
        self.stopped: Principal | None = None

    def run(self, step: tuple[object, ...]) -> None:
        while True:
            try:
                self._run(*step)
                return
            except Crashed:
                for number, disk in enumerate(self.disks):
                    if disk.is_crashed:
                        self.world.node.restart_subnet(number)

    def _run(self, name: object, *args: object) -> None:
        world = self.world
        match name, args:
            case "put", (str(person), str(paper)):
                self.count += 1
                world.put(person, paper, f"text {self.count}")
                self.model[person, paper] = f"text {self.count}"
            case "drop", (str(person), str(paper)):
                world.put(person, paper, None)
                self.model.pop((person, paper), None)
            case ("slots" | "policy") as value, (setting,):
                world.configure(**{value: setting})  # type: ignore[arg-type]  # int | str
            case "grow", ():
                world.desk.place_grow()
            case "drain", (int(number),):
                with suppress(Rejected):  # the last one
                    world.desk.place_drain(world.drawers[number % len(world.drawers)])
            case "stop", (int(number), int(seconds)):
                self.stopped = self.stopped or world.drawers[number % len(world.drawers)]
                with suppress(Rejected):  # it is being deleted
                    world.node.manage("stop_canister", CanisterIdRecord(self.stopped))
                    world.node.advance(seconds=seconds)
                    world.node.manage("start_canister", CanisterIdRecord(self.stopped))
                self.stopped = None
            case "rounds", (int(count),):
                for _ in range(count):
                    world.node.step()
            case "crash", (int(operations),):
                disk = self.disks[operations % len(self.disks)]
                disk.crash_at(disk.operation_count + operations)
        if self.count % 3 == 0:
            self.look()

    def look(self) -> None:
        for person in PEOPLE:
            for paper in PAPERS:
                assert self.world.get(person, paper) == self.model.get((person, paper))

    def end(self) -> None:
        for disk in self.disks:
            disk.crash_at(0)
        world = self.world
        world.settle()
        self.look()
        held = world.held()
        everybody = [person for drawer in held.values() for person in drawer]
        assert sorted(everybody) == sorted({person for person, _ in self.model}), "each in one drawer, once"
        for drawer, names in held.items():
            assert all(world.desk.where(person) == drawer for person in names)
        world.node.close()


@pytest.mark.parametrize("policy", POLICIES)
@settings(
    max_examples=12,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
)
@given(subnets=st.integers(1, 2), steps=steps)
def test_a_desk_answers_as_a_dictionary_does(
    policy: str, subnets: int, steps: list[tuple[object, ...]]
) -> None:
    law = Law(policy, subnets)
    for step in steps:
        law.run(step)
    law.end()


# what each policy does


def _fill(world: DeskWorld, count: int) -> None:
    """Give each of so many people one paper."""
    for number in range(count):
        world.put(f"person {number:02}", "a", "text")
    world.settle()


@pytest.mark.parametrize(
    ("policy", "wanted"),
    [("FillFirst", [10, 10, 4]), ("BalancedLoad", [10, 7, 7]), ("LastNode", [10, 10, 4])],
)
def test_new_groups_go_where_the_policy_says_and_what_is_there_stays(policy: str, wanted: list[int]) -> None:
    world = DeskWorld(policy, free=1)
    world.configure(hold_ns=10**18)  # a drawer more only where no key can be placed, or the test says so
    _fill(world, 16)
    if policy == "BalancedLoad":
        world.desk.place_grow()
        world.settle()
    _fill(world, 24)
    assert [len(people) for people in world.held().values()] == wanted
    assert world.status.given_count == 0


def test_with_last_node_alone_the_last_ones_groups_move() -> None:
    world = DeskWorld("LastNode", free=1)
    _fill(world, 25)
    before = world.held()
    first, second, last = world.drawers
    for person in before[first][:6]:
        world.put(person, "a", None)
    world.settle()
    assert world.put("somebody new", "a", "text") == last, "room in the older ones is not taken"
    moving = set(world.held()[last])
    world.desk.place_drain(last)
    world.settle()
    assert last not in world.drawers
    held = world.held()
    assert set(held[first]) == set(before[first][6:]) | moving, "the oldest with room takes them"
    assert held[second] == before[second]
    assert world.status.given_count == len(moving), "and nothing else moved"


def test_with_last_node_what_the_last_one_has_too_much_moves_to_the_new_one() -> None:
    world = DeskWorld("LastNode", free=0)
    _fill(world, 9)
    (old,) = world.drawers
    world.configure(slots=7)
    world.settle()
    held = world.held()
    assert list(held) == world.drawers
    assert held[old] == [f"person 0{number}" for number in range(7)]
    assert list(held.values())[1] == ["person 07", "person 08"]


def test_the_emptiest_leaves_and_its_groups_go_to_the_fullest_with_room() -> None:
    world = DeskWorld("FillFirst", free=0)
    world.configure(hold_ns=10**18)
    _fill(world, 25)
    first, second, _ = world.drawers
    for person in [*world.held()[first][:5], *world.held()[second][:2]]:
        world.put(person, "a", None)
    world.configure(hold_ns=1)
    world.put("person 24", "a", None)
    for _ in range(4):
        world.node.advance(seconds=60)
    world.desk.place_drain(world.drawers[2])
    world.settle()
    assert [len(people) for people in world.held().values()] == [7, 10]


def test_a_group_that_outgrows_its_home_moves_as_a_whole() -> None:
    world = DeskWorld("BalancedLoad", slots=6, free=0)
    world.put("ann", "0", "text")
    world.put("bob", "0", "text")
    for number in range(1, 6):
        world.put("ann", str(number), "text")
        world.put("bob", str(number), "text")
    world.settle()
    held = world.held()
    assert sorted(people for people in held.values() if people) == [["ann"], ["bob"]]
    for person in ("ann", "bob"):
        assert [world.get(person, str(number)) for number in range(6)] == ["text"] * 6


def test_a_target_that_is_deleted_in_mid_move_leaves_what_it_was_not_given() -> None:
    world = DeskWorld("BalancedLoad", free=0)
    _fill(world, 18)
    world.configure(slots=25)
    world.settle()
    leaving, gone = world.drawers
    world.node.manage("stop_canister", CanisterIdRecord(gone))
    world.desk.place_drain(leaving)
    world.node.advance(seconds=5)
    left = {person for drawer, people in world.held_by([leaving]).items() for person in people}
    world.desk.fleet_delete(gone)
    world.node.advance(seconds=30)
    world.settle()
    assert gone not in world.drawers
    assert set(world.held()[leaving]) == left
    for person in left:
        assert world.get(person, "a") == "text"
    assert world.put("somebody lost", "a", "again") in world.drawers


def test_a_grow_predicate_that_flaps_makes_no_bucket_after_bucket() -> None:
    world = DeskWorld("FillFirst", free=1)
    world.configure(hold_ns=4 * 10**9)
    _fill(world, 8)
    for turn in range(30):
        world.configure(free=(1, 5)[turn % 2])
        world.node.advance(seconds=3)
        world.desk.place_look()
    assert len(world.drawers) == 1
    world.configure(free=5)
    world.settle(seconds=6)
    assert len(world.drawers) == 2


def test_a_placement_stays_with_what_it_began_with() -> None:
    world = DeskWorld("LastNode")
    world.configure(policy="AnchorHash")
    with pytest.raises(Rejected, match="one that lists groups does so"):
        world.desk.place_look()
    world.configure(policy="FillFirst")
    world.settle()
    hashed = DeskWorld("AnchorHash")
    assert hashed.desk.give("ann") == hashed.desk.where("ann")
    hashed.configure(policy="FillFirst")
    with pytest.raises(Rejected, match="began with AnchorHash"):
        hashed.desk.place_look()
