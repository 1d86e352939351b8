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
from bench.servers import CONFIG, RunningNode, running_node
from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.cli.management import Management
from cannery.protocol.principal import Principal

ATTACK_PER_S = 1_000
CALLS_PER_ORDER = 10
NEIGHBOUR_PER_S = 200
SECONDS = 10
LEAD_S = 3
NEIGHBOURS = 8
_order = encoder((ct.PrincipalType(), ct.Nat32()))


def run_drain() -> Iterator[Line]:
    """Attack by calls that a guard refuses, by calls that a method rejects, and by a canister's calls."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running_node(Path(folder) / "data", CONFIG + '[prices]\nschedule = "ic"\n') as node,
    ):
        agent = node.agent()
        module = deploying.bring_module(agent, "canister.py")
        neighbours = [deploying.install(agent, module) for _ in range(NEIGHBOURS)]
        victim = deploying.install(agent, deploying.bring_module(agent, "victim.py"))
        attacker = deploying.install(agent, deploying.bring_module(agent, "attacker.py"))
        for salt, how in enumerate(("a guard", "ctx.reject", "a canister's calls"), 1):
            before = _send(node.port, _neighbours(neighbours, 10 + salt))
            if how == "a canister's calls":
                attack, rate_per_s = _orders(attacker, victim), ATTACK_PER_S / CALLS_PER_ORDER
            else:
                method = "guarded" if how == "a guard" else "refusing"
                attack, rate_per_s = _attack(victim, method, salt), ATTACK_PER_S
            yield _measure(node, victim, how, attack, rate_per_s, _neighbours(neighbours, salt), before)


def _measure(
    node: RunningNode,
    victim: Principal,
    how: str,
    attack: list[traffic.Signed],
    rate_per_s: float,
    requests_of_neighbours: list[traffic.Signed],
    before: traffic.Result,
) -> Line:
    management = Management(node.agent())
    balance = management.status(victim).cycles
    with ThreadPoolExecutor(1) as attacker:
        attacking = attacker.submit(traffic.send, node.port, attack, 64, rate_per_s)
        time.sleep(LEAD_S)
        during = _send(node.port, requests_of_neighbours)
        seen = attacking.result()
    return Line(
        "drain",
        f"{ATTACK_PER_S:,} refused calls/s ({how}): p99 of neighbours",
        during.p99_ms,
        "ms",
        "just before",
        before.p99_ms,
        {
            "victim lost": float(balance - management.status(victim).cycles),
            "requests of the attack per s": seen.per_s,
            "statuses": str(seen.statuses),
        },
    )


def _neighbours(canisters: list[Principal], salt: int) -> list[traffic.Signed]:
    return updates(canisters, NEIGHBOUR_PER_S * SECONDS, salt)


def _send(port: int, requests: list[traffic.Signed]) -> traffic.Result:
    result = traffic.send(port, requests, 32, NEIGHBOUR_PER_S)
    assert result.statuses == {"200": len(requests)}, result.statuses
    return result


def _orders(attacker: Principal, victim: Principal) -> list[traffic.Signed]:
    """Sign orders to the attacking canister; each makes many calls."""
    (stranger,) = traffic.identities(1)
    arg = _order([victim, CALLS_PER_ORDER])
    count = ATTACK_PER_S // CALLS_PER_ORDER * (SECONDS + 2 * LEAD_S)
    return [traffic.sign("call", attacker, "attack", arg, stranger, 99_000_000 + i) for i in range(count)]


def _attack(victim: Principal, method: str, salt: int) -> list[traffic.Signed]:
    """Sign the attack beforehand: it begins before the neighbours' traffic and outlasts it."""
    strangers = traffic.identities(64)
    return [
        traffic.sign("call", victim, method, deploying.NO_ARGUMENTS, strangers[i % 64], salt * 10_000_000 + i)
        for i in range(ATTACK_PER_S * (SECONDS + 2 * LEAD_S))
    ]
