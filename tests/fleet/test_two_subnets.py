"""A fleet over two subnets: members are known on both, and a right that was taken away is gone everywhere."""

from __future__ import annotations

import pytest

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.cdk.management import CanisterIdArg, FleetConfigureArgs, FleetConfigureResult, FleetRole
from cannery.client.errors import Rejected
from cannery.protocol.principal import MANAGEMENT
from cannery.replica import keys
from cannery.replica.block import PeerLost, ReplicaConfig
from cannery.replica.management.fleet_types import FleetInfo, FleetMembersArgs
from cannery.replica.records import CANISTER, CanisterRecord, CanisterStatus
from cannery.testing import Actor, Node
from cannery.testing.actor import reply_of
from tests.fleet.test_index import OWNERS, build_village
from tests.fleet.village import Cottage


class Country:
    """A village with cottages on both subnets, where ann is a smith."""

    def __init__(self) -> None:
        self.node = Node(subnets=2, config=ReplicaConfig(spreads=True))
        self.village = build_village(self.node)
        self.near: list[Actor] = []
        self.far: list[Actor] = []
        for name in OWNERS:
            canister = self.village.as_(name).settle(False).canister
            cottage = self.node.actor(canister, Cottage).as_("ann")
            (self.far if self.node._subnet_of(canister).number else self.near).append(cottage)
        assert self.near
        assert self.far
        self.smiths = [FleetRole("smith", [self.node.principal("ann")])]
        assert self.village.fleet_config_set(FleetConfigureArgs(self.smiths, [], [])).waiting == []

    def everywhere(self) -> list[str]:
        return [cottage.forge() for cottage in (*self.near, *self.far)]


def test_members_of_both_subnets_are_the_fleets_and_read_its_configuration() -> None:
    country = Country()
    with country.node as node:
        members = node.manage("cannery_fleet_members", FleetMembersArgs(country.village.id, None, 100))
        assert isinstance(members, list)
        assert set(members) == {cottage.id for cottage in (*country.near, *country.far)}
        info = node.manage("cannery_fleet_info", country.village.id)
        assert isinstance(info, FleetInfo)
        assert info.members == len(OWNERS)
        assert country.everywhere() == ["a sword"] * len(OWNERS)
        for cottage in (*country.near, *country.far):
            with pytest.raises(Rejected, match="you are no smith here"):
                cottage.as_("bob").forge()


def test_a_right_that_is_taken_away_is_gone_on_every_subnet_when_the_answer_comes() -> None:
    country = Country()
    with country.node:
        result = country.village.fleet_config_set(FleetConfigureArgs([], country.smiths, []))
        assert (result.version, result.waiting) == (2, [])
        for cottage in (*country.near, *country.far):
            with pytest.raises(Rejected, match="you are no smith here"):
                cottage.forge()


def test_members_that_are_not_reached_are_listed_and_refuse_until_they_have_synchronised() -> None:
    country = Country()
    with country.node as node:
        home, away = node.subnets
        arg = encoder((type_of(FleetConfigureArgs),))((FleetConfigureArgs([], country.smiths, []),))
        ticket = node.submit_raw(country.village.id, "fleet_config_set", arg, node.operator)
        node.step_subnet(home)
        assert node.take_answer(ticket) is None, "it waits for the other subnet"
        node.clock.set_ns(node.now_ns + 6 * 10**9)
        for _ in range(4):
            node.step_subnet(home)
        answer = node.take_answer(ticket)
        assert answer is not None
        (result,) = decoder((type_of(FleetConfigureResult),))(reply_of(answer))
        assert isinstance(result, FleetConfigureResult)
        assert sorted(result.waiting) == sorted(cottage.id for cottage in country.far)
        # The other subnet notices that it has not heard the home, as its process does at a start.
        away.links.put(PeerLost(0))
        node.step_subnet(away)
        for cottage in country.far:
            with pytest.raises(Rejected, match="you are no smith here"):
                cottage.forge()
        node.run()
        for cottage in country.far:
            with pytest.raises(Rejected, match="you are no smith here"):
                cottage.forge()
        country.village.fleet_config_set(FleetConfigureArgs(country.smiths, [], []))
        assert country.everywhere() == ["a sword"] * len(OWNERS)


def test_a_subnet_that_starts_again_gives_no_role_before_it_has_heard_the_fleets_home() -> None:
    country = Country()
    with country.node as node:
        node.restart_subnet(1)
        node.step_subnet(node.subnets[1])
        with pytest.raises(Rejected, match="you are no smith here"):
            country.far[0].forge()
        node.run()
        assert country.everywhere() == ["a sword"] * len(OWNERS)


def test_a_child_that_somebody_starts_while_it_is_deleted_is_stopped_again() -> None:
    country = Country()
    with country.node as node:
        child, away = country.far[0].id, node.subnets[1]
        record = keys.owned(keys.CANISTERS, child.raw)
        assert country.village.fleet_delete(child).tag == "ok"
        stopped = False
        while not stopped:
            stopped = decode_canister(node, record).status is CanisterStatus.STOPPED
            assert stopped or node.step()
        about = encoder((type_of(CanisterIdArg),))((CanisterIdArg(child),))
        node.submit_raw(MANAGEMENT, "start_canister", about, country.village.id)
        node.step_subnet(away)
        assert decode_canister(node, record).status is CanisterStatus.RUNNING
        node.run()
        assert country.village.fleet_status().leaving == 1
        node.advance(seconds=10)
        assert country.village.fleet_status().leaving == 0
        assert node._stores[1].get(record) is None


def decode_canister(node: Node, record: bytes) -> CanisterRecord:
    data = node._stores[1].get(record)
    assert data is not None
    return CANISTER.decode(data)
