"""Live messages of a zone over kills of the node, and for slow readers: each once, in order, gaps told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import replace

import pytest

from cannery.candid.values import Variant
from cannery.client.errors import Unreachable
from cannery.client.zone import Zone, join_zone, open_zone
from cannery.client.zone_values import Message, Missing, ZoneRefused, ZoneRewound
from tests.clients.zone_town import ANN, BOB, Town
from tests.node_under_test import NodeUnderTest
from tests.waiting import NEVER_S

StartNode = Callable[..., NodeUnderTest]
KILLS, BETWEEN = 2, 40


async def take(items: AsyncIterator[Message | Missing], count: int) -> list[Message | Missing]:
    async with asyncio.timeout(NEVER_S):
        return [await anext(items) for _ in range(count)]


async def post(zone: Zone, start: int, count: int) -> None:
    await asyncio.gather(*(zone.post(f"t{n % 3}", b"%d" % n) for n in range(start, start + count)))


def test_kills_in_the_middle_lose_and_repeat_nothing(start_node: StartNode) -> None:
    node = start_node()
    town = Town(node)

    async def go() -> None:
        async with town.as_(ANN) as ann, town.agent(BOB) as agent:
            await ann.encrypt()
            bob = await join_zone(agent, town.id, await ann.invite())
            everything, some = bob.live(), bob.live(["t1"], after=0)
            first = asyncio.ensure_future(take(everything, 1))
            # It hears of what comes after it began: say something until it does.
            extra = 0
            while not first.done():
                extra += 1
                await ann.post("t0", b"-%d" % extra)
            heard, told = await first, []
            for turn in range(KILLS):
                posting = asyncio.ensure_future(post(ann, turn * BETWEEN, BETWEEN))
                heard += await take(everything, BETWEEN // 2)
                told += await take(some, BETWEEN // 8)
                await asyncio.to_thread(node.kill)
                await asyncio.to_thread(node.start)
                await posting
            count = KILLS * BETWEEN
            while {m.body for m in heard} < {b"%d" % n for n in range(count)}:  # type: ignore[union-attr]
                heard += await take(everything, 1)
            ids = [m.id for m in heard]  # type: ignore[union-attr]
            assert ids == list(range(ids[0], ids[0] + len(ids))), "each once, in order, none left out"
            wanted = await bob.history(["t1"]).all()
            told += await take(some, len(wanted) - len(told))
            assert told == wanted
            assert len(wanted) == count // 3 + (count % 3 > 1)
            for items in (everything, some):
                await items.aclose()

    asyncio.run(go())


def test_who_reads_slowly_holds_little_and_misses_nothing(running_node: NodeUnderTest) -> None:
    """Events that have left the zone's log (4 MiB) are a gap there, and not in what the zone still keeps."""
    town = Town(running_node)

    async def go() -> None:
        async with town.as_(ANN) as ann, town.as_(ANN) as slow:
            async with aclosing(slow.live(after=0)) as items:
                await ann.post("a", b"first")
                assert [m.id for m in await take(items, 1)] == [1]  # type: ignore[union-attr]
                for start in range(0, 600, 100):
                    await ann.post_many([("a", b"%d" % n + bytes(15_000)) for n in range(start, start + 100)])
                assert [m.id for m in await take(items, 600)] == list(range(2, 602))  # type: ignore[union-attr]
                rules = await ann.retention()
                await ann.set_retention(replace(rules, messages=replace(rules.messages, count_max=2)))
                await ann.post("a", b"last")
                assert [m.id for m in await take(items, 1)] == [602]  # type: ignore[union-attr]
            late = slow.live(after=5)
            gap, *rest = await take(late, 3)
            assert gap == Missing(6, 600)
            assert [m.id for m in rest] == [601, 602]  # type: ignore[union-attr]
            await late.aclose()
            for keys in (None, ["a"]):
                with pytest.raises(
                    ZoneRewound, match="the zone's newest message is 602, and 700 was here before"
                ):
                    await take(slow.live(keys, after=700), 1)

    asyncio.run(go())


def test_a_node_that_stays_away_ends_the_iteration(start_node: StartNode) -> None:
    node = start_node()
    town = Town(node)

    async def go() -> None:
        async with town.agent(ANN, patience_s=0.5) as agent:
            zone = await open_zone(agent, town.id)
            await zone.post("a", b"x")
            items = zone.live(after=0)
            await take(items, 1)
            await asyncio.to_thread(node.kill)
            with pytest.raises(Unreachable):
                await take(items, 1)

    asyncio.run(go())


def test_a_role_of_a_provider_that_runs_out_ends_the_iteration(running_node: NodeUnderTest) -> None:
    """Nothing happens in the zone but that time passes: it beats, and the node asks again."""
    parent, child = Town(running_node), Town(running_node)
    provider = {
        "kind": Variant("canister", parent.id),
        "member_ttl_ns": 10**9,
        "stranger_ttl_ns": 10**9,
        "outage_retry_ns": 10**9,
        "stale_ns_max": None,
        "role_max": 400,
    }

    async def go() -> None:
        async with parent.as_(ANN) as of_parent, child.as_(ANN) as ann, child.agent(BOB) as agent:
            await of_parent.set_member(child.id, "reader")
            await of_parent.set_member(BOB.principal, "member")
            await ann._door.tell("set_provider", provider)
            bob = await open_zone(agent, child.id)
            assert await bob.role() == 300, "who is not known yet has their role looked up"
            await bob.post("a", b"x")
            async with aclosing(bob.live(after=0)) as items:
                assert [m.id for m in await take(items, 1)] == [1]  # type: ignore[union-attr]
                await of_parent.remove_member(BOB.principal)
                with pytest.raises(ZoneRefused, match="Not a member of the zone"):
                    await take(items, 1)

    asyncio.run(go())
