"""One seed, from its first step to its last check."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from cannery.replica import keys, records
from tests.sim.backups import Backups
from tests.sim.checks import check_run
from tests.sim.events import Events
from tests.sim.fleet import Fleet
from tests.sim.funding import Funding
from tests.sim.outcalls import Outcalls
from tests.sim.peers import Peers
from tests.sim.people import People
from tests.sim.plan import Company, Plan, bounds_of, plan_of
from tests.sim.push import Push
from tests.sim.world import World
from tests.sim.zones import Zones

REST_S = 4 * 3_600


class Cast(Protocol):
    """Some canisters and their clients: set up, let act, brought to rest, checked."""

    def setup(self) -> None: ...
    def act(self) -> None: ...
    def settle(self) -> None: ...
    def check(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Ran:
    """What one run did: messages executed or asked, and counts of events."""

    message_count: int
    root: bytes
    counts: dict[str, int]


def run_seed(seed: int, trace: Callable[[str], None] | None = None) -> Ran:
    """Run one seed. Raises `Broken`, or whatever else went wrong."""
    return run_plan(plan_of(seed), trace)


def run_plan(plan: Plan, trace: Callable[[str], None] | None = None) -> Ran:
    """Run a plan: set up, break things, come to rest, check."""
    with bounds_of(plan):
        world = World(plan)
        world.trace = trace
        push = Push(world)
        try:
            _play(world, _casts_of(world, push))
        finally:
            push.close()
        roots = [machine.heads[machine.certain].root for machine in world.machines]
        return Ran(_message_count(world), b"".join(roots), world.counts)


def _play(world: World, casts: Sequence[Cast]) -> None:
    """Let the casts act, come to rest, and check."""
    world.rest(0)
    for cast in casts:
        cast.setup()
    world.say("set up")
    world.is_calm = False

    def act() -> None:
        world.chance.choice(casts).act()

    for _ in range(world.plan.step_count):
        world.step(act)
    world.calm()
    world.run_out(lambda: world.is_busy)
    for cast in casts:
        cast.settle()
    world.rest(REST_S)
    for cast in casts:
        cast.check()
    world.rest(0)
    check_run(world)


def _casts_of(world: World, push: Push) -> Sequence[Cast]:
    """Give whoever is on the stage; whoever joins the simulated world is one more cast here."""
    chance, casts = world.chance, [Peers(world)]
    if world.plan.company is not Company.TOWN:
        commons = [Zones(world, push), Events(world, push), Outcalls(world), Funding(world)]
        least = 1 if world.plan.company is Company.COMMONS else 0
        casts += chance.sample(commons, chance.randint(least, 2 + least))
    if world.plan.company is not Company.COMMONS:
        people = People(world)
        casts += [people, *((Fleet(world, people),) if world.plan.has_fleet else ())]
    if world.plan.backup_rate:
        casts.append(Backups(world))
    return casts


def how_to_replay(seed: int) -> str:
    """Say at which commit and by which command a seed is run again."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return f"commit {done.stdout.strip() or 'unknown'}, replay with: make sim SEED={seed}"


def _message_count(world: World) -> int:
    """Count activations of programs, management calls from outside, and queries."""
    subnets = [records.SUBNET.decode(machine.store.values[keys.SUBNET_KEY]) for machine in world.machines]
    managed = sum(1 for request in world.requests if not request.ingress.canister_id)
    return sum(subnet.updates_total for subnet in subnets) + managed + world.counts.get("queries", 0)
