"""Tests of the fleet run on one subnet, and again on two, over which an index's children spread.

Left out are those of pure functions, and those that make nodes of two subnets themselves.
"""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from cannery.replica.block import ReplicaConfig
from cannery.testing import Node
from cannery.testing import node as node_module

ON_TWO_SUBNETS = {
    "test_census",
    "test_funding",
    "test_index",
    "test_ownership",
    "test_ownership_laws",
    "test_placement_canister",
    "test_rollout",
    "test_rollout_under_load",
    "test_rollouts",
    "test_strangers",
    "test_top_up",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run the tests of some modules twice."""
    if metafunc.module.__name__.rpartition(".")[2] in ON_TWO_SUBNETS:
        metafunc.fixturenames.append("subnets")
        metafunc.parametrize("subnets", [1, 2], indirect=True)


@pytest.fixture
def subnets(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Let each node that the test makes have so many subnets."""
    count: int = request.param
    if count > 1:
        begin = Node.__init__

        def spread(self: Node, *args: object, config: ReplicaConfig | None = None, **options: object) -> None:
            chosen = config or ReplicaConfig(outcall_hosts=node_module._ANY_HOST)
            begin(self, *args, config=replace(chosen, spreads=True), subnets=count, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(Node, "__init__", spread)
    return count
