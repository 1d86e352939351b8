"""One seed, from its first step to its last check."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from cannery.replica import keys, records
from tests.sim.checks import check_run
from tests.sim.fleet import Fleet
from tests.sim.peers import Peers
from tests.sim.people import People
from tests.sim.plan import Plan, plan_of
from tests.sim.world import World, bounds_of

REST_S = 4 * 3_600


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
        # Whoever joins the simulated world (a zone) is one more cast here.
        people = People(world)
        casts = (Peers(world), people, *((Fleet(world, people),) if plan.has_fleet else ()))
        world.rest(0)
        for cast in casts:
            cast.setup()
        world.say("set up")
        world.is_calm = False

        def act() -> None:
            world.chance.choice(casts).act()

        for _ in range(plan.step_count):
            world.step(act)
        world.calm()
        world.run_out(lambda: world.is_busy)
        for cast in casts:
            cast.settle()
        world.rest(REST_S)
        for cast in casts:
            cast.check()
        check_run(world)
        return Ran(_message_count(world), world.heads[world.certain].root, world.counts)


def how_to_replay(seed: int) -> str:
    """Say at which commit and by which command a seed is run again."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=Path(__file__).parent, capture_output=True, text=True
    )
    return f"commit {done.stdout.strip() or 'unknown'}, replay with: make sim SEED={seed}"


def _message_count(world: World) -> int:
    """Count activations of programs, management calls from outside, and queries."""
    subnet = records.SUBNET.decode(world.store.values[keys.SUBNET_KEY])
    managed = sum(1 for request in world.requests if not request.ingress.canister_id)
    return subnet.updates_total + managed + world.counts.get("queries", 0)
