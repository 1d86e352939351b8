"""The census: what a fleet has, child by child, and what happened behind its index's back."""

from __future__ import annotations

import pytest

from cannery.client.errors import Rejected
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    StopArgs,
    UpdateSettingsArgs,
)
from cannery.testing import Node
from cannery.testing.actor import Actor
from tests.fleet.test_index import OWNERS, build_village
from tests.fleet.village import Cottage


def sweep(node: Node, village: Actor) -> object:
    village.fleet_census_take()
    node.run()
    report = village.fleet_census()
    assert report.sweeping_at is None
    return report


def test_totals_are_the_sums_of_what_the_node_tells_of_each_child() -> None:
    with Node() as node:
        village = build_village(node)
        made = [village.as_(owner).settle(False) for owner in OWNERS]
        for number, child in enumerate(made):
            cottage = node.actor(child.canister, Cottage)
            node.top_up(cottage, 1000 * number)
            for _ in range(number):
                cottage.knock()
        report = sweep(node, village)
        (totals,) = report.totals  # type: ignore[attr-defined]
        listed = node.manage("cannery_status_many", [child.canister for child in made])
        reports = [one.status for one in listed]  # type: ignore[union-attr, attr-defined]
        assert totals.children == totals.active_day == 4
        for field in ("memory_size", "key_count", "cycles", "burned", "messages", "traps", "queued"):
            assert getattr(totals, field) == sum(getattr(one, field) for one in reports), field
        assert totals.cycles == 6000
        assert totals.messages >= 6


def test_what_happened_behind_the_back_of_the_index_is_found() -> None:
    with Node() as node:
        village = build_village(node)
        ann, bob, cid, dot = [village.as_(owner).settle(False) for owner in OWNERS]
        node.manage("cannery_stop_canister", StopArgs(ann.canister, True))
        node.manage("delete_canister", CanisterIdRecord(ann.canister))
        taken = CanisterSettings(controllers=[node.principal("bob")])
        node.manage("update_settings", UpdateSettingsArgs(bob.canister, taken), sender=village)
        node.manage("stop_canister", CanisterIdRecord(cid.canister))
        report = sweep(node, village)
        node.run()
        assert village.fleet_child(ann.canister) is None
        assert village.fleet_child(bob.canister).state.tag == "in_custody"
        assert village.fleet_child(dot.canister) == dot
        assert [alarm.subject for alarm in village.fleet_alarms_open()] == [str(bob.canister)]
        assert report.totals[0].stopped == 1  # type: ignore[attr-defined]
        assert village.as_("ann").settle(False).canister != ann.canister


def test_a_child_that_its_owner_deletes_while_it_is_theirs_is_listed_no_more() -> None:
    with Node() as node:
        village = build_village(node)
        ann, bob = [village.as_(owner).settle(False) for owner in ("ann", "bob")]
        for child, owner in ((ann, "ann"), (bob, "bob")):
            taken = CanisterSettings(controllers=[node.principal(owner)])
            node.manage("update_settings", UpdateSettingsArgs(child.canister, taken), sender=village)
        node.run()
        assert {village.fleet_child(child.canister).state.tag for child in (ann, bob)} == {"in_custody"}
        for method in ("stop_canister", "delete_canister"):
            node.manage(method, CanisterIdRecord(ann.canister), sender="ann")
        sweep(node, village)
        assert village.fleet_child(ann.canister) is None
        assert village.fleet_child(bob.canister).state.tag == "in_custody"
        assert [alarm.subject for alarm in village.fleet_alarms_open()] == [str(bob.canister)]
        assert village.fleet_status().children == 1
        assert village.as_("ann").settle(False).canister != ann.canister


def test_sweeps_come_by_themselves_and_go_on_after_a_crash() -> None:
    with Node() as node:
        village = build_village(node)
        village.as_("ann").settle(False)
        village.fleet_census_set(60)
        node.advance(seconds=59)
        assert village.fleet_census().ended_ns == 0
        node.advance(seconds=2)
        first = village.fleet_census().ended_ns
        assert first > 0
        node.restart()
        node.advance(seconds=60)
        assert village.fleet_census().ended_ns > first
        with pytest.raises(Rejected, match="every 5 s at the most often"):
            village.fleet_census_set(4)


def test_a_sweep_whose_answer_a_forced_stop_dropped_goes_on() -> None:
    with Node() as node:
        village = build_village(node)
        for owner in OWNERS:
            village.as_(owner).settle(False)
        village.fleet_census_take.submit()
        node.manage("cannery_stop_canister", StopArgs(village.id, True))
        node.manage("start_canister", CanisterIdRecord(village.id))
        village.fleet_census_take()
        node.advance(seconds=601)
        village.fleet_census_take()
        node.run()
        assert village.fleet_census().totals[0].children == 4


def test_strangers_take_no_census() -> None:
    with Node() as node:
        stranger = build_village(node).as_("mallory")
        for call in (
            stranger.fleet_census,
            stranger.fleet_census_take,
            lambda: stranger.fleet_census_set(60),
        ):
            with pytest.raises(Rejected, match="for operators"):
                call()
