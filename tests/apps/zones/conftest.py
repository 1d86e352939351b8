"""A zone of its own for each test, all on one node: loading the program is most of what a node costs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cannery.testing import Node
from tests.apps.zones.world import ZoneWorld


@pytest.fixture(scope="session")
def zone_node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def world(zone_node: Node) -> ZoneWorld:
    return ZoneWorld(node=zone_node)
