"""A zone that its owners share: they are owners in it, and decide about it together."""

from __future__ import annotations

import pytest

from cannery.fleet.ownership_rules import Motion, NewCode, Share
from cannery.fleet.ownership_types import EQUAL
from cannery.testing import Node, Rejected
from tests.apps.zones.factory_world import FactoryWorld
from tests.apps.zones.test_factory_control import ZoneWithMotto, control, roll_out


@pytest.fixture
def factory(zone_node: Node) -> FactoryWorld:
    return FactoryWorld(node=zone_node)


def test_owners_of_a_zone_share_it_and_its_factory_goes_on_upgrading_it(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team")
    control(factory, info, "ann", "ann", info.canister, factory.id)
    owners = [Share(factory.who("ann"), 60), Share(factory.who("bob"), 40)]
    with pytest.raises(Rejected, match="Not a member of the zone"):
        factory.zone(info, "bob").ownership_found(owners, EQUAL, [])
    factory.zone(info, "ann").ownership_found(owners, EQUAL, [factory.id])
    assert set(factory.status(info.canister).settings.controllers) == {info.canister, factory.id}
    ann, bob = factory.zone(info, "ann"), factory.zone(info, "bob")
    assert (ann.my_role(), bob.my_role(), factory.zone(info, "cid").my_role()) == (500, 500, 0)
    assert factory.as_("ann").check_zone("team").control.tag == "both"
    assert roll_out(factory, 2).counts.forward == 1
    assert factory.node.actor(info.canister, ZoneWithMotto).motto() == "nothing is lost"

    made = ann.ownership_propose(Motion.hand_over([info.canister]), "without the factory")
    assert bob.ownership_vote(made.id, True).state.tag == "done"
    assert factory.status(info.canister).settings.controllers == [info.canister]
    assert factory.as_("ann").check_zone("team").control.tag == "owner"
    with pytest.raises(Rejected, match="Only controllers"):
        control(factory, info, "ann", "ann")


def test_owners_of_a_zone_upgrade_it_themselves(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team", factory_controls=False)
    control(factory, info, "ann", "ann", info.canister)
    owners = [Share(factory.who(name), 1) for name in ("ann", "bob", "cid")]
    factory.zone(info, "ann").ownership_found(owners, EQUAL, [])
    module_hash = factory.node.manage("cannery_module_add", factory.node.build(ZoneWithMotto))
    assert isinstance(module_hash, bytes)
    upgrade = Motion.upgrade(NewCode(module_hash, b"DIDL\x00\x00"))
    made = factory.zone(info, "cid").ownership_propose(upgrade, "the motto")
    assert factory.zone(info, "bob").ownership_vote(made.id, True).state.tag == "done"
    assert factory.node.actor(info.canister, ZoneWithMotto).motto() == "nothing is lost"
    assert factory.zone(info, "ann").my_role() == 500
    remove = Motion.remove_owner(factory.who("cid"))
    made = factory.zone(info, "ann").ownership_propose(remove, "cid has moved")
    factory.zone(info, "bob").ownership_vote(made.id, True)
    assert factory.zone(info, "cid").my_role() == 0
    # Who founded it stands in the zone's own list too, until another owner takes that away.
    remove = Motion.remove_owner(factory.who("ann"))
    ann, bob = factory.zone(info, "ann"), factory.zone(info, "bob")
    made = ann.ownership_propose(remove, "so have I")
    bob.ownership_vote(made.id, True)
    assert ann.my_role() == 500
    assert bob.member_remove(factory.who("ann"))
    assert (ann.my_role(), bob.my_role()) == (0, 500)
