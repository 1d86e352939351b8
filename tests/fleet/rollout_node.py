"""A hamlet on a node for tests of rollouts: owners, releases, and the laws that hold when all is done."""

from __future__ import annotations

from random import Random

from cannery import Canister, Principal
from cannery.fleet.directory_types import Child, ChildFilter
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, RuleChange
from cannery.limits import UPGRADE_WORK_COUNT
from cannery.ports import Store
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.testing import Crashed, FaultyStore, Node
from tests.fleet.hamlet import Hamlet, Hut

HOOK_CPU_NS_MAX = 20_000_000


class Town:
    """A node with a hamlet in it."""

    def __init__(
        self,
        count: int,
        store: Store | None = None,
        *,
        per_round: int = 200,
        prices: PriceSchedule = PriceSchedule(),
    ) -> None:
        """Make a hamlet with huts; a round has room for about so many upgrades."""
        config = ReplicaConfig(
            prices=prices,
            hook_cpu_ns_max=HOOK_CPU_NS_MAX,
            work_count_max=per_round * UPGRADE_WORK_COUNT,
        )
        self.node = Node(store, config=config)
        self.index = self.node.install(Hamlet).as_(self.node.operator)
        self.modules: dict[int, bytes] = {}
        self.release(1, Hut)
        self.knocks: dict[Principal, int] = {}
        self.huts: list[Child] = []
        self.settle(count)

    def settle(self, count: int) -> None:
        """Give more owners a hut."""
        first = len(self.huts)
        asked = [self.index.as_(self.owner(number)).settle.submit() for number in range(first, first + count)]
        self.node.run()
        self.huts += [sent.result() for sent in asked]

    def owner(self, number: int) -> Principal:
        """Return the owner of a hut, which begins with its number."""
        return Principal(number.to_bytes(4, "little") + bytes(24) + b"\x02")

    def release(self, version: int, build: type[Canister]) -> None:
        """Add a release of huts."""
        module = self.modules[version] = self.node.manage("cannery_module_add", self.node.build(build))
        added = self.index.fleet_release_add("hut", version, module, f"build {version}")
        assert added.tag == "ok", added

    def start(self, version: int, concurrency: int = 10, **rule: int | bool) -> int:
        """Start a rollout of all huts; return its number."""
        started = self.index.fleet_rollout_start(order(version, concurrency, **rule))
        assert started.tag == "ok", started
        number = started.ok
        assert isinstance(number, int)
        return number

    def info(self, id: int) -> RolloutInfo:
        found = self.index.fleet_rollout(id)
        assert isinstance(found, RolloutInfo)
        return found

    def finish(self, id: int, seconds: int = 600) -> RolloutInfo:
        """Let time pass until a rollout has ended."""
        for _ in range(100):
            if self.info(id).ended_ns is not None:
                break
            self.node.advance(seconds=seconds)
        return self.info(id)

    def knock(self, number: int) -> None:
        """Knock at a hut, and remember that it was answered."""
        hut = self.huts[number].canister
        count = self.node.actor(hut, Hut).knock()
        self.knocks[hut] = self.knocks.get(hut, 0) + 1
        assert count == self.knocks[hut], "no knock is lost"

    def children(self) -> list[Child]:
        """List all children."""
        found: list[Child] = []
        after: int | None = None
        while True:
            page = self.index.fleet_page(ChildFilter(), after, 1_000)
            found += page.items
            after = page.next
            if after is None:
                return found

    def versions(self) -> dict[int, int]:
        """Count huts by the version that they say they run; each must be what the directory has."""
        counts: dict[int, int] = {}
        for child in self.children():
            said = self.node.actor(child.canister, Hut).get_version()
            assert (said.kind, said.version) == ("hut", child.version)
            counts[child.version] = counts.get(child.version, 0) + 1
        return counts

    def recover(self, store: FaultyStore, chance: Random) -> int:
        """Start the node again after a crash, which crashes while it catches up; return how often.

        Take over what it has of knocks that nobody was told of.
        """
        crashes = 1
        while True:
            store.crash_at(store.operation_count + chance.randint(2, 8))
            try:
                self.node.restart()
                break
            except Crashed:
                crashes += 1
        for hut in self.huts:
            counted = self.node.actor(hut.canister, Hut).knocked()
            assert counted >= self.knocks.get(hut.canister, 0), "no answered knock is lost"
            self.knocks[hut.canister] = counted
        return crashes


def order(version: int, concurrency: int = 10, **rule: int | bool) -> RolloutArgs:
    """Make the order for a rollout of all huts."""
    return RolloutArgs([KindVersion("hut", version)], concurrency, rule=RuleChange(**rule))  # type: ignore[arg-type]  # by name
