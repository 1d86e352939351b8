"""A zone of a node that is killed again and again: members who post, and subscribers who never look away.

A subscriber follows the zone over all kills by one iteration of the client. What it was given is compared
with what the zone has, and with what those who posted were told.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import aclosing

from cannery.apps.zones.diode_types import IdResult
from cannery.apps.zones.zone import Zone as ZoneCanister
from cannery.client import AsyncAgent, Rejected
from cannery.client.errors import ClientError
from cannery.client.zone import Zone, join_zone, open_zone
from cannery.client.zone_values import Message, ZoneRefused
from cannery.protocol.identity import Ed25519Identity
from tests.clients.zone_town import ANN, BOB, EVE, Town
from tests.node_under_test import NodeUnderTest
from tests.sim.failure import Broken
from tests.sim.methods import shape

TOPICS = ("t0", "t1", "t2")
HEARD_S_MAX = 90.0
PATIENCE_S = 1_800.0


class KilledZone:
    """One zone: Ann owns it, Bob listens to all of it, and to one topic; Eve is a stranger."""

    def __init__(self, node: NodeUnderTest) -> None:
        self.town = Town(node)
        self.posted: dict[int, bytes] = {}
        self.asked: set[bytes] = set()
        self.heard: list[Message] = []
        self.heard_of_topic: list[Message] = []
        self._listening: list[asyncio.Task[None]] = []

    async def open(self, writers: list[Ed25519Identity]) -> None:
        """Let everybody in who posts or listens, and begin to listen."""
        async with self.town.as_(ANN) as ann:
            for writer in writers:
                await ann.set_member(writer.principal, "member")
            self._agent = self.town.agent(BOB, PATIENCE_S)
            bob = await join_zone(self._agent, self.town.id, await ann.invite(), patience_s=PATIENCE_S)
        self._listening = [
            asyncio.create_task(self._listen(bob, None, self.heard)),
            asyncio.create_task(self._listen(bob, TOPICS[1:2], self.heard_of_topic)),
        ]

    async def _listen(self, zone: Zone, topics: tuple[str, ...] | None, into: list[Message]) -> None:
        async with aclosing(zone.live(topics, after=0)) as items:
            async for item in items:
                if not isinstance(item, Message):
                    raise Broken("no subscriber misses a message", f"{item}")
                into.append(item)

    async def close(self) -> None:
        """Listen no more."""
        for task in self._listening:
            task.cancel()
        await asyncio.gather(*self._listening, return_exceptions=True)
        await self._agent.close()

    async def post(self, agent: AsyncAgent, topic: str, body: bytes) -> None:
        """Post as a member, and note what became of it."""
        self.asked.add(body)
        method = shape(ZoneCanister, "add_message")
        arg = method.encode_args((topic.encode().ljust(41, b"\0"), body))
        try:
            result = method.decode_results(await agent.call(self.town.id, "add_message", arg))
        except Rejected as rejected:
            raise Broken("members may post", str(rejected)) from None
        except ClientError:
            return
        assert isinstance(result, IdResult)
        if result.tag != "ok":
            raise Broken("members may post", f"{result}")
        self.posted[result.ok] = body

    async def check(self) -> int:
        """Compare the zone with what everybody was told and given; return how many messages it has."""
        async with self.town.agent(ANN, PATIENCE_S) as agent:
            found = await _read_all(await open_zone(agent, self.town.id, patience_s=PATIENCE_S))
        ids = [id for id, _ in found]
        if ids != list(range(1, len(ids) + 1)):
            raise Broken("one total order", f"the zone has ids {ids}")
        bodies = dict(found)
        lost = {id: body for id, body in self.posted.items() if bodies.get(id) != body}
        if lost:
            raise Broken("acknowledged implies readable", f"the zone has lost {lost}")
        if len(set(bodies.values())) != len(bodies) or not set(bodies.values()) <= self.asked:
            raise Broken("each call runs once", "the zone has a message twice, or of nobody")
        await self._check_heard(found)
        await self._probe()
        return len(found)

    async def _check_heard(self, found: list[tuple[int, bytes]]) -> None:
        end_s = time.monotonic() + HEARD_S_MAX
        while len(self.heard) < len(found) and time.monotonic() < end_s:
            for task in self._listening:
                if task.done():
                    task.result()
            await asyncio.sleep(0.2)
        if [(message.id, message.body) for message in self.heard] != found:
            raise Broken("a subscriber hears each message once and in order", f"{self.heard[-5:]}")
        ids = [message.id for message in self.heard_of_topic]
        known = [message.id for message in self.heard if message.topic == TOPICS[1]]
        # What comes last may still be on its way to the second one.
        if ids != known[: len(ids)] or len(known) - len(ids) > 50:
            raise Broken("a subscriber hears each message once and in order", f"{ids[-5:]}, {known[-5:]}")

    async def _probe(self) -> None:
        """A stranger reads nothing."""
        async with self.town.agent(EVE, PATIENCE_S) as agent:
            try:
                zone = await open_zone(agent, self.town.id, patience_s=PATIENCE_S)
                shown = await _read_all(zone)
            except (ZoneRefused, Rejected):
                return
        raise Broken("no message is visible to a non-member", f"Eve was shown {shown[:3]}")


async def _read_all(zone: Zone) -> list[tuple[int, bytes]]:
    items = await zone.history(list(TOPICS), merged=True).all()
    return [(item.id, item.body) for item in items]
