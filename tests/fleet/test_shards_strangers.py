"""Whom a spread fleet refuses: strangers, members that are no local indexes, those that lie, former ones."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from cannery import Canister, encode_args
from cannery.candid.codec import encoder
from cannery.client.errors import Rejected
from cannery.fleet.shards_types import Entry, EntryChange, LocalOrder, MapEntry
from cannery.protocol.principal import Principal
from cannery.replica.management.types import VersionedCanisterId
from cannery.testing import Node
from cannery.testing.actor import Actor, interface_of_class
from tests.fleet.county import (
    Borough,
    Cottage,
    County,
    Ledger,
    RogueBorough,
    Sizes,
    build_county,
    settle,
)
from tests.fleet.test_strangers import simplest

PREFIXES = ("fleet_local", "shard_", "map_")
METHODS = {
    f"{cls.__name__}.{name}": (cls, name)
    for cls in (County, Borough, Ledger)
    for name in interface_of_class(cls).methods
    if name.startswith(PREFIXES)
}


class Place:
    """A county with two boroughs that may lie, and a ledger."""

    def __init__(self) -> None:
        self.node = Node()
        sizes = Sizes(entries_max=0, part_entries=100)
        self.county = build_county(self.node, sizes, locals_count=2, borough=RogueBorough)
        found = [each.canister for each in self.county.fleet_locals().locals]
        self.boroughs = [self.node.actor(each, RogueBorough).as_(self.node.operator) for each in found]
        self.entries: dict[str, Entry] = {}
        for name in ("ann", "bob", "cid", "dot"):
            entry = settle(self.county, name)
            assert entry is not None
            self.entries[name] = entry
        for _ in range(3):
            self.node.advance(seconds=11)
        self.ledger = self.county.place_status().children[0].id
        assert self.county.fleet_locals().entries == 0

    def of(self, borough: Actor) -> str:
        """Give whose cottage a borough has made."""
        return next(name for name, entry in self.entries.items() if entry.index == borough.id)

    def find(self, name: str) -> Entry | None:
        found: Entry | None = self.county.as_(name).fleet_find("cottage", self.node.principal(name))
        return found

    def change(self, name: str, now: Principal | None) -> EntryChange:
        return EntryChange(self.node.principal(name), "cottage", self.entries[name].canister, now)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    made = Place()
    with made.node:
        yield made


def test_there_are_methods() -> None:
    assert len(METHODS) >= 14


@pytest.mark.parametrize("method", METHODS)
def test_a_stranger_is_refused(place: Place, method: str) -> None:
    cls, name = METHODS[method]
    homes: dict[type[Canister], Principal] = {
        County: place.county.id,
        Borough: place.boroughs[0].id,
        Ledger: place.ledger,
    }
    func = interface_of_class(cls).methods[name]
    arg = encoder(func.args)(tuple(simplest(each) for each in func.args))
    canister, node = homes[cls], place.node
    is_query = func.is_query or name.endswith("census")
    for who in ("mallory", Principal.anonymous(), place.entries["ann"].canister, place.boroughs[0].id):
        door = node.query_raw if is_query else node.call_raw
        with pytest.raises(
            Rejected, match=r"is for (operators|the index|canisters of the same|the canister)"
        ):
            door(canister, name, arg, node.principal(who))


def test_who_looks_up_is_the_owner_or_an_operator(place: Place) -> None:
    with pytest.raises(Rejected, match="is for operators"):
        place.county.as_("mallory").fleet_find("cottage", place.node.principal("ann"))
    assert place.county.fleet_find("cottage", place.node.principal("ann")) == place.entries["ann"]


def test_everybody_looks_up_where_the_author_lets_them() -> None:
    with Node() as node:
        county = build_county(node, Sizes(is_public=True), locals_count=1)
        entry = settle(county, "ann")
        assert county.as_("mallory").fleet_find("cottage", node.principal("ann")) == entry
        with pytest.raises(Rejected, match="is for operators"):
            county.as_("mallory").fleet_locals()


def test_a_stranger_who_calls_himself_a_local_index_is_refused(place: Place) -> None:
    change = place.change("ann", None)
    stranger = place.node.install(RogueBorough)
    with pytest.raises(Rejected, match="is for canisters of the same fleet"):
        stranger.lie(place.county.id, [change])
    for borough in place.boroughs:
        with pytest.raises(Rejected, match="is for the index of the fleet"):
            stranger.command(borough.id, place.node.principal("mallory"))
    assert place.find("ann") == place.entries["ann"]


def test_a_member_that_is_no_local_index_is_refused() -> None:
    with Node() as node:
        county = build_county(node, locals_count=1, cottage=RogueBorough)
        entry, victim = settle(county, "mallory"), settle(county, "ann")
        assert entry is not None
        assert victim is not None
        rogue = node.actor(entry.canister, RogueBorough)
        change = EntryChange(node.principal("ann"), "cottage", victim.canister, None)
        with pytest.raises(Rejected, match="is no local index of this fleet"):
            rogue.lie(county.id, [change])
        with pytest.raises(Rejected, match="is for the index of the fleet"):
            rogue.command(entry.index, node.principal("mallory"))
        assert county.as_("ann").fleet_find("cottage", node.principal("ann")) == victim


def test_a_local_index_has_no_say_about_the_children_of_another(place: Place) -> None:
    one, other = place.boroughs
    theirs, own = place.of(other), place.of(one)
    assert one.lie(place.county.id, [place.change(theirs, None), place.change(theirs, one.id)]) is not None
    place.node.run()
    assert place.find(theirs) == place.entries[theirs]
    wrong = EntryChange(place.node.principal(own), "cottage", one.id, None)
    one.lie(place.county.id, [wrong])
    place.node.run()
    assert place.find(own) == place.entries[own], "it never was that canister"
    with pytest.raises(Rejected, match="is for the index of the fleet"):
        one.command(other.id, place.node.principal("mallory"))
    entry = MapEntry(place.node.principal("mallory"), "cottage", Entry(one.id, one.id))
    with pytest.raises(Rejected, match="is for the index of the fleet"):
        one.scribble(place.ledger, entry)
    assert place.find("mallory") is None


def test_a_dismissed_local_index_goes_on_for_nobody_and_may_be_taken_back() -> None:
    place = Place()
    with place.node as node:
        one, other = place.boroughs
        own = place.of(one)
        code = node.manage("cannery_module_add", node.build(Cottage))
        assert isinstance(code, bytes)
        arg = encode_args(node.principal("eve"), False)
        assert node.actor(one.breed(code, arg), Cottage).get_version().fleet == place.county.id
        assert place.county.fleet_local_set(one.id, LocalOrder.dismiss()).tag == "ok"
        assert place.county.fleet_local_set(one.id, LocalOrder.serve()).tag == "err"
        assert node.actor(one.breed(code, arg), Cottage).get_version().fleet is None
        with pytest.raises(Rejected, match="is no local index of this fleet"):
            one.lie(place.county.id, [place.change(own, None)])
        assert place.find(own) == place.entries[own]
        assert node.actor(place.entries[own].canister, Cottage).get_version().fleet == place.county.id
        for name in ("eve", "fay", "gus"):
            entry = settle(place.county, name)
            assert entry is not None
            assert entry.index == other.id
        assert place.county.fleet_local_set(one.id, LocalOrder.reinstate()).tag == "ok"
        node.run()
        tags = [each.state.tag for each in place.county.fleet_locals().locals]
        assert tags == ["serving", "serving"]
        assert node.actor(one.breed(code, arg), Cottage).get_version().fleet == place.county.id


@pytest.mark.parametrize("ending", ["dismissed", "deleted"])
@pytest.mark.parametrize("is_split", [False, True])
def test_children_of_a_former_local_index_are_handed_over_to_another(ending: str, is_split: bool) -> None:
    with Node(subnets=2) as node:
        county = build_county(node, Sizes(entries_max=0 if is_split else 100), locals_count=2)
        entries = {name: settle(county, name) for name in ("ann", "bob", "cid")}
        for _ in range(3):
            node.advance(seconds=11)
        assert county.fleet_locals().parts == is_split
        ann = node.principal("ann")
        entry = entries["ann"]
        assert entry is not None
        cottage = node.actor(entry.canister, Cottage)
        cottage.knock()
        former = entry.index
        other = next(each.canister for each in county.fleet_locals().locals if each.canister != former)
        assert "dismiss that one first" in county.fleet_local_hand_over("cottage", ann, other).err
        if ending == "dismissed":
            county.fleet_local_set(former, LocalOrder.dismiss())
        else:
            county.fleet_delete(former)
        for _ in range(2):
            node.advance(seconds=11)
        assert "no local index that looks" in county.fleet_local_hand_over("cottage", ann, former).err
        nobody = node.principal("nobody")
        assert "no" in county.fleet_local_hand_over("cottage", nobody, other).err
        for _ in range(2):
            assert county.fleet_local_hand_over("cottage", ann, other).tag == "ok"
        found = county.as_("ann").fleet_find("cottage", ann)
        assert found == settle(county, "ann") == Entry(entry.canister, other)
        assert cottage.knock() == 2
        assert cottage.get_version().fleet == county.id
        borough = node.actor(other, Borough).as_(node.operator)
        assert borough.fleet_child(entry.canister).owner == ann
        borough.fleet_census_take()
        node.run()
        assert borough.fleet_child(entry.canister).state.tag == "active"
        borough.fleet_delete(entry.canister)
        node.advance(seconds=31)
        assert county.as_("ann").fleet_find("cottage", ann) is None


def test_a_local_index_that_was_emptied_serves_nobody_and_the_others_go_on() -> None:
    with Node() as node:
        county = build_county(node, locals_count=2)
        first, second = (each.canister for each in county.fleet_locals().locals)
        node.manage("uninstall_code", VersionedCanisterId(first), sender=county)
        for name in ("ann", "bob", "cid"):
            entry = settle(county, name)
            assert entry is not None
            assert entry.index == second
