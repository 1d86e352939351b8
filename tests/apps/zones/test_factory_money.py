"""What zones cost their factory, at the IC's prices: what is asked for, within bounds, and no cycle more."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest

from cannery import Principal
from cannery.apps.zones.factory_types import ZoneInfo
from cannery.apps.zones.throttle import Rate, Rates
from cannery.fleet.funding_types import FundingPolicy, QuotaScope
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.fleet.top_up_quota import Quota
from cannery.fleet.top_up_quota import Rate as Window
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, CanisterSettings, UpdateSettingsArgs
from cannery.replica.prices import IC
from cannery.testing import Node, Rejected
from tests.apps.zones.beggar import Beggar
from tests.apps.zones.factory_world import OFTEN, FactoryWorld
from tests.apps.zones.world import key_of

TRILLION = 10**12
BORN_WITH = 3 * TRILLION // 2
DAY_S = 86_400


@pytest.fixture(scope="module")
def priced() -> Iterator[Node]:
    with Node(config=ReplicaConfig(prices=IC)) as node:
        yield node


@pytest.fixture
def factory(priced: Node) -> FactoryWorld:
    world = FactoryWorld(node=priced, cycles=30 * TRILLION)
    world.operator.fleet_birth_set("zone", BORN_WITH)
    return world


def balance(world: FactoryWorld, canister: Principal) -> int:
    held: int = world.status(canister).cycles
    return held


def test_an_attack_by_many_principals_costs_what_the_bounds_allow_and_no_more(factory: FactoryWorld) -> None:
    factory.rates(OFTEN, OFTEN, births=Quota.rate(Window(2 * BORN_WITH, DAY_S)))
    for number in range(2):
        factory.make(f"mallory {number}", f"spam {number}")
    spent = balance(factory, factory.id)
    for number in range(2, 40):
        with pytest.raises(Rejected, match=r"all the cycles that they may be for now; retry after \d+ s"):
            factory.make(f"mallory {number}", f"spam {number}")
        with pytest.raises(Rejected, match="already"):
            factory.make(f"mallory {number}", "spam 0")
        with pytest.raises(Rejected, match="only zones"):
            factory.as_(f"mallory {number}").cycles_manager_transferCycles(TRILLION)
        with pytest.raises(Rejected, match="printable"):
            factory.make(f"mallory {number}", "")
        with pytest.raises(Rejected, match="there is no zone"):
            factory.as_(f"mallory {number}").check_zone("none")
    assert balance(factory, factory.id) == spent, "what was refused cost nothing"
    assert len(factory.operator.zones_page(None, 100).zones) == 2


def test_who_asks_again_and_again_is_refused_for_nothing(factory: FactoryWorld) -> None:
    factory.rates(OFTEN, asks=Rates(Rate(3, 3_600), Rate(5, 3_600)))
    for name in ("a", "b"):
        factory.make("mallory", name)
    for _ in range(3):
        factory.make("mallory", "a")
    before = balance(factory, factory.id)
    for _ in range(20):
        with pytest.raises(Rejected, match=r"you may do this 3 times in 3600 s; retry after"):
            factory.make("mallory", "b")
        with pytest.raises(Rejected, match="you may do this"):
            factory.as_("mallory").check_zone("b")
    assert balance(factory, factory.id) == before
    factory.make("ann", "c")
    factory.make("ann", "c")
    factory.make("ann", "c")
    with pytest.raises(Rejected, match="all together"):
        factory.make("ann", "c")


def test_principals_that_came_once_are_forgotten(factory: FactoryWorld) -> None:
    factory.operator.fleet_birth_set("zone", IC.creation + TRILLION // 10)
    keys = []
    for number in range(6):
        factory.make(f"guest {number}", f"zone {number}")
        keys.append(factory.node.manage("cannery_canister_metrics", CanisterIdRecord(factory.id)))
        factory.node.advance(seconds=2 * 60)
    grown = [int(each.key_count) for each in keys]  # type: ignore[union-attr, attr-defined]
    # Each zone adds the same entries; books of a guest whose window (60 s) is over went with the next one.
    assert len({after - before for before, after in pairwise(grown[1:])}) == 1


def test_a_factory_out_of_cycles_makes_no_zone_and_leaves_nothing(factory: FactoryWorld) -> None:
    factory.operator.fleet_funding_set(FundingPolicy(0, 29 * TRILLION, 0))
    before, held = factory.canisters(), balance(factory, factory.id)
    with pytest.raises(Rejected, match=r"lacks cycles for new zones.*retry after"):
        factory.make("ann", "team")
    assert (factory.canisters(), balance(factory, factory.id)) == (before, held)
    factory.node.top_up(factory.factory, TRILLION)
    info = factory.make("ann", "team")
    assert balance(factory, info.canister) < BORN_WITH - IC.creation


def test_a_birth_that_fails_gives_its_cycles_back_and_its_place_in_the_quota(factory: FactoryWorld) -> None:
    factory.operator.fleet_birth_set("zone", IC.creation - 1)
    factory.rates(OFTEN, OFTEN, births=Quota.rate(Window(IC.creation, DAY_S)))
    before = factory.canisters()
    for _ in range(3):
        with pytest.raises(Rejected, match=r"could not be made.*attach more"):
            factory.make("ann", "team")
    assert factory.canisters() == before
    assert factory.operator.fleet_status().making == 0


def test_a_factory_that_gives_new_zones_nothing_says_who_can_change_that(factory: FactoryWorld) -> None:
    factory.operator.fleet_birth_set("zone", 0)
    with pytest.raises(Rejected, match=r"attach more; zones are born without .* cannery fleet birth zone"):
        factory.make("ann", "team")


def poor(world: FactoryWorld, zone_id: str = "team") -> ZoneInfo:
    """Make a zone that has little."""
    world.operator.fleet_birth_set("zone", IC.creation + TRILLION // 5)
    return world.make("ann", zone_id)


def test_a_zone_that_is_low_gets_cycles_of_its_factory_within_its_quota(factory: FactoryWorld) -> None:
    info = poor(factory)
    held = balance(factory, info.canister)
    got = factory.zone(info, "ann").request_topup_if_low()
    assert got.ok == TRILLION // 2
    assert held < balance(factory, info.canister) <= held + TRILLION // 2
    assert factory.zone(info, "ann").request_topup_if_low().ok == TRILLION // 2
    assert factory.zone(info, "ann").request_topup_if_low().ok == 0, "it is not low any more"
    with pytest.raises(Rejected, match=r"Not a member|did not accept"):
        factory.zone(info, "mallory").request_topup_if_low()
    funds = factory.operator.fleet_child_funds(info.canister)
    assert funds.granted == TRILLION
    small = poor(factory, "small")
    factory.operator.fleet_quota_set(_scope(small), Quota.max(0))
    assert factory.zone(small, "ann").request_topup_if_low().err.tag == "canister_quota_reached"


def _scope(info: ZoneInfo) -> QuotaScope:
    return QuotaScope.child(info.canister)


def test_strangers_and_zones_that_it_does_not_control_get_nothing(factory: FactoryWorld) -> None:
    beggar = factory.node.install(Beggar, cycles=TRILLION)
    before = balance(factory, factory.id)
    with pytest.raises(Rejected, match="only zones that this factory controls"):
        beggar.beg(factory.id, TRILLION)
    assert balance(factory, factory.id) == before
    info = poor(factory)
    change = UpdateSettingsArgs(info.canister, CanisterSettings(controllers=[factory.who("ann")]))
    factory.node.manage("update_settings", change, sender="ann")
    answer = factory.zone(info, "ann").request_topup_if_low()
    assert "does not control this zone" in answer.err.other
    assert factory.as_("x").zone_of("team").control.tag == "owner"
    again = factory.zone(info, "ann").request_topup_if_low()
    assert "only zones" in again.err.other


def test_a_zone_without_cycles_is_read_only_says_why_and_thaws(
    factory: FactoryWorld,
) -> None:
    info = factory.make("ann", "team")
    zone = factory.zone(info, "ann")
    assert zone.add_message(key_of("k"), b"before").tag == "ok"
    idle = factory.status(info.canister).idle_cycles_burned_per_day
    freeze = CanisterSettings(freezing_threshold=4 * TRILLION * DAY_S // idle)
    factory.node.manage("update_settings", UpdateSettingsArgs(info.canister, freeze), sender="ann")
    with pytest.raises(Rejected, match="cycles") as refused:
        zone.add_message(key_of("k"), b"frozen")
    assert refused.value.error_code == "IC0207"
    assert zone.get_message_count() == 1
    assert zone.get_message_by_id(1).ciphertext == b"before"
    assert (zone.my_role(), zone.get_cycles_balance() > 0) == (500, True)
    rule = TopUpRule(Threshold.cycles(TRILLION), Refill.to_balance(9 * TRILLION))
    assert factory.operator.fleet_rule_set("zone", rule).tag == "ok"
    factory.operator.fleet_quota_set(_scope(info), Quota.unlimited())
    factory.operator.fleet_census_take()
    factory.node.run()
    thawed = zone.add_message(key_of("k"), b"after")
    assert thawed.tag == "ok"
