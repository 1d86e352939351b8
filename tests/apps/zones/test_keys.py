"""Keys of encrypted zones as the zone keeps them: who may write what, versions in order, what goes when."""

from __future__ import annotations

from typing import Any

import pytest

from cannery.apps.zones import bounds
from cannery.apps.zones.keys import KeyBox
from cannery.apps.zones.roles import Role
from cannery.testing import Rejected
from tests.apps.zones.test_members import HOUR_S, Source, by_canister
from tests.apps.zones.world import ZoneWorld


def box(world: ZoneWorld, who: str, data: bytes = b"box") -> KeyBox:
    return KeyBox(world.node.principal(who), data)


def versions(peer: Any) -> list[tuple[int, bytes]]:
    return [(each.version, each.box) for each in peer.key_own().boxes]


def test_admins_add_keys_in_order_and_members_find_their_boxes(world: ZoneWorld) -> None:
    ann, bob = world.as_("ann"), world.join("bob")
    assert (ann.key_records(1, 9).records, ann.key_records(1, 9).newest) == ([], 0)
    ann.key_add(1, b"record 1", [box(world, "ann", b"a1"), box(world, "bob", b"b1")], False)
    for version in (1, 3):
        with pytest.raises(Rejected, match="newest key has version 1, the next is 2"):
            ann.key_add(version, b"record", [], False)
    ann.key_add(2, b"record 2", [box(world, "ann", b"a2")], True)
    assert versions(ann) == [(2, b"a2")], "a linked key takes the place of those before"
    assert versions(bob) == [(1, b"b1")], "who does not get the new key keeps the one that they had"
    assert bob.key_records(2, 9).records == [b"record 2"]
    ann.key_grant(2, [box(world, "bob", b"b2")])
    assert versions(bob) == [(1, b"b1"), (2, b"b2")]
    world.upgrade()
    assert versions(bob) == [(1, b"b1"), (2, b"b2")]


def test_cards_are_ones_own_and_go_with_membership(world: ZoneWorld) -> None:
    ann, bob = world.as_("ann"), world.join("bob")
    bob.key_publish(b"card of bob")
    ann.key_add(1, b"record", [box(world, "bob")], False)
    (card,) = ann.key_cards(None, 10).cards
    assert (card.member, card.card, card.box) == (world.node.principal("bob"), b"card of bob", b"box")
    assert bob.key_own().card == b"card of bob"
    ann.member_remove(world.node.principal("bob"))
    assert ann.key_cards(None, 10).cards == []
    world.join("bob")
    assert (bob.key_own().card, bob.key_own().boxes) == (None, [])


def test_members_write_nothing_for_others(world: ZoneWorld) -> None:
    ann, bob = world.as_("ann"), world.join("bob", Role.moderator())
    ann.key_add(1, b"record", [], False)
    with pytest.raises(Rejected, match="this needs the role admin, you are moderator"):
        bob.key_add(2, b"record", [], False)
    with pytest.raises(Rejected, match="this needs the role admin"):
        bob.key_grant(1, [box(world, "ann")])
    bob.key_grant(1, [box(world, "bob", b"mine")])
    assert versions(bob) == [(1, b"mine")]
    with pytest.raises(Rejected, match="is no member: boxes are for members"):
        ann.key_grant(1, [box(world, "stranger")])
    with pytest.raises(Rejected, match="no key of version 2"):
        ann.key_grant(2, [])


def test_sizes_have_bounds(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    for act, what in (
        (lambda: ann.key_publish(b""), "card"),
        (lambda: ann.key_publish(bytes(bounds.KEY_CARD_SIZE_BYTES_MAX + 1)), "card"),
        (lambda: ann.key_add(1, bytes(bounds.KEY_RECORD_SIZE_BYTES_MAX + 1), [], False), "record"),
        (lambda: ann.key_add(1, b"r", [box(world, "ann", bytes(257))], False), "box"),
    ):
        with pytest.raises(Rejected, match=f"a {what} has 1 to \\d+ bytes, not"):
            act()
    assert ann.key_records(0, 0).newest == 0


def test_whoever_is_away_for_longer_than_a_role_holds_gets_the_keys_made_meanwhile(world: ZoneWorld) -> None:
    source, ann, bob = world.node.install(Source), world.as_("ann"), world.as_("bob")
    ann.set_provider(by_canister(source.id))
    source.tell(world.node.principal("bob"), 300)
    bob.refresh_role()
    bob.key_publish(b"card of bob")
    world.node.advance(seconds=HOUR_S + 1)
    assert bob.my_role() == 0
    assert [card.member for card in ann.key_cards(None, 10).cards] == [world.node.principal("bob")]
    ann.key_add(1, b"record", [box(world, "bob", b"b1")], False)
    with pytest.raises(Rejected, match="call refresh_role"):
        bob.key_own()
    assert bob.refresh_role() == 300
    assert versions(bob) == [(1, b"b1")]
    source.tell(world.node.principal("bob"), 0)
    world.node.advance(seconds=HOUR_S + 1)
    assert bob.refresh_role() == 0
    assert ann.key_cards(None, 10).cards == []
    with pytest.raises(Rejected, match="is no member: boxes are for members"):
        ann.key_grant(1, [box(world, "bob")])
