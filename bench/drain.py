"""The drain attack: strangers' refused calls at the IC's prices; what victim and neighbours feel of it."""

from __future__ import annotations

import tempfile
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
        before = _neighbours(node.port, neighbours, 1)
        for salt, method in enumerate(("guarded", "refusing"), 2):
            balance = management.status(victim).cycles
            with ThreadPoolExecutor(1) as attacker:
                attack = attacker.submit(_attack, node.port, victim, method, salt)
                during = _neighbours(node.port, neighbours, salt)
                seen = attack.result()
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


def _neighbours(port: int, canisters: list[Principal], salt: int) -> traffic.Result:
    result = traffic.send(port, updates(canisters, NEIGHBOUR_PER_S * SECONDS, salt), 32, NEIGHBOUR_PER_S)
    assert result.statuses == {"200": NEIGHBOUR_PER_S * SECONDS}, result.statuses
    return result


def _attack(port: int, victim: Principal, method: str, salt: int) -> traffic.Result:
    strangers = traffic.identities(64)
    requests = [
        traffic.sign("call", victim, method, deploying.NO_ARGUMENTS, strangers[i % 64], salt * 10_000_000 + i)
        for i in range(ATTACK_PER_S * SECONDS)
    ]
    return traffic.send(port, requests, 64, ATTACK_PER_S)
