"""Whatever happens to a factory, and wherever the node crashes, each id has one zone, its owner's."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.apps.zones.factory_types import ZoneOptions
from cannery.fleet.directory_types import PoolRule
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    StopArgs,
    UpdateSettingsArgs,
)
from cannery.testing import Rejected
from cannery.testing.actor import Sent
from cannery.testing.store import Crashed, FaultyStore
from tests.apps.zones.factory_world import FactoryWorld, factory_module

PEOPLE = ("ann", "bob", "cid")
IDS = ("team", "club")
ACTS = st.lists(
    st.one_of(
        st.tuples(st.just("make"), st.sampled_from(PEOPLE), st.sampled_from(IDS), st.booleans()),
        st.tuples(st.just("make"), st.sampled_from(PEOPLE), st.sampled_from(IDS), st.booleans()),
        st.tuples(st.just("check"), st.sampled_from(PEOPLE), st.sampled_from(IDS)),
        st.tuples(st.just("take"), st.sampled_from(IDS)),
        st.tuples(st.just("give"), st.sampled_from(IDS)),
        st.tuples(st.just("delete"), st.sampled_from(IDS)),
        st.tuples(st.just("pool"), st.integers(0, 2)),
        st.tuples(st.just("step"), st.integers(1, 4)),
        st.tuples(st.just("crash")),
        st.tuples(st.just("stop")),
        st.tuples(st.just("upgrade")),
    ),
    min_size=1,
    max_size=14,
)


def _submit(world: FactoryWorld, act: tuple[object, ...]) -> Sent | None:
    """Do one act; give the creation that it began, if it did."""
    node = world.node
    match act:
        case ("make", str(who), zone_id, shared):
            wanted = ZoneOptions(factory_controls=bool(shared))
            sent = world.as_(who).create_zone.submit(zone_id, wanted)
            assert isinstance(sent, Sent)
            return sent
        case ("check", str(who), zone_id):
            world.as_(who).check_zone.submit(zone_id)
        case ("take" | "give" as how, zone_id):
            _set_control(world, str(zone_id), with_factory=how == "give")
        case ("delete", zone_id):
            found = world.as_("x").zone_of(zone_id)
            if found is not None:
                world.operator.fleet_delete.submit(found.canister)
        case ("pool", int(target)):
            world.operator.fleet_pool_set.submit(PoolRule(target, 0))
        case ("step", int(count)):
            for _ in range(count):
                node.step()
        case ("crash",):
            node.restart()
        case ("stop",):
            node.manage("cannery_stop_canister", StopArgs(world.id, True))
            node.manage("start_canister", CanisterIdRecord(world.id))
        case ("upgrade",):
            node.upgrade(world.factory, factory_module(node))
    return None


def _set_control(world: FactoryWorld, zone_id: str, *, with_factory: bool) -> None:
    found = world.as_("x").zone_of(zone_id)
    if found is None or found.control.tag == "factory":
        return
    holders = [found.owner, world.id] if with_factory else [found.owner]
    change = UpdateSettingsArgs(found.canister, CanisterSettings(controllers=holders))
    # It may have been deleted meanwhile, or be on its way out.
    with suppress(Rejected):
        world.node.manage("update_settings", change, sender=found.owner)


def _settle(world: FactoryWorld) -> None:
    """Let everything end, lost answers included."""
    for _ in range(4):
        world.node.run()
        world.node.advance(seconds=700)
        world.operator.fleet_census_take()
    world.node.run()
    for zone_id in IDS:
        # There may be none, or one that was deleted.
        with suppress(Rejected):
            world.operator.check_zone(zone_id)


@settings(max_examples=25)
@given(acts=ACTS)
def test_each_id_has_one_zone_which_its_owner_controls(acts: list[tuple[object, ...]]) -> None:
    with FactoryWorld(FaultyStore()).node as node:
        world = FactoryWorld(node=node)
        for act in acts:
            _submit(world, act)
        _settle(world)
        status = world.operator.fleet_status()
        assert (status.making, status.leaving) == (0, 0)
        living: set[Principal] = set()
        for zone_id in IDS:
            info = world.as_("x").zone_of(zone_id)
            who = next(name for name in PEOPLE if info is None or info.owner == world.who(name))
            made = world.make(who, zone_id)
            assert made.owner == world.who(who)
            assert info is None or made.canister == info.canister
            controllers = set(world.status(made.canister).settings.controllers)
            assert controllers - {world.id} == {made.owner}
            assert (world.id in controllers) == (made.control.tag == "both")
            assert world.zone(made, who).get_zone_id() == zone_id
            assert world.zone(made, who).my_role() == 500
            other = next(name for name in PEOPLE if name != who)
            with pytest.raises(Rejected, match="already"):
                world.make(other, zone_id)
            living.add(made.canister)
        assert {each.canister for each in world.as_("x").zones_page(None, 10).zones} == living


def test_a_crash_anywhere_in_a_creation_loses_nothing() -> None:
    for place in range(1, 30):
        shared = place % 3 != 0
        store = FaultyStore(seed=place)
        # One message a round, so that there are many places to crash at.
        world = FactoryWorld(store, config=ReplicaConfig(activation_count_max=1))
        with world.node as node:
            before = world.canisters()
            store.crash_at(store.operation_count + place)
            try:
                world.make("ann", "team", factory_controls=shared)
                has_crashed = False
            except Crashed:
                node.restart()
                has_crashed = True
            store.crash_at(0)
            made = world.make("ann", "team", factory_controls=shared)
            assert world.canisters() - before == {made.canister}
            assert made.control.tag == ("both" if shared else "owner")
        if not has_crashed:
            assert place > 3
            return
    pytest.fail("a creation has fewer operations than these")
