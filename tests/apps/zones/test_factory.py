"""The factory of zones: made once, found by everybody, handed over, paid within bounds, upgraded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cannery.apps.zones.factory_types import ZoneInfo
from cannery.apps.zones.throttle import Rate, Rates
from cannery.apps.zones.zone_factory import ZoneFactory
from cannery.candid.codec import encoder
from cannery.cdk.describe import describe
from cannery.cdk.module_file import parse_module
from cannery.testing import Node, Rejected
from tests.apps.zones.factory_world import FactoryWorld, factory_module
from tests.fleet.test_strangers import simplest

ROOT = Path(__file__).parents[3]
TRILLION = 10**12


@pytest.fixture
def factory(zone_node: Node) -> FactoryWorld:
    return FactoryWorld(node=zone_node)


def test_a_zone_belongs_to_who_has_it_made_and_is_made_once(factory: FactoryWorld) -> None:
    info = factory.make("ann", "team")
    assert (info.owner, info.version, info.control.tag) == (factory.who("ann"), 1, "both")
    assert factory.make("ann", "team") == info
    assert set(factory.status(info.canister).settings.controllers) == {factory.who("ann"), factory.id}
    zone = factory.zone(info, "ann")
    assert (zone.get_zone_id(), zone.my_role()) == ("team", 500)
    with pytest.raises(Rejected, match=f"{factory.who('ann')}'s already, in {info.canister}"):
        factory.make("bob", "team")


def test_everybody_finds_zones_by_id_by_canister_by_owner_and_in_pages(factory: FactoryWorld) -> None:
    made = {name: factory.make(who, name) for who, name in (("ann", "c"), ("bob", "a"), ("ann", "b"))}
    for who in ("stranger", factory.node.principal("anonymous")):
        asked = factory.as_(who)
        assert asked.zone_of("c") == made["c"] == asked.zone_at(made["c"].canister)
        assert asked.zone_of("d") is asked.zone_at(factory.id) is None
        assert asked.zone_count() == 3
        found: list[ZoneInfo] = []
        after: str | None = None
        while True:
            page = asked.zones_page(after, 2)
            found, after = found + page.zones, page.next
            if after is None:
                break
        assert found == [made["a"], made["b"], made["c"]]
        assert asked.zones_of(factory.who("ann"), None, 1).zones == [made["b"]]
        assert asked.zones_of(factory.who("ann"), "b", 10).zones == [made["c"]]
        assert asked.zones_of(factory.who("cid"), None, 10).zones == []


def test_of_two_creations_at_the_same_moment_one_makes_the_zone(factory: FactoryWorld) -> None:
    before = factory.canisters()
    sent = {
        who: [factory.as_(who).create_zone.submit("team", None) for _ in range(3)] for who in ("ann", "bob")
    }
    factory.node.run()
    answers: list[Any] = []
    refusals: list[str] = []
    for each in (each for calls in sent.values() for each in calls):
        try:
            answers.append(each.result())
        except Rejected as rejected:
            refusals.append(str(rejected))
    assert answers
    assert all(answer == answers[0] for answer in answers)
    assert all("is being made" in text or "already" in text for text in refusals)
    assert factory.canisters() - before == {answers[0].canister}


@pytest.mark.parametrize("zone_id", ["", "x" * 129, "two\nlines", "ü" * 65])
def test_an_id_is_bounded_printable_text(factory: FactoryWorld, zone_id: str) -> None:
    with pytest.raises(Rejected, match="1 to 128 bytes of printable text"):
        factory.make("ann", zone_id)


def test_what_goes_into_a_zone_is_bounded(factory: FactoryWorld) -> None:
    for options in ({"rpc_host": "x" * 1025}, {"rpc_path": "x" * 1025}, {"call_token": bytes(1025)}):
        with pytest.raises(Rejected, match="at most 1024 bytes"):
            factory.make("ann", "team", **options)


def test_a_principal_makes_so_many_zones_and_is_told_when_to_come_back(factory: FactoryWorld) -> None:
    factory.rates(makes=Rates(Rate(2, 3_600), Rate(1_000, 3_600)))
    factory.make("ann", "a")
    factory.make("ann", "b")
    with pytest.raises(Rejected, match=r"2 times in 3600 s; retry after \d+ s"):
        factory.make("ann", "c")
    factory.make("bob", "c")
    factory.node.advance(seconds=3_800)
    factory.make("ann", "d")


def test_many_principals_make_no_more_than_all_together_may(factory: FactoryWorld) -> None:
    factory.rates(makes=Rates(Rate(2, 3_600), Rate(5, 3_600)))
    before = factory.canisters()
    for number in range(5):
        factory.make(f"stranger {number}", f"zone {number}")
    for number in range(5, 12):
        with pytest.raises(Rejected, match=r"all together.*retry after"):
            factory.make(f"stranger {number}", f"zone {number}")
    assert len(factory.canisters() - before) == 5


METHODS = describe(ZoneFactory).methods
FOR_ALL = {"zone_of", "zone_at", "zones_page", "zones_of", "zone_count", "factory_settings"}


@pytest.mark.parametrize("name", sorted(METHODS.keys() - FOR_ALL))
def test_no_method_serves_a_stranger(factory: FactoryWorld, name: str) -> None:
    """A stranger may make a zone with an id that nobody has; here all ids are Ann's."""
    entry = METHODS[name]
    arg = encoder(entry.args)(tuple(simplest(each) for each in entry.args))
    doors = [factory.node.call_raw]
    if str(entry.role) in ("query", "composite_query"):
        doors.append(factory.node.query_raw)
    for who in ("mallory", "anonymous"):
        for door in doors:
            with pytest.raises(Rejected):
                door(factory.id, name, arg, factory.node.principal(who))


def test_the_interface_in_the_docs_is_the_modules(zone_node: Node) -> None:
    did = parse_module(factory_module(zone_node)).did
    assert (ROOT / "docs" / "zone_factory.did").read_text() == did, "write docs/zone_factory.did anew"


def test_ids_that_no_zone_can_have_are_found_nowhere(factory: FactoryWorld) -> None:
    anybody, long = factory.as_("anybody"), "x" * 5_000
    assert anybody.zone_of(long) is None
    for act in (lambda: anybody.zones_page(long, 1), lambda: anybody.zones_of(factory.who("ann"), long, 1)):
        with pytest.raises(Rejected, match="after is a zone's id, of at most 128 bytes, not 5000"):
            act()
    with pytest.raises(Rejected, match="there is no zone x"):
        anybody.check_zone(long)
