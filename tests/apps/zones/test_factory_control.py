"""Who controls a zone: its owner, and the factory beside them as long as they let it."""

from __future__ import annotations

from typing import Any

import pytest

from cannery import Context, Principal, encode_args, query
from cannery.apps.zones.factory_types import ZoneInfo
from cannery.apps.zones.zone import Zone
from cannery.fleet.directory_types import PoolRule
from cannery.fleet.rollout_types import KindVersion, RolloutArgs
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    InstallChunkedCodeArgs,
    InstallMode,
    UpdateSettingsArgs,
)
from cannery.testing import Node, Rejected
from tests.apps.zones.factory_world import FactoryWorld
from tests.fleet.village import Cottage, Deed


class ZoneWithMotto(Zone):
    """A later release."""

    @query
    def motto(self, ctx: Context) -> str:
        """Return what only the next version knows."""
        return "nothing is lost"


@pytest.fixture
def factory(zone_node: Node) -> FactoryWorld:
    return FactoryWorld(node=zone_node)


def control(world: FactoryWorld, info: ZoneInfo, who: str, *controllers: object) -> None:
    """Set a zone's controllers as one of those that it has."""
    holders = [each if isinstance(each, Principal) else world.who(str(each)) for each in controllers]
    change = UpdateSettingsArgs(info.canister, CanisterSettings(controllers=holders))
    world.node.manage("update_settings", change, sender=who)


def roll_out(world: FactoryWorld, version: int) -> Any:
    world.release(version, world.node.build(ZoneWithMotto))
    started = world.operator.fleet_rollout_start(RolloutArgs([KindVersion("zone", version)], 10))
    world.node.run()
    for _ in range(10):
        world.node.advance(seconds=60)
    return world.operator.fleet_rollout(started.ok)


def alarms(world: FactoryWorld) -> set[tuple[str, str]]:
    return {(alarm.kind, alarm.subject) for alarm in world.operator.fleet_alarms_open()}


def test_a_rollout_reaches_the_zones_whose_owners_let_it(factory: FactoryWorld) -> None:
    team, club, choir = (factory.make("ann", name) for name in ("team", "club", "choir"))
    alone = factory.make("bob", "alone", factory_controls=False)
    assert (alone.control.tag, factory.status(alone.canister).settings.controllers) == (
        "owner",
        [factory.who("bob")],
    )
    control(factory, club, "ann", "ann")
    control(factory, choir, "ann", "ann")
    assert factory.as_("ann").check_zone("choir").control.tag == "owner"
    assert alarms(factory) == set(), "she said so"
    info = roll_out(factory, 2)
    assert (info.state.tag, info.counts.forward) == ("done", 1)
    versions = {each.zone_id: each.version for each in factory.as_("x").zones_page(None, 10).zones}
    assert versions == {"team": 2, "club": 1, "choir": 1, "alone": 1}
    assert factory.node.actor(team.canister, ZoneWithMotto).motto() == "nothing is lost"
    with pytest.raises(Rejected, match="has no query method"):
        factory.node.actor(club.canister, ZoneWithMotto).motto()
    assert alarms(factory) == {("custody_taken", str(club.canister))}, "nobody had said so"
    assert factory.as_("x").zone_of("club").control.tag == "owner"
    assert factory.zone(club, "ann").my_role() == 500
    new = factory.make("cid", "new")
    assert new.version == 2


def test_control_that_is_given_back_is_control_again(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team")
    control(factory, info, "ann", "ann")
    assert factory.as_("ann").check_zone("team").control.tag == "owner"
    assert "no child" in factory.operator.fleet_top_up(info.canister, 10**12).failed
    control(factory, info, "ann", "ann", factory.id)
    assert factory.as_("ann").check_zone("team") == info
    assert roll_out(factory, 2).counts.forward == 1


def test_a_zone_alone_from_the_start_can_be_let_in_later(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team", factory_controls=False)
    assert factory.make("ann", "team") == info, "asking again changes nothing"
    control(factory, info, "ann", "ann", factory.id)
    assert factory.as_("ann").check_zone("team").control.tag == "both"


def test_the_census_finds_out_what_owners_did_behind_the_factory(factory: FactoryWorld) -> None:
    team, club, gone = (factory.make("ann", name) for name in ("team", "club", "gone"))
    control(factory, team, "ann", "ann")
    module = factory.node.manage("cannery_module_add", factory.node.build(Cottage))
    assert isinstance(module, bytes)
    factory.node.manage("stop_canister", CanisterIdRecord(gone.canister), sender="ann")
    factory.node.manage("delete_canister", CanisterIdRecord(gone.canister), sender="ann")
    deed = encode_args(Deed(factory.who("ann"), False))
    install = InstallChunkedCodeArgs(InstallMode.reinstall(), club.canister, None, [], module, deed)
    factory.node.manage("install_chunked_code", install, sender="ann")
    factory.operator.fleet_census_take()
    factory.node.run()
    assert alarms(factory) == {("custody_taken", str(team.canister)), ("custody_taken", str(club.canister))}
    found = {each.zone_id: each.control.tag for each in factory.as_("x").zones_page(None, 10).zones}
    assert found == {"team": "owner", "club": "owner"}
    assert factory.make("bob", "gone").owner == factory.who("bob"), "its id is free"


def test_whoever_controls_a_zone_that_its_owner_left_owns_it(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team")
    with pytest.raises(Rejected, match="neither owns nor controls"):
        factory.as_("bob").check_zone("team")
    control(factory, info, "ann", "ann", "bob", factory.id)
    assert factory.as_("bob").check_zone("team").owner == factory.who("ann"), "she has not left it"
    control(factory, info, "bob", "bob", factory.id)
    assert factory.as_("bob").check_zone("team").owner == factory.who("bob")
    assert factory.as_("x").zones_of(factory.who("ann"), None, 10).zones == []
    assert factory.make("bob", "team").canister == info.canister
    with pytest.raises(Rejected, match="already"):
        factory.make("ann", "team")


def test_the_id_of_a_zone_that_was_deleted_is_free(factory: FactoryWorld) -> None:
    for name, options in (("team", {}), ("club", {"factory_controls": False})):
        info = factory.make("ann", name, **options)
        factory.node.manage("stop_canister", CanisterIdRecord(info.canister), sender="ann")
        factory.node.manage("delete_canister", CanisterIdRecord(info.canister), sender="ann")
        with pytest.raises(Rejected, match="was deleted: its id is free"):
            factory.as_("bob").check_zone(name)
        assert factory.as_("x").zone_of(name) is None
        assert factory.make("bob", name).owner == factory.who("bob")


def test_a_zone_is_deleted_by_operators_but_never_given_to_somebody_else(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team")
    assert "delete it instead" in factory.operator.fleet_recycle(info.canister).busy
    assert factory.operator.fleet_delete(info.canister).tag == "ok"
    factory.node.run()
    assert info.canister not in factory.canisters()
    assert factory.operator.fleet_status().pool == 0
    assert factory.make("bob", "team").owner == factory.who("bob")


def test_a_zone_that_moves_to_another_canister_keeps_its_id_its_owner_and_its_factory(
    factory: FactoryWorld,
) -> None:
    info = factory.make("ann", "team")
    moved = factory.operator.fleet_replace(info.canister, None, None).ok
    found = factory.as_("x").zone_of("team")
    assert (found.canister, found.owner, found.control.tag) == (moved.canister, info.owner, "both")
    assert factory.as_("x").zone_at(info.canister) == found == factory.as_("x").zone_at(moved.canister)
    assert factory.zone(found, "ann").my_role() == 500
    assert roll_out(factory, 2).counts.forward == 1


def test_a_zone_out_of_the_pool_is_its_owners_like_any_other(factory: FactoryWorld) -> None:
    factory.operator.fleet_pool_set(PoolRule(2, 0))
    factory.node.run()
    prepared = factory.canisters()
    info = factory.make("ann", "team")
    factory.node.run()
    assert info.canister in prepared
    assert set(factory.status(info.canister).settings.controllers) == {factory.who("ann"), factory.id}
    assert alarms(factory) == set()
