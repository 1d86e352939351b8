"""Local indexes on another subnet than their fleet's index: their children are members there."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    Service,
    continuation,
    method,
    query,
    same_fleet,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.management import (
    CreateInstalledArgs,
    CreateInstalledResult,
    FleetModuleArgs,
    Management,
    SubnetChoice,
)
from cannery.client.errors import Rejected
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.fleet_types import FleetInfo, FleetMembersArgs
from cannery.replica.management.types import VersionedCanisterId
from cannery.testing import Actor, Node


class Peer(Service):
    @method
    def greet(self) -> str: ...


class Noble(Canister):
    """An index, a local index and a child: each does what it may."""

    @update
    def found(self, ctx: Context, module_hash: bytes) -> Pending[None]:
        ctx.notify(Management().cannery_fleet_found())
        return ctx.call(Management().cannery_fleet_module_put(FleetModuleArgs(module_hash, "noble", 1)))

    @update
    def make(self, ctx: Context, module_hash: bytes, subnet: Principal | None) -> Pending[Principal]:
        holders = [ctx.id] if ctx.fleet in (None, ctx.id) else [ctx.id, ctx.fleet]
        place = None if subnet is None else SubnetChoice.id(subnet)
        args = CreateInstalledArgs(module_hash, b"DIDL\x00\x00", holders, place)
        return ctx.call(Management().cannery_create_installed(args), then=self.made)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult]) -> Principal:
        if not outcome.ok:
            ctx.reject(outcome.reject_message)
        return outcome.value.canister_id

    @update
    def appoint(self, ctx: Context, canister: Principal) -> Pending[None]:
        return ctx.call(Management().cannery_fleet_appoint(canister))

    @update
    def dismiss(self, ctx: Context, canister: Principal) -> Pending[None]:
        return ctx.call(Management().cannery_fleet_dismiss(canister))

    @update
    def ask(self, ctx: Context, peer: Principal) -> Pending[str]:
        return ctx.call(Peer(peer).greet())

    @query(only=same_fleet)
    def greet(self, ctx: Context) -> str:
        return "well met"


@dataclass
class Kingdom:
    """An index on the first subnet, a local index on the second."""

    node: Node
    code: bytes
    king: Actor
    duke: Actor

    def child(self, of: Actor) -> Actor:
        return self.node.actor(of.make(self.code, None), Noble)

    def number_of(self, actor: Actor) -> int:
        return self.node._subnet_of(actor.id).number


def _begin() -> Kingdom:
    node = Node(subnets=2, config=ReplicaConfig(spreads=True))
    code = node.manage("cannery_module_add", node.build(Noble))
    assert isinstance(code, bytes)
    king = node.install(Noble)
    king.found(code)
    duke = node.actor(king.make(code, Principal(node.routes[1].subnet_id)), Noble)
    king.appoint(duke.id)
    node.run()
    return Kingdom(node, code, king, duke)


def test_children_of_a_far_local_index_are_members_on_its_own_subnet() -> None:
    realm = _begin()
    with realm.node as node:
        children = [realm.child(realm.duke) for _ in range(3)]
        assert {realm.number_of(child) for child in children} == {1}
        near = node.actor(realm.king.make(realm.code, Principal(node.routes[0].subnet_id)), Noble)
        for child in children:
            assert near.ask(child.id) == child.ask(near.id) == child.ask(realm.king.id) == "well met"
        info = node.manage("cannery_fleet_info", realm.king.id)
        assert isinstance(info, FleetInfo)
        assert info.members == 5
        listed = node.manage("cannery_fleet_members", FleetMembersArgs(realm.duke.id, None, 10))
        assert listed == [child.id for child in children]
        listed = node.manage("cannery_fleet_members", FleetMembersArgs(realm.king.id, None, 10))
        assert listed == sorted([near.id, realm.duke.id])


def test_a_dismissal_holds_on_the_far_subnet_and_leaves_what_was_made() -> None:
    realm = _begin()
    with realm.node:
        before = realm.child(realm.duke)
        realm.king.dismiss(realm.duke.id)
        realm.node.run()
        after = realm.child(realm.duke)
        assert before.ask(realm.king.id) == "well met"
        with pytest.raises(Rejected, match="is for canisters of the same fleet"):
            after.ask(realm.king.id)
        realm.king.appoint(realm.duke.id)
        realm.node.run()
        assert realm.child(realm.duke).ask(realm.king.id) == "well met"


def test_an_appointment_that_ends_far_away_is_known_at_home() -> None:
    realm = _begin()
    with realm.node as node:
        node.manage("uninstall_code", VersionedCanisterId(realm.duke.id), sender=realm.king)
        with pytest.raises(Rejected, match="is no local index of this fleet"):
            realm.king.dismiss(realm.duke.id)
        realm.king.appoint(realm.duke.id)


def test_a_subnet_that_has_not_heard_the_fleets_home_makes_no_members() -> None:
    realm = _begin()
    with realm.node as node:
        arg = encoder((type_of(bytes), type_of(Principal | None)))((realm.code, None))
        node.restart_subnet(1)
        ticket = node.submit_raw(realm.duke.id, "make", arg, node.operator)
        node.step_subnet(node.subnets[1])
        answer = node.take_answer(ticket)
        assert "has not heard the index of the fleet" in str(answer)
        node.run()
        assert realm.child(realm.duke).ask(realm.king.id) == "well met"
