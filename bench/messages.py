"""Signed durable updates and signed queries over HTTP, each beside the bare server of bench/limits.py."""

from __future__ import annotations

import contextlib
import statistics
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench import deploying, peers, traffic
from bench.report import Line
from bench.servers import RunningNode, bare_server, running_node
from cannery.candid.codec import encoder
from cannery.candid.types import BLOB, Nat64
from cannery.protocol.principal import Principal

CANISTERS = 64
CLIENTS = 64
REQUESTS = 12_000
RUNS = 3
OPEN_LOOP_PER_S = 1_000
_put = encoder((Nat64(), BLOB))
_get = encoder((Nat64(),))


@contextlib.contextmanager
def _loaded_node() -> Iterator[tuple[RunningNode, list[Principal]]]:
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        agent = node.agent()
        module = deploying.bring_module(agent, "canister.py")
        canisters = [deploying.install(agent, module) for _ in range(CANISTERS)]
        yield node, canisters


def updates(canisters: list[Principal], count: int, salt: int) -> list[traffic.Signed]:
    callers = traffic.identities(CLIENTS)
    return [
        traffic.sign(
            "call",
            canisters[i % len(canisters)],
            "put",
            _put((i, bytes(100))),
            callers[i % CLIENTS],
            salt * 1_000_000 + i,
        )
        for i in range(count)
    ]


def _queries(canisters: list[Principal], count: int, salt: int) -> list[traffic.Signed]:
    callers = traffic.identities(CLIENTS)
    return [
        traffic.sign(
            "query",
            canisters[i % len(canisters)],
            "get",
            _get((i,)),
            callers[i % CLIENTS],
            salt * 1_000_000 + i,
        )
        for i in range(count)
    ]


def _limit(job: str, requests: list[traffic.Signed], connections: int) -> traffic.Result:
    with tempfile.TemporaryDirectory() as folder, bare_server(job, Path(folder)) as port:
        traffic.send(port, requests[: len(requests) // 4], connections)
        return traffic.send(port, requests, connections)


def _median(results: list[traffic.Result]) -> traffic.Result:
    return sorted(results, key=lambda result: result.per_s)[len(results) // 2]


def run_updates() -> Iterator[Line]:
    """Measure updates in a closed loop with 1, 64 and 512 clients, and in an open loop at 1,000/s."""
    with _loaded_node() as (node, canisters):
        root_key = node.agent().root_key()
        ours: dict[int, traffic.Result] = {}
        for clients, count in ((1, 1_500), (CLIENTS, REQUESTS), (512, REQUESTS)):
            results, shares = [], []
            for run in range(RUNS):
                requests = updates(canisters, count, clients * 10 + run)
                cpu = node.cpu_s()
                result = traffic.send(node.port, requests, clients)
                shares.append((node.cpu_s() - cpu) / count * 1e6)
                assert result.statuses == {"200": count}, result.statuses
                traffic.verify_updates(requests, result, root_key)
                results.append(result)
            middle = _median(results)
            bare = _limit("updates", updates(canisters, count, clients * 10 + 9), clients)
            yield Line(
                "updates",
                f"signed durable updates, {clients} clients",
                middle.per_s,
                "per s",
                "bare server",
                bare.per_s,
                {
                    "p50 ms": middle.p50_ms,
                    "p99 ms": middle.p99_ms,
                    "bare p50 ms": bare.p50_ms,
                    "node CPU us each": statistics.median(shares),
                    "generator cores": middle.generator_cpu_share,
                },
            )
            ours[clients] = middle
        requests = updates(canisters, OPEN_LOOP_PER_S * 10, 77)
        result = traffic.send(node.port, requests, 256, OPEN_LOOP_PER_S)
        assert result.statuses == {"200": len(requests)}, result.statuses
        yield Line("updates", "open loop at 1,000/s: p50", result.p50_ms, "ms")
        yield Line("updates", "open loop at 1,000/s: p99", result.p99_ms, "ms")
    yield from _beside_peers(ours)


def _beside_peers(ours: dict[int, traffic.Result]) -> Iterator[Line]:
    """Let the peers do the same job, with as many clients as ours had."""
    for name, measure, plan in (
        ("Restate", peers.measure_restate, ((1, 200), (CLIENTS, 2_000), (512, 2_000))),
        ("Synapse", peers.measure_synapse, ((1, 50), (CLIENTS, 500), (512, 1_024))),
    ):
        try:
            with tempfile.TemporaryDirectory() as folder:
                results = measure(Path(folder), plan)
        except peers.PeerMissing as reason:
            print(f"updates      {name} is left out: {reason}", flush=True)
            continue
        for (clients, count), result in zip(plan, results, strict=True):
            assert result.statuses == {"200": count}, (name, result.statuses)
            yield Line(
                "updates",
                f"beside {name}, {clients} clients",
                ours[clients].per_s,
                "per s",
                name,
                result.per_s,
                {f"{name} p50 ms": result.p50_ms, f"{name} p99 ms": result.p99_ms},
            )


def run_queries() -> Iterator[Line]:
    """Measure queries in a closed loop with 64 clients."""
    with _loaded_node() as (node, canisters):
        node_key = node.node_key_der()
        results, shares = [], []
        for run in range(RUNS):
            requests = _queries(canisters, REQUESTS, run)
            cpu = node.cpu_s()
            result = traffic.send(node.port, requests, CLIENTS)
            shares.append((node.cpu_s() - cpu) / REQUESTS * 1e6)
            assert result.statuses == {"200": REQUESTS}, result.statuses
            traffic.verify_queries(requests, result, node_key)
            results.append(result)
        middle = _median(results)
        bare = _limit("queries", _queries(canisters, REQUESTS, 9), CLIENTS)
        yield Line(
            "queries",
            f"signed queries, {CLIENTS} clients",
            middle.per_s,
            "per s",
            "bare server",
            bare.per_s,
            {
                "p50 ms": middle.p50_ms,
                "p99 ms": middle.p99_ms,
                "bare p50 ms": bare.p50_ms,
                "node CPU us each": statistics.median(shares),
                "generator cores": middle.generator_cpu_share,
            },
        )
