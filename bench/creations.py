"""Creations: an index that makes, installs and initialises children, within its own canister."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from bench import deploying, traffic
from bench.report import Line
from bench.servers import running_node
from cannery.candid.codec import encoder
from cannery.candid.types import BLOB, Nat32

CHAINS = 16
CHILDREN_PER_CHAIN = 250
_hash = encoder((BLOB,))
_create = encoder((Nat32(),))


def run_creations() -> Iterator[Line]:
    """Measure an index that makes 4,000 children in 16 chains of calls."""
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        agent = node.agent()
        child = deploying.bring_module(agent, "canister.py")
        creator = deploying.install(agent, deploying.bring_module(agent, "creator.py"), _hash((child,)))
        requests = [
            traffic.sign("call", creator, "create", _create((CHILDREN_PER_CHAIN,)), identity, number)
            for number, identity in enumerate(traffic.identities(CHAINS))
        ]
        started = time.perf_counter()
        result = traffic.send(node.port, requests, CHAINS)
        seconds = time.perf_counter() - started
        assert result.statuses == {"200": CHAINS}, result.statuses
        traffic.verify_updates(requests, result, agent.root_key())
        yield Line(
            "creations",
            "canisters made by an index (create, install, init)",
            CHAINS * CHILDREN_PER_CHAIN / result.seconds,
            "per s",
            notes={"seconds": seconds},
        )
