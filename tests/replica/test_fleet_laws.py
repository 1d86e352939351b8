"""The law of stamps: whatever is done to a fleet, in whatever order, they are as the plain rule says.

Hypothesis makes the plans; a model beside the node knows who was made by whom, who holds what, and applies
the rule as one would say it. The world replays each block, and both runs must give the same root.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import types as t
from tests.replica.fleet_world import Fleet, upgrade
from tests.replica.management_world import OPERATOR, OWNER, STRANGER, Rejected, World

TAGS = ("", "1", "2")

PLAN = st.lists(
    st.one_of(
        st.tuples(st.just("create"), st.integers(0, 1), st.integers(0, 2), st.integers(0, 63)),
        st.tuples(st.just("create empty"), st.integers(0, 1), st.integers(0, 63)),
        st.tuples(st.just("appoint"), st.integers(0, 9)),
        st.tuples(st.just("dismiss"), st.integers(0, 9)),
        st.tuples(st.just("make"), st.integers(0, 9), st.integers(0, 2), st.integers(0, 63)),
        st.tuples(st.just("install"), st.integers(0, 9), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("settings"), st.integers(0, 9), st.integers(1, 63)),
        st.tuples(st.just("settings"), st.integers(0, 9), st.just(1)),
        st.tuples(st.just("module"), st.integers(0, 1), st.integers(0, 2), st.booleans()),
        st.tuples(st.just("operator"), st.booleans()),
        st.tuples(st.just("uninstall"), st.integers(0, 9)),
        st.tuples(st.just("delete"), st.integers(0, 9)),
    ),
    max_size=14,
)


@dataclass
class Child:
    """A canister as the model knows it. `lost`: it once ran foreign code, or was somebody else's; `direct`:
    the index made it itself, no local index did.
    """

    maker: Principal
    holders: list[Principal]
    module: bytes | None = None
    lost: bool = False
    direct: bool = True
    appointed: bool = False


@dataclass
class Model:
    """Two fleets and what happened to them."""

    fleets: list[Fleet]
    modules: list[bytes]
    children: dict[Principal, Child] = field(default_factory=dict)
    registry: set[tuple[Principal, bytes]] = field(default_factory=set)
    operators: set[Principal] = field(default_factory=lambda: {OPERATOR})

    # the rule

    def is_own(self, fleet: Principal, holder: Principal) -> bool:
        child = self.children.get(holder)
        is_member = child is not None and child.maker == fleet and not child.lost
        return holder == fleet or holder in self.operators or is_member

    def note(self, child: Child, *, holders_changed: bool = False, module_changed: bool = False) -> None:
        """Remember for ever what cannot be made good again."""
        if holders_changed and not all(self.is_own(child.maker, holder) for holder in child.holders):
            child.lost = True
            child.appointed = False
        if module_changed and (child.maker, child.module) not in self.registry:
            child.lost = True
            child.appointed = False

    def stamp(self, canister: Principal) -> Principal | None:
        child = self.children[canister]
        trusted = (
            not child.lost
            and (child.maker, child.module) in self.registry
            and all(self.is_own(child.maker, holder) for holder in child.holders)
        )
        return child.maker if trusted else None

    # what is done

    def pick(self, number: int) -> Principal | None:
        children = list(self.children)
        return children[number % len(children)] if children else None

    def holders(self, maker: Principal, bits: int) -> list[Principal]:
        """Choose holders by bits: the index, operators past and present, a stranger, other children."""
        one, other = self.pick(bits), self.pick(bits + 1)
        among = [maker, OPERATOR, OWNER, STRANGER if bits % 3 == 0 else OPERATOR, one, other]
        return [who for bit, who in enumerate(among) if bits >> bit & 1 and who is not None]

    def act(self, act: tuple[object, ...]) -> None:
        match act:
            case ("create", int(which), int(module), int(bits)):
                self.create(self.fleets[which], self.modules[module], bits)
            case ("create empty", int(which), int(bits)):
                self.create_empty(self.fleets[which], bits)
            case ("appoint", int(number)):
                self.appoint(number, True)
            case ("dismiss", int(number)):
                self.appoint(number, False)
            case ("make", int(number), int(module), int(bits)):
                self.make(number, self.modules[module], bits)
            case ("install", int(number), int(module), bool(anew)):
                self.install(number, self.modules[module], anew)
            case ("settings", int(number), int(bits)):
                self.set_controllers(number, bits)
            case ("module", int(which), int(module), bool(put)):
                self.set_module(self.fleets[which], self.modules[module], put)
            case ("operator", bool(add)):
                self.set_operator(add)
            case ("uninstall", int(number)):
                self.uninstall(number)
            case ("delete", int(number)):
                self.delete(number)

    def create(self, fleet: Fleet, module: bytes, bits: int) -> None:
        holders = self.holders(fleet.index, bits)
        canister = fleet.create(module, holders)
        self.adopt(canister, Child(fleet.index, holders))
        self.children[canister].module = module
        self.note(self.children[canister], module_changed=True)

    def appoint(self, number: int, wanted: bool) -> None:
        canister = self.pick(number)
        if canister is None:
            return
        child = self.children[canister]
        fleet = next(fleet for fleet in self.fleets if fleet.index == child.maker)
        may = child.direct and not child.lost if wanted else child.appointed
        try:
            fleet.manage("cannery_fleet_appoint" if wanted else "cannery_fleet_dismiss", canister)
        except Rejected:
            assert not may
        else:
            assert may
            child.appointed = wanted

    def make(self, number: int, module: bytes, bits: int) -> None:
        """Let a child make another, as a local index or as none."""
        canister = self.pick(number)
        if canister is None or self.children[canister].module is None:
            return
        maker = self.children[canister]
        joins = maker.appointed and self.stamp(canister) is not None
        holders = self.holders(canister, bits)
        args = t.CreateInstalledArgs(module, b"", holders)
        made = self.fleets[0].manage("cannery_create_installed", args, by=canister)
        child = Child(maker.maker, holders, module, lost=not joins, direct=False)
        self.adopt(made.canister_id, child)
        self.note(child, module_changed=True)

    def create_empty(self, fleet: Fleet, bits: int) -> None:
        holders = self.holders(fleet.index, bits)
        args = t.CreateCanisterArgs(t.CanisterSettings(controllers=holders))
        self.adopt(fleet.manage("create_canister", args).canister_id, Child(fleet.index, holders))

    def adopt(self, canister: Principal, child: Child) -> None:
        self.note(child, holders_changed=True)
        self.children[canister] = child

    def manage(self, canister: Principal, method: str, value: object) -> bool:
        """Do something as whichever holder may; False where nobody who acts here holds the canister."""
        holders = self.children[canister].holders
        for fleet in self.fleets:
            if fleet.index in holders:
                fleet.manage(method, value)
                return True
        for user in (OPERATOR, OWNER, STRANGER):
            if user in holders:
                fleet.world.manage(user, method, value)
                return True
        return False

    def install(self, number: int, module: bytes, anew: bool) -> None:
        canister = self.pick(number)
        if canister is None:
            return
        child = self.children[canister]
        mode = t.InstallMode.reinstall() if anew else upgrade()
        if child.module is None:
            mode = t.InstallMode.install()
        args = t.InstallChunkedCodeArgs(mode, canister, None, [], module, b"")
        if self.manage(canister, "install_chunked_code", args):
            child.appointed = child.appointed and not (anew and child.module is not None)
            child.module = module
            self.note(child, module_changed=True)

    def set_controllers(self, number: int, bits: int) -> None:
        canister = self.pick(number)
        if canister is None:
            return
        child = self.children[canister]
        holders = self.holders(child.maker, bits)
        args = t.UpdateSettingsArgs(canister, t.CanisterSettings(controllers=holders))
        if self.manage(canister, "update_settings", args):
            child.holders = holders
            self.note(child, holders_changed=True)

    def set_module(self, fleet: Fleet, module: bytes, put: bool) -> None:
        key = (fleet.index, module)
        if put:
            fleet.manage("cannery_fleet_module_put", ft.FleetModuleArgs(module, "user", 1))
            self.registry.add(key)
        elif key in self.registry:
            fleet.manage("cannery_fleet_module_remove", module)
            self.registry.remove(key)

    def set_operator(self, add: bool) -> None:
        world = self.fleets[0].world
        if add:
            world.manage(OPERATOR, "cannery_operator_add", OWNER)
            self.operators.add(OWNER)
        elif OWNER in self.operators:
            world.manage(OPERATOR, "cannery_operator_remove", OWNER)
            self.operators.remove(OWNER)

    def uninstall(self, number: int) -> None:
        canister = self.pick(number)
        if canister is not None and self.manage(canister, "uninstall_code", t.VersionedCanisterId(canister)):
            self.children[canister].module = None
            self.children[canister].appointed = False

    def delete(self, number: int) -> None:
        canister = self.pick(number)
        if canister is None:
            return
        world = self.fleets[0].world
        world.manage(OPERATOR, "stop_canister", t.CanisterIdRecord(canister))
        world.manage(OPERATOR, "delete_canister", t.CanisterIdRecord(canister))
        del self.children[canister]

    # what must hold

    def check(self) -> None:
        first, second = self.fleets
        for canister, child in self.children.items():
            if child.module is not None:
                assert first.stamp(canister) == self.stamp(canister)
        for fleet in self.fleets:
            members = sum(c.maker == fleet.index and not c.lost for c in self.children.values())
            assert fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.index).members == members
            assert fleet.stamp(fleet.index) == fleet.index
        assert first.stamp(first.witness) is first.stamp(second.witness) is None


def _begin() -> Model:
    world = World()
    first, second = Fleet(world), Fleet(world)
    model = Model([first, second], [first.module(tag, register=False) for tag in TAGS])
    for module in model.modules[:2]:
        model.set_module(first, module, True)
    model.set_module(second, model.modules[0], True)
    return model


@settings(max_examples=60, deadline=None)
@given(PLAN)
def test_calls_are_stamped_exactly_as_the_plain_rule_says(plan: list[tuple[object, ...]]) -> None:
    model = _begin()
    for act in plan:
        model.act(act)
        model.check()
