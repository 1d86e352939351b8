"""Durable signed updates on a node of two subnets beside one of one subnet, and where the CPU time goes.

Where the gateway takes half of the CPU time, a second subnet gains little on two cores: look at the shares.
"""

from __future__ import annotations

import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from bench import deploying, traffic
from bench.messages import CLIENTS, updates
from bench.report import Line
from bench.servers import CONFIG, RunningNode, running_node
from cannery.candid.codec import decoder, encoder
from cannery.cli.management import Management
from cannery.client import Agent
from cannery.node.data_dir import load_keys
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.types import CanisterIdRecord, ProvisionalCreateArgs
from cannery.replica.places import SubnetChoice

CANISTERS = 64
REQUESTS = 6_000
RUNS = 3
GATEWAYS = 1


def run_subnets() -> Iterator[Line]:
    """Measure updates per second on one subnet, then on two."""
    one, _ = _measure(1)
    two, shares = _measure(2)
    notes: dict[str, float | str] = {f"CPU of {name}": share for name, share in shares.items()}
    yield Line("subnets", "updates on two subnets", two, "per s", "one subnet", one, notes)


def _measure(count: int) -> tuple[float, dict[str, float]]:
    settings = f"[node]\nsubnet_count = {count}\ngateway_count = {GATEWAYS}\n{CONFIG}"
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data", settings) as node:
        agent = node.agent()
        module = deploying.bring_module(agent, "canister.py")
        canisters = [_install(agent, node, module, number % count) for number in range(CANISTERS)]
        traffic.send(node.port, updates(canisters, REQUESTS // 4, 0), CLIENTS)
        rates: list[float] = []
        before = _cpu_seconds(node)
        for run in range(RUNS):
            requests = updates(canisters, REQUESTS, run + 1)
            result = traffic.send(node.port, requests, CLIENTS)
            assert result.statuses == {"200": REQUESTS}, result.statuses
            traffic.verify_updates(requests, result, agent.root_key())
            rates.append(REQUESTS / result.seconds)
        after = _cpu_seconds(node)
    used = {name: after[name] - before[name] for name in after}
    return statistics.median(rates), {name: seconds / sum(used.values()) for name, seconds in used.items()}


def _install(agent: Agent, node: RunningNode, module_hash: bytes, subnet: int) -> Principal:
    place = SubnetChoice.id(Principal(load_keys(node.data).routes[subnet].subnet_id))
    method = METHODS["provisional_create_canister_with_cycles"]
    reply = agent.call(MANAGEMENT, method.name, encoder(method.args)((ProvisionalCreateArgs(subnet=place),)))
    (created,) = decoder(method.results)(reply)
    assert isinstance(created, CanisterIdRecord), "that is the method's result"
    canister = created.canister_id
    Management(agent).install(canister, "install", module_hash, deploying.NO_ARGUMENTS)
    return canister


def _cpu_seconds(node: RunningNode) -> dict[str, float]:
    """Give the CPU time of each process of a node so far."""
    found: dict[str, float] = {}
    for child in psutil.Process(node.popen.pid).children(recursive=True):
        command = child.cmdline()
        if "--subnet" in command:
            name = f"subnet {command[command.index('--subnet') + 1]}"
        elif "--index" in command:
            name = f"gateway {command[command.index('--index') + 1]}"
        else:
            continue
        times = child.cpu_times()
        found[name] = times.user + times.system
    return found
