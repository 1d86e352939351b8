"""The law of a spread fleet: whatever is made, found, deleted and replaced while local indexes come and rest,
the map splits and either subnet crashes at any operation, it answers as a plain dictionary does."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.cdk.management import SubnetChoice
from cannery.client.errors import Rejected
from cannery.fleet.directory_types import ChildFilter
from cannery.fleet.shards_types import Entry, LocalOrder
from cannery.replica import keys, records
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Crashed, FaultyStore, Node
from cannery.testing.actor import Actor
from tests.fleet.county import Borough, Cottage, County, Sizes, build_county, settle

NAMES = tuple(f"owner {number}" for number in range(9))
LOOK_S = 31

ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("settle"), st.sampled_from(NAMES), st.sampled_from((False, False, False, True))),
        st.tuples(st.just("settle"), st.sampled_from(NAMES), st.just(False)),
        st.tuples(st.just("submit"), st.sampled_from(NAMES)),
        st.tuples(st.just("find"), st.sampled_from(NAMES)),
        st.tuples(st.just("delete"), st.sampled_from(NAMES)),
        st.tuples(st.just("replace"), st.sampled_from(NAMES)),
        st.tuples(st.just("add"), st.integers(0, 1)),
        st.tuples(st.just("rest"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("stop"), st.integers(0, 5), st.booleans()),
        st.tuples(st.just("upgrade")),
        st.tuples(st.just("grow")),
        st.tuples(st.just("look")),
        st.tuples(st.just("crash"), st.integers(0, 1), st.integers(1, 25)),
    ),
    max_size=16,
)


class World:
    """A county on two subnets, and what a dictionary knows of it."""

    def __init__(self) -> None:
        self.disks = [FaultyStore(), FaultyStore()]
        self.node = Node(self.disks, subnets=2)
        self.county = build_county(self.node, Sizes(3, 0, 3, 4), locals_count=2)
        self.have: dict[str, Principal] = {}
        self.gone: set[Principal] = set()
        self.unsure: set[str] = set()

    def boroughs(self) -> list[Actor]:
        found = [each.canister for each in self.county.fleet_locals().locals]
        return [self.node.actor(each, Borough).as_(self.node.operator) for each in found if each]

    def act(self, act: tuple[object, ...]) -> None:
        """Do something; where a subnet goes down meanwhile, start it again and see what became of it."""
        try:
            self._do(act)
        except Rejected as rejected:
            text = str(rejected)
            assert "is stopped" in text
        except Crashed:
            self._restart()
            if act[0] in ("settle", "submit"):
                self.unsure.add(str(act[1]))
            elif act[0] in ("delete", "replace"):
                self._see(str(act[1]))

    def _restart(self) -> None:
        for disk in self.disks:
            disk.crash_at(0)
        for number, disk in enumerate(self.disks):
            if disk._crashed:
                self.node.restart_subnet(number)
        self.node.run()

    def _see(self, name: str) -> None:
        """Ask the local index what became of a child that was being deleted or replaced."""
        self.start_all()
        before = self.have.pop(name, None)
        for borough in self.boroughs():
            found = borough.fleet_lookup("cottage", self.node.principal(name))
            if found is not None:
                self.have[name] = found.canister
        if before is not None and self.have.get(name) != before:
            self.gone.add(before)

    def _do(self, act: tuple[object, ...]) -> None:
        match act:
            case ("settle", str(name), bool(fails)):
                self.settle(name, fails)
            case ("submit", str(name)):
                self.unsure.add(name)
                self.county.as_(name).settle.submit(False)
                self.node.step()
            case ("find", str(name)):
                self.find(name)
            case ("delete", str(name)) if name in self.have:
                self.maker(name).fleet_delete(self.have[name])
                self.gone.add(self.have.pop(name))
                self.node.run()
            case ("replace", str(name)) if name in self.have:
                result = self.maker(name).fleet_replace(self.have[name], None, None)
                if result.tag == "ok":
                    self.gone.add(self.have[name])
                    self.have[name] = result.ok.canister
            case ("add", int(subnet)):
                self.county.fleet_local_add(SubnetChoice.id(Principal(self.node.routes[subnet].subnet_id)))
                self.node.run()
            case ("rest", int(number), bool(rests)):
                some = self.boroughs()
                order = LocalOrder.rest() if rests else LocalOrder.serve()
                self.county.fleet_local_set(some[number % len(some)].id, order)
            case ("stop", int(number), bool(starts)):
                some = self.boroughs()
                self.turn(some[number % len(some)], starts=starts)
            case ("upgrade",):
                self.node.upgrade(self.county, County)
            case ("grow",):
                self.county.place_grow()
                self.node.run()
            case ("look",):
                self.node.advance(seconds=LOOK_S)
            case ("crash", int(number), int(operations)):
                disk = self.disks[number]
                disk.crash_at(disk.operation_count + operations)

    def turn(self, borough: Actor, *, starts: bool) -> None:
        method = "start_canister" if starts else "stop_canister"
        self.node.manage(method, CanisterIdRecord(borough.id), sender=self.county)

    def start_all(self) -> None:
        for borough in self.boroughs():
            self.turn(borough, starts=True)

    def maker(self, name: str) -> Actor:
        for borough in self.boroughs():
            if borough.fleet_child(self.have[name]) is not None:
                return borough
        raise AssertionError(f"no local index has the child of {name}")

    def settle(self, name: str, fails: bool) -> None:
        try:
            found = settle(self.county, name, fails=fails)
        except Rejected as rejected:
            text = str(rejected)
            assert fails
            assert "the roof fell in" in text
            assert name not in self.have
            return
        if found is not None:
            self.agree(name, found)

    def find(self, name: str) -> None:
        try:
            found = self.county.as_(name).fleet_find("cottage", self.node.principal(name))
        except Rejected as rejected:
            text = str(rejected)
            assert "again" in text
            return
        if found is not None:
            self.agree(name, found)
        else:
            assert name not in self.have, "what was acknowledged is found"

    def agree(self, name: str, found: Entry) -> None:
        """Compare an answer with the model; what is gone may be named until its local index has said so."""
        if found.canister in self.gone:
            return
        assert self.have.get(name, found.canister) == found.canister
        assert found.canister not in [canister for who, canister in self.have.items() if who != name]
        self.have[name] = found.canister
        self.unsure.discard(name)

    def check(self) -> None:
        """Let everything come to rest, and compare all there is."""
        for disk in self.disks:
            disk.crash_at(0)
        self.start_all()
        for seconds in (LOOK_S, 601, LOOK_S, LOOK_S, LOOK_S):
            self.node.advance(seconds=seconds)
        status = self.county.fleet_locals()
        assert (status.making, status.changes) == (0, 0)
        assert status.entries == 0 or status.parts == 0
        for name in NAMES:
            found = self.county.as_(name).fleet_find("cottage", self.node.principal(name))
            assert found is None or found.canister not in self.gone
            if name in self.unsure and found is not None:
                self.have[name] = found.canister
            assert (None if found is None else found.canister) == self.have.get(name)
            if found is not None:
                assert self.node.actor(found.canister, Cottage).owner() == self.node.principal(name)
                assert self.node.actor(found.canister, Cottage).get_version().fleet == self.county.id
        listed = [child for borough in self.boroughs() for child in _children(borough)]
        assert sorted(child.canister for child in listed) == sorted(self.have.values())
        assert {each.raw for each in self.have.values()} == self.living(), "no canister leaks"

    def living(self) -> set[bytes]:
        """Read from the stores which canisters local indexes have made, those that were replaced left out."""
        makers = {borough.id.raw for borough in self.boroughs()}
        found: set[bytes] = set()
        for disk in self.disks:
            for key, data in disk.scan(*keys.space_range(keys.CANISTERS)):
                record = records.CANISTER.decode(data)
                if record.creator in makers and not record.replaced_by:
                    found.add(keys.owner_of(key))
        return found


def _children(borough: Actor) -> list[object]:
    page = borough.fleet_page(ChildFilter(state="active"), None, 100)
    return list(page.items)


FULL = [("settle", name, False) for name in NAMES]


@settings(
    max_examples=10,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
    phases=(Phase.explicit, Phase.reuse, Phase.generate),
)
@example([("add", 0), *FULL, ("look",), ("look",), *[("find", name) for name in NAMES], ("grow",), ("look",)])
@example([*FULL[:6], ("look",), ("crash", 0, 9), ("look",), ("delete", NAMES[0]), ("look",), FULL[0]])
@example([*FULL[:6], ("look",), ("replace", NAMES[1]), ("delete", NAMES[1]), ("grow",), FULL[1]])
@given(ACTS)
def test_a_spread_fleet_answers_as_a_dictionary_does(acts: list[tuple[object, ...]]) -> None:
    world = World()
    with world.node:
        for act in acts:
            world.act(act)
        world.check()
