"""The drain attack: strangers' refused calls at the IC's prices; what victim and neighbours feel of it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import deploying, traffic
from bench.messages import updates
from bench.report import Line
from bench.servers import CONFIG, running_node
from cannery.cli.management import Management
from cannery.protocol.principal import Principal

ATTACK_PER_S = 1_000
NEIGHBOUR_PER_S = 200
SECONDS = 10
LEAD_S = 3
NEIGHBOURS = 8


def run_drain() -> Iterator[Line]:
    """Attack a canister by a guarded method, then by one that refuses by itself."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_node(Path(folder) / "data", CONFIG + '[prices]\nschedule = "ic"\n') as node,
    ):
        agent = node.agent()
        management = Management(agent)
        module = deploying.bring_module(agent, "canister.py")
        neighbours = [deploying.install(agent, module) for _ in range(NEIGHBOURS)]
        victim = deploying.install(agent, deploying.bring_module(agent, "victim.py"))
        before = _send(node.port, _neighbours(neighbours, 1))
        for salt, method in enumerate(("guarded", "refusing"), 2):
            balance = management.status(victim).cycles
            attack, traffic_of_neighbours = _attack(victim, method, salt), _neighbours(neighbours, salt)
            with ThreadPoolExecutor(1) as attacker:
                attacking = attacker.submit(traffic.send, node.port, attack, 64, ATTACK_PER_S)
                time.sleep(LEAD_S)
                during = _send(node.port, traffic_of_neighbours)
                seen = attacking.result()
            lost = balance - management.status(victim).cycles
            yield Line(
                "drain",
                f"{ATTACK_PER_S:,} refused calls/s ({method}): p99 of neighbours",
                during.p99_ms,
                "ms",
                "without the attack",
                before.p99_ms,
                {
                    "victim lost": float(lost),
                    "attack per s": seen.per_s,
                    "statuses": str(seen.statuses),
                },
            )


def _neighbours(canisters: list[Principal], salt: int) -> list[traffic.Signed]:
    return updates(canisters, NEIGHBOUR_PER_S * SECONDS, salt)


def _send(port: int, requests: list[traffic.Signed]) -> traffic.Result:
    result = traffic.send(port, requests, 32, NEIGHBOUR_PER_S)
    assert result.statuses == {"200": len(requests)}, result.statuses
    return result


def _attack(victim: Principal, method: str, salt: int) -> list[traffic.Signed]:
    """Sign the attack beforehand: it begins before the neighbours' traffic and outlasts it."""
    strangers = traffic.identities(64)
    return [
        traffic.sign("call", victim, method, deploying.NO_ARGUMENTS, strangers[i % 64], salt * 10_000_000 + i)
        for i in range(ATTACK_PER_S * (SECONDS + 2 * LEAD_S))
    ]
