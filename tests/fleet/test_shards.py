"""A fleet that is spread over local indexes: added, full, told, rolled out, funded, split, looked up."""

from __future__ import annotations

import pytest

from cannery.cdk.management import SubnetChoice
from cannery.client.errors import Rejected
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RuleChange
from cannery.fleet.shards_types import Entry, LocalOrder
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.protocol.principal import Principal
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, StopArgs
from cannery.testing import Crashed, FaultyStore, Node
from cannery.testing.actor import Actor
from tests.fleet.county import (
    Borough,
    BoroughWithClock,
    Cottage,
    CottageOfStraw,
    CottageWithBell,
    County,
    Hamlet,
    Ledger,
    Sizes,
    add_borough,
    build_county,
    release,
    settle,
)

LOOK_S = 11
NAMES = [f"owner {number}" for number in range(6)]


def settled(county: Actor, name: str) -> Entry:
    found = settle(county, name)
    assert found is not None
    return found


def find(node: Node, county: Actor, name: str) -> Entry | None:
    found: Entry | None = county.as_(name).fleet_find("cottage", node.principal(name))
    return found


def test_children_are_spread_over_local_indexes_of_all_subnets_and_found_at_the_root() -> None:
    with Node(subnets=2) as node:
        county = build_county(node, locals_count=2)
        entries = {name: settled(county, name) for name in NAMES}
        assert len({entry.canister for entry in entries.values()}) == 6
        made_by = [entry.index for entry in entries.values()]
        assert [made_by.count(index) for index in sorted(set(made_by))] == [3, 3]
        for name, entry in entries.items():
            assert find(node, county, name) == settled(county, name) == entry
            cottage = node.actor(entry.canister, Cottage)
            assert cottage.owner() == node.principal(name)
            assert cottage.get_version().fleet == county.id
            borough = node.actor(entry.index, Borough).as_(node.operator)
            assert borough.fleet_child(entry.canister).owner == node.principal(name)
            assert node._subnet_of(entry.canister) is node._subnet_of(entry.index)


def test_a_full_local_index_is_out_of_rotation_and_another_is_added_before_all_are() -> None:
    with Node() as node:
        county = build_county(node, Sizes(children_max=2), locals_count=1)
        settled(county, "a")
        settled(county, "b")
        assert settle(county, "c") is None, "there is no room, and nobody may add one"
        assert [each.is_full for each in county.fleet_locals().locals] == [True]
        county.resize(Sizes(children_max=2, spare_min=1))
        assert settle(county, "c") is None
        node.run()
        for name in ("c", "d", "e", "f", "g"):
            settled(county, name)
            node.run()
        assert [each.children for each in county.fleet_locals().locals] == [2, 2, 2, 1]


def test_a_local_index_that_was_thought_to_have_room_says_that_it_has_none() -> None:
    with Node() as node:
        county = build_county(node, Sizes(children_max=2), locals_count=2)
        first = node.actor(county.fleet_locals().locals[0].canister, Borough)
        county.resize(Sizes(children_max=3))
        for name in NAMES[:4]:
            settled(county, name)
        assert [each.is_told for each in county.fleet_locals().locals] == [False, False]
        # Both think that they may have two and say so; the root thinks three, and looks again.
        assert settle(county, "late") is None
        node.advance(seconds=LOOK_S)
        node.advance(seconds=LOOK_S)
        assert [each.is_told for each in county.fleet_locals().locals] == [True, True]
        node.manage("stop_canister", CanisterIdRecord(first.id))
        assert settled(county, "late").index != first.id
        node.manage("start_canister", CanisterIdRecord(first.id))


def test_of_two_additions_at_the_same_moment_one_local_index_comes() -> None:
    with Node(subnets=2) as node:
        county = build_county(node)
        sent = [county.fleet_local_add.submit(SubnetChoice.any()) for _ in range(3)]
        node.run()
        assert {each.result().ok for each in sent} == {1}
        assert [each.state.tag for each in county.fleet_locals().locals] == ["serving"]
        assert county.fleet_local_add(None).ok == 2


def test_a_crash_between_any_two_steps_of_adding_leaves_one_local_index_that_serves() -> None:
    crashed = 0
    for at in range(1, 60, 3):
        disk = FaultyStore()
        with Node(disk, config=ReplicaConfig(activation_count_max=1)) as node:
            county = build_county(node)
            disk.crash_at(disk.operation_count + at)
            try:
                county.fleet_local_add(None)
                node.run()
            except Crashed:
                crashed += 1
                node.restart()
            disk.crash_at(0)
            county.fleet_local_add(None)
            node.advance(seconds=LOOK_S)
            status = county.fleet_locals()
            assert status.locals[0].state.tag == "serving"
            assert len(status.locals) <= 2
            settled(county, "ann")
            assert county.fleet_status().children == len(status.locals)
            if crashed < len(range(1, at + 1, 3)):
                break
    assert crashed >= 5


def test_the_map_splits_and_nobody_who_looks_up_or_settles_notices() -> None:
    with Node(subnets=2) as node:
        county = build_county(node, Sizes(entries_max=4, part_entries=6), locals_count=2)
        names = [f"settler {number}" for number in range(14)]
        entries: dict[str, Entry] = {}
        for at, name in enumerate(names):
            entries[name] = settled(county, name)
            if at > 4:
                county.fleet_locals_look.submit()
                node.step()
            for known in names[: at + 1 : 3]:
                assert find(node, county, known) == entries[known]
        for _ in range(3):
            node.advance(seconds=LOOK_S)
        status = county.fleet_locals()
        assert (status.entries, status.making, status.changes) == (0, 0, 0)
        assert status.parts > 1
        used = [child.used_slots for child in county.place_status().children]
        assert sum(used) == len(names)
        for name in names:
            assert find(node, county, name) == settled(county, name) == entries[name]
        assert find(node, county, "nobody") is None


def test_an_index_that_becomes_a_root_finds_what_it_made_itself_and_makes_it_no_second_time() -> None:
    with Node() as node:
        hamlet = node.install(Hamlet).as_(node.operator)
        release(node, hamlet, "cottage", 1, Cottage)
        old = hamlet.as_("ann").found()
        node.upgrade(hamlet, County)
        county = node.actor(hamlet.id, County).as_(node.operator)
        county.resize(Sizes(entries_max=1))
        for kind, cls in (("local_index", Borough), ("map_part", Ledger)):
            release(node, county, kind, 1, cls)
        borough = add_borough(node, county)
        for _ in range(3):
            node.advance(seconds=LOOK_S)
        assert settled(county, "ann") == find(node, county, "ann") == Entry(old.canister, county.id)
        assert settled(county, "bob").index == borough.id
        assert county.fleet_lookup("cottage", node.principal("ann")) == old


def test_a_crash_between_any_two_steps_of_splitting_loses_no_entry() -> None:
    crashed = 0
    for at in range(1, 80, 11):
        disk = FaultyStore()
        with Node(disk, config=ReplicaConfig(activation_count_max=1)) as node:
            county = build_county(node, Sizes(entries_max=2, part_entries=4), locals_count=1)
            entries = {name: settled(county, name) for name in NAMES}
            disk.crash_at(disk.operation_count + at)
            try:
                for _ in range(3):
                    node.advance(seconds=LOOK_S)
            except Crashed:
                crashed += 1
                node.restart()
            disk.crash_at(0)
            for name, entry in entries.items():
                assert find(node, county, name) == entry
            for _ in range(4):
                node.advance(seconds=LOOK_S)
            status = county.fleet_locals()
            assert status.entries == 0
            assert status.parts > 1
            for name, entry in entries.items():
                assert find(node, county, name) == settled(county, name) == entry
            assert sum(child.used_slots for child in county.place_status().children) == len(NAMES)
    assert crashed >= 6


def test_a_child_that_is_deleted_or_replaced_changes_its_entry_and_its_place_is_free() -> None:
    with Node() as node:
        county = build_county(node, Sizes(entries_max=1, part_entries=10), locals_count=1)
        entries = {name: settled(county, name) for name in NAMES[:4]}
        node.advance(seconds=LOOK_S)
        node.advance(seconds=LOOK_S)
        assert county.fleet_locals().parts == 1
        borough = node.actor(entries[NAMES[0]].index, Borough).as_(node.operator)
        borough.fleet_delete(entries[NAMES[0]].canister)
        moved = borough.fleet_replace(entries[NAMES[1]].canister, None, None).ok
        node.advance(seconds=31)
        assert find(node, county, NAMES[0]) is None
        assert find(node, county, NAMES[1]) == Entry(moved.canister, borough.id)
        assert county.fleet_locals().locals[0].children == 3
        again = settled(county, NAMES[0])
        assert again.canister != entries[NAMES[0]].canister
        assert find(node, county, NAMES[0]) == again


def test_an_order_whose_answer_was_lost_goes_to_the_same_local_index_again() -> None:
    with Node(config=ReplicaConfig(activation_count_max=1)) as node:
        county = build_county(node, locals_count=2)
        found = [each.canister for each in county.fleet_locals().locals]
        boroughs = [node.actor(each, Borough).as_(node.operator) for each in found]
        sent = county.as_("ann").settle.submit(False)
        making: list[Actor] = []
        while not making:
            node.step()
            making = [borough for borough in boroughs if borough.fleet_status().making]
        (chosen,) = making
        node.manage("cannery_stop_canister", StopArgs(chosen.id, True))
        node.run()
        with pytest.raises(Rejected, match="does not answer: ask again later"):
            sent.result()
        assert settle(county, "ann") is None, "another one may have made it"
        node.manage("start_canister", CanisterIdRecord(chosen.id))
        for _ in range(4):
            node.advance(seconds=601)
        assert settled(county, "ann").index == chosen.id
        assert sorted(borough.fleet_status().children for borough in boroughs) == [0, 1]


def roll(node: Node, county: Actor, kind: str, version: int, **rule: int) -> None:
    args = RolloutArgs([KindVersion(kind, version)], 10, None, RuleChange(canary_permille=0, **rule))
    assert county.fleet_rollout_start(args).tag == "ok"
    for _ in range(6):
        node.advance(seconds=LOOK_S)


def test_a_release_reaches_the_children_of_all_local_indexes_one_after_the_other() -> None:
    with Node(subnets=2) as node:
        county = build_county(node, locals_count=2)
        entries = {name: settled(county, name) for name in NAMES}
        release(node, county, "cottage", 2, CottageWithBell)
        roll(node, county, "cottage", 2)
        (relay,) = county.fleet_locals().relays
        assert (relay.version, relay.is_done, relay.halted) == (2, True, "")
        for entry in entries.values():
            assert node.actor(entry.canister, CottageWithBell).ring() == "ding"
            assert node.actor(entry.canister, Cottage).get_version().version == 2
        node.actor(settled(county, "late").canister, CottageWithBell).ring()
        third = add_borough(node, county)
        county.fleet_local_set(entries[NAMES[0]].index, LocalOrder.rest())
        county.fleet_local_set(entries[NAMES[1]].index, LocalOrder.rest())
        assert settled(county, "later").index == third.id
        assert node.actor(settled(county, "later").canister, CottageWithBell).ring() == "ding"
        assert county.fleet_rollout_go_back(county.fleet_rollouts()[0].id, False).tag == "ok"
        for _ in range(8):
            node.advance(seconds=LOOK_S)
        assert county.fleet_locals().relays[0].is_done
        every = [*entries.values(), settled(county, "later")]
        assert {node.actor(each.canister, Cottage).get_version().version for each in every} == {1}


def test_a_local_index_that_was_taken_back_is_brought_along() -> None:
    with Node() as node:
        county = build_county(node, locals_count=2)
        entries = {name: settled(county, name) for name in NAMES}
        first = county.fleet_locals().locals[0].canister
        county.fleet_local_set(first, LocalOrder.dismiss())
        release(node, county, "cottage", 2, CottageWithBell)
        roll(node, county, "cottage", 2)
        assert county.fleet_locals().relays[0].is_done
        versions = {
            entry.index: node.actor(entry.canister, Cottage).get_version().version
            for entry in entries.values()
        }
        assert sorted(versions.items()) == sorted({**dict.fromkeys(versions, 2), first: 1}.items())
        county.fleet_local_set(first, LocalOrder.reinstate())
        for _ in range(6):
            node.advance(seconds=LOOK_S)
        assert county.fleet_locals().relays[0].is_done
        for entry in entries.values():
            assert node.actor(entry.canister, CottageWithBell).ring() == "ding"


def test_a_bad_release_halts_at_the_first_local_index_and_goes_on_when_an_operator_says_so() -> None:
    with Node() as node:
        county = build_county(node, locals_count=2)
        entries = {name: settled(county, name) for name in NAMES}
        first = county.fleet_locals().locals[0].canister
        theirs = [entry for entry in entries.values() if entry.index == first]
        node.actor(theirs[0].canister, Cottage).knock()
        release(node, county, "cottage", 2, CottageOfStraw)
        roll(node, county, "cottage", 2, fault_permille=0, tries_max=1)
        (relay,) = county.fleet_locals().relays
        assert (relay.at, relay.is_done) == (1, False)
        assert "rolled_back" in relay.halted
        (alarm,) = county.fleet_alarms_open()
        assert (alarm.kind, alarm.subject) == ("rollout_stopped", "cottage 2")
        versions = {node.actor(each.canister, Cottage).get_version().version for each in entries.values()}
        assert versions == {1}, "the first went back, the second did not begin"
        borough = node.actor(first, Borough).as_(node.operator)
        borough.fleet_delete(theirs[0].canister)
        node.run()
        assert county.fleet_local_rollout_go_on("cottage").tag == "ok"
        for _ in range(6):
            node.advance(seconds=LOOK_S)
        assert county.fleet_locals().relays[0].is_done
        assert county.fleet_alarms_open() == []
        assert county.fleet_local_rollout_go_on("cottage").tag == "err"


def test_local_indexes_are_upgraded_as_a_kind_of_their_own_and_go_on() -> None:
    with Node(subnets=2) as node:
        county = build_county(node, locals_count=2)
        before = settled(county, "ann")
        release(node, county, "local_index", 2, BoroughWithClock)
        roll(node, county, "local_index", 2)
        for local in county.fleet_locals().locals:
            assert node.actor(local.canister, BoroughWithClock).clock() > 0
        assert settled(county, "ann") == before
        made = [settled(county, name) for name in NAMES[:3]]
        for entry in made:
            assert node.actor(entry.canister, Cottage).get_version().fleet == county.id


def test_rules_and_censuses_reach_children_through_their_local_indexes() -> None:
    with Node(subnets=2) as node:
        county = build_county(node, locals_count=2)
        entries = [settled(county, name) for name in NAMES[:4]]
        node.top_up(county, 10**12)
        below = TopUpRule(Threshold.cycles(10**9), Refill.to_balance(5 * 10**9))
        assert county.fleet_rule_set("local_index", below).tag == "ok"
        small = TopUpRule(Threshold.cycles(10**6), Refill.to_balance(3 * 10**6))
        assert county.fleet_rule_set("cottage", small).tag == "ok"
        node.advance(seconds=LOOK_S)
        node.advance(seconds=LOOK_S)
        county.fleet_census_take()
        node.run()
        for local in county.fleet_locals().locals:
            borough = node.actor(local.canister, Borough).as_(node.operator)
            assert borough.fleet_funding().battery > 10**9
            borough.fleet_census_take()
        node.run()
        for local in county.fleet_locals().locals:
            node.actor(local.canister, Borough).as_(node.operator).fleet_census_take()
        node.run()
        report = county.fleet_locals_census()
        assert report.missing == []
        totals = {each.kind: each for each in report.totals}
        assert (totals["cottage"].children, totals["local_index"].children) == (4, 2)
        assert totals["cottage"].cycles == 4 * 3 * 10**6
        assert len(entries) == 4
        county.fleet_rule_set("cottage", None)
        node.advance(seconds=LOOK_S)
        borough = node.actor(entries[0].index, Borough).as_(node.operator)
        assert [each.kind for each in borough.fleet_funding().kinds] == []


def test_a_local_index_that_is_gone_is_seen_and_others_serve() -> None:
    with Node() as node:
        county = build_county(node, locals_count=2)
        first, second = (each.canister for each in county.fleet_locals().locals)
        county.fleet_delete(first)
        node.run()
        node.advance(seconds=LOOK_S)
        assert [each.state.tag for each in county.fleet_locals().locals] == ["gone", "serving"]
        assert all(settled(county, name).index == second for name in NAMES[:3])
        assert county.fleet_local_set(first, LocalOrder.serve()).tag == "err"
        unused = Principal(b"unused")
        assert county.fleet_local_set(unused, LocalOrder.serve()).tag == "err"
