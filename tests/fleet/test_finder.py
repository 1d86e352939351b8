"""A client of a spread fleet: asks the root once, goes straight to the canister, and falls back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import nat64, type_of
from cannery.client.errors import Rejected, Unverified
from cannery.client.finder import Finder, NotFound
from cannery.protocol.principal import Principal
from cannery.testing import Node
from tests.fleet.county import Borough, Sizes, build_county, settle

NO_ARGUMENT = encoder(())(())
KNOCKS = decoder((type_of(nat64),))


class NodeAgent:
    """An agent without a network, which counts what it sends to whom."""

    def __init__(self, node: Node, who: str) -> None:
        self.node = node
        self.principal = node.principal(who)
        self.asked: list[Principal] = []

    async def query(self, canister: Principal, method: str, arg: bytes) -> bytes:
        self.asked.append(canister)
        return self.node.query_raw(canister, method, arg, self.principal)

    async def call(self, canister: Principal, method: str, arg: bytes) -> bytes:
        self.asked.append(canister)
        return self.node.call_raw(canister, method, arg, self.principal)


class Street:
    """A county with a split map, and ann who has a cottage there."""

    def __init__(self) -> None:
        self.node = Node(subnets=2)
        self.county = build_county(self.node, Sizes(entries_max=1, part_entries=4), locals_count=2)
        for name in ("ann", "bob", "cid", "dot"):
            settle(self.county, name)
        for _ in range(3):
            self.node.advance(seconds=11)
        assert self.county.fleet_locals().entries == 0
        self.agent = NodeAgent(self.node, "ann")
        self.ann = self.node.principal("ann")
        self.finder = Finder(self.agent, self.county.id)  # type: ignore[arg-type]

    def knock(self) -> int:
        async def knock(canister: Principal) -> Any:  # nat64
            return KNOCKS(await self.agent.call(canister, "knock", NO_ARGUMENT))[0]

        number: int = asyncio.run(self.finder.ask("cottage", self.ann, knock))
        return number

    def index_asked(self) -> int:
        return self.agent.asked.count(self.county.id)


@pytest.fixture
def street() -> Iterator[Street]:
    made = Street()
    with made.node:
        yield made


def test_the_root_is_asked_once_and_the_canister_directly_after_that(street: Street) -> None:
    assert [street.knock() for _ in range(5)] == [1, 2, 3, 4, 5]
    assert street.index_asked() == 1
    assert len(street.agent.asked) == 6, "one look-up, and one call for each knock"
    found = asyncio.run(street.finder.find("cottage", street.ann))
    assert found is not None
    assert found.canister == settle(street.county, "ann").canister  # type: ignore[union-attr]
    street.county.place_grow()
    for _ in range(4):
        street.node.advance(seconds=11)
    assert street.county.fleet_locals().parts > 1
    assert street.knock() == 6
    assert street.index_asked() == 1, "the map has moved, the canister has not"
    fresh = asyncio.run(street.finder.find("cottage", street.ann, fresh=True))
    assert fresh == found


def test_a_canister_that_has_moved_or_is_gone_is_looked_up_again(street: Street) -> None:
    street.knock()
    found = asyncio.run(street.finder.find("cottage", street.ann))
    assert found is not None
    borough = street.node.actor(found.index, Borough).as_(street.node.operator)
    assert borough.fleet_replace(found.canister, None, None).tag == "ok"
    street.node.advance(seconds=31)
    assert street.knock() == 2, "it has what it had, under a new id"
    assert street.index_asked() == 2
    moved = asyncio.run(street.finder.find("cottage", street.ann))
    assert moved is not None
    borough.fleet_delete(moved.canister)
    street.node.advance(seconds=31)
    with pytest.raises(NotFound, match="has no cottage"):
        street.knock()
    assert settle(street.county, "ann") is not None
    assert street.knock() == 1


class Mumbler:
    """An agent of somebody whose index answers with bytes that are no Candid."""

    async def query(self, canister: Principal, method: str, arg: bytes) -> bytes:
        return b"round the corner"


def test_what_no_index_would_answer_is_not_believed() -> None:
    ann = Principal(b"ann")
    with pytest.raises(Unverified, match="as no index does"):
        asyncio.run(Finder(Mumbler(), ann).find("cottage", ann))  # type: ignore[arg-type]


def test_a_refusal_is_passed_on_and_nothing_of_others_is_told(street: Street) -> None:
    with pytest.raises(Rejected, match="is for operators"):
        asyncio.run(street.finder.find("cottage", street.node.principal("bob")))

    async def shout(canister: Principal) -> bytes:
        return await street.agent.call(canister, "no_such_method", NO_ARGUMENT)

    street.knock()
    asked = len(street.agent.asked)
    with pytest.raises(Rejected, match="has no update method"):
        asyncio.run(street.finder.ask("cottage", street.ann, shout))
    assert len(street.agent.asked) == asked + 1
