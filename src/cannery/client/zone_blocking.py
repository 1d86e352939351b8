"""A zone for programs without an event loop: the async client, run to its answers one after the other.

with blocking_zone(url, identity, zone_id) as door:
    door.run(lambda zone: zone.post("lunch", b"at noon?"))
    for message in door.each(lambda zone: zone.live(after=0)):
        ...
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar, Unpack

from cannery.client.agent import AgentOptions, AsyncAgent
from cannery.client.zone import Zone, open_zone
from cannery.client.zone_anchors import Anchors
from cannery.protocol.identity import Identity
from cannery.protocol.principal import Principal

T = TypeVar("T")


class BlockingZone:
    """A zone and the event loop that its calls run in; of one thread."""

    def __init__(self, runner: asyncio.Runner, zone: Zone) -> None:
        self._runner = runner
        self._zone = zone

    def run(self, act: Callable[[Zone], Awaitable[T]]) -> T:
        """Do something with the zone and wait for what comes of it."""

        async def go() -> T:
            return await act(self._zone)

        return self._runner.run(go())

    def each(self, act: Callable[[Zone], AsyncIterator[T]]) -> Iterator[T]:
        """Iterate over what the zone gives, as it comes."""
        items = act(self._zone)

        async def following() -> T:
            return await anext(items)

        async def close() -> None:
            end = getattr(items, "aclose", None)
            if end is not None:
                await end()

        try:
            while True:
                try:
                    item = self._runner.run(following())
                except StopAsyncIteration:
                    return
                yield item
        finally:
            self._runner.run(close())


@contextmanager
def blocking_zone(
    url: str,
    identity: Identity,
    zone_id: Principal,
    *,
    anchors: Anchors | None = None,
    **options: Unpack[AgentOptions],
) -> Iterator[BlockingZone]:
    """Open a zone; `options` are those of an agent."""
    with asyncio.Runner() as runner:
        agent = AsyncAgent(url, identity, **options)
        try:
            yield BlockingZone(runner, runner.run(_open(agent, zone_id, anchors)))
        finally:
            runner.run(agent.close())


async def _open(agent: AsyncAgent, zone_id: Principal, anchors: Anchors | None) -> Zone:
    return await open_zone(agent, zone_id, anchors=anchors)
