"""A desk with drawers on an in-process node, and people who look for their papers as a client does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from cannery.cdk.management import FleetConfigureArgs, FleetValue
from cannery.ports import Store
from cannery.protocol.principal import Principal
from cannery.testing import Actor, Node, Rejected
from cannery.testing.actor import interface_of_class
from tests.fleet.desk import Desk, Drawer

_MODULES: dict[str, bytes] = {}
_DRAWER = interface_of_class(Drawer)
TRIES = 60


class DeskWorld:
    """A node with a desk of small drawers."""

    def __init__(self, policy: str, stores: Sequence[Store] = (), *, slots: int = 10, free: int = 3) -> None:
        self.node = Node(stores or None, subnets=max(1, len(stores)))
        for name, cls in (("desk", Desk), ("drawer", Drawer)):
            if name not in _MODULES:
                _MODULES[name] = self.node.build(cls)
        self.desk = self.node.actor(self.node.install(_MODULES["desk"]).id, Desk).as_(self.node.operator)
        module_hash = self.node.manage("cannery_module_add", _MODULES["drawer"])
        assert self.desk.fleet_release_add("drawer", 1, module_hash, "first").tag == "ok"
        self.configure(policy=policy, slots=slots, free=free)
        self.desk.place_look()
        self.settle()
        self.cached: dict[str, Principal] = {}

    def configure(self, **values: int | str) -> None:
        args = FleetConfigureArgs([], [], [FleetValue(name, str(value)) for name, value in values.items()])
        self.desk.fleet_config_set(args)

    def drawer(self, canister: Principal) -> Actor:
        return Actor(self.node, canister, _DRAWER, self.node.principal("ann"))

    @property
    def drawers(self) -> list[Principal]:
        found: list[Principal] = self.desk.buckets()
        return found

    @property
    def status(self) -> Any:  # PlaceStatus
        return self.desk.place_status()

    def settle(self, seconds: int = 2) -> None:
        self.desk.place_look()
        for _ in range(TRIES):
            self.node.advance(seconds=seconds)
            if self.status.change is None and not self.status.planned_slots:
                return
        raise AssertionError(f"a change does not end: {self.status}")

    def put(self, person: str, paper: str, text: str | None) -> Principal:
        """Put a paper where the person's are; return the drawer that has it now."""
        answer = self._asked(person, lambda drawer: drawer.put(person, paper, text), is_new=text is not None)
        if answer is None:
            return (
                Principal.anonymous()
            )  # nobody has papers of that person, so there is nothing to throw away
        self.cached[person] = answer.by
        return Principal(answer.by.raw)

    def get(self, person: str, paper: str) -> str | None:
        answer = self._asked(person, lambda drawer: drawer.get(person, paper), is_new=False)
        return None if answer is None else answer.text

    def _asked(self, person: str, ask: Any, *, is_new: bool) -> Any:  # Answer | None
        at = self.cached.get(person)
        for _ in range(TRIES):
            if at is None:
                at = self.desk.where(person)
                if at is None and not is_new:
                    return None
            try:
                answer = None if at is None else ask(self.drawer(at))
            except Rejected:
                answer = None
            if answer is not None and answer.tag == "kept":
                return answer
            at = answer.to if answer is not None and answer.tag == "moved" else None
            self.node.step()  # source and target may name each other while a chunk is on its way
            if at is None:
                self.node.advance(seconds=1)
                try:
                    at = self.desk.give(person) if is_new else None
                except Rejected:
                    at = None
        raise AssertionError(f"nobody answers for {person}: {self.status}")

    def held(self) -> dict[Principal, list[str]]:
        """Return whose papers each drawer has."""
        return self.held_by(self.drawers)

    def held_by(self, drawers: Sequence[Principal]) -> dict[Principal, list[str]]:
        return {drawer: self.drawer(drawer).people() for drawer in drawers}
