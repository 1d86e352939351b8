"""The node and a real index: its numbers on the page, its alarms in the log, and nobody else may ask."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from cannery.client.errors import Rejected
from cannery.node.gateway.asking import Questions
from cannery.node.gateway.fleet_metrics import FleetMetrics
from cannery.replica.management.types import CanisterSettings, NameSetArgs, UpdateSettingsArgs
from cannery.testing import Node
from tests.fleet.test_index import build_village
from tests.gateway.fleets_under_test import NodePort
from tests.node.exposition import read_exposition
from tests.node.test_alarms import World


def test_the_numbers_and_alarms_of_an_index_arrive(tmp_path: Path) -> None:
    with Node() as node:
        village = build_village(node)
        node.manage("cannery_name_set", NameSetArgs("village", village.id))
        children = [village.as_(name).settle(False) for name in ("ann", "bob")]
        page = FleetMetrics(Questions(NodePort(node), 1.0), lambda: 1)
        families = read_exposition(asyncio.run(page.render()))
        up = (("fleet", "village"),)
        assert families["cannery_fleet_up"].samples["cannery_fleet_up", up] == 1
        assert families["cannery_fleet_samples_refused"].samples["cannery_fleet_samples_refused", up] == 0
        assert sum(families["cannery_fleet_children"].samples.values()) == 2

        world = World(node, tmp_path)
        settings = CanisterSettings(controllers=[node.principal("ann")])
        node.manage("update_settings", UpdateSettingsArgs(children[0].canister, settings), sender=village.id)
        village.fleet_delete(children[0].canister)
        node.advance(seconds=60)
        world.look()
        assert [line.split(",")[0] for line in world.told] == ["alarm: custody_taken in village"]


def test_the_node_alone_asks_without_being_an_operator() -> None:
    with Node() as node:
        village = build_village(node)
        for ask in (
            lambda: village.as_("stranger").fleet_alarms(None, 1),
            lambda: village.as_("stranger").fleet_metrics(),
            lambda: node.manage("cannery_fleet_list", sender="stranger"),
        ):
            with pytest.raises(Rejected, match="operator"):
                ask()
