"""One node for the tests of this folder, bare for each: loading the programs is most of what a node costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cannery.testing import Node
from tests.apps.zones.world import ZoneWorld, taking_away


@pytest.fixture(scope="session")
def loaded_node() -> Iterator[Node]:
    """A node that keeps its programs; who installs canisters on it takes them away."""
    with Node() as node:
        yield node


@pytest.fixture
def zone_node(loaded_node: Node) -> Iterator[Node]:
    """The node, on which a test leaves nothing: no timer of it makes blocks in the next one."""
    with taking_away(loaded_node):
        yield loaded_node


@pytest.fixture
def world(zone_node: Node) -> ZoneWorld:
    return ZoneWorld(node=zone_node)
