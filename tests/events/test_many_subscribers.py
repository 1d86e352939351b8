"""Ten thousand subscribers of one zone: each hears each message once; who does not read costs nothing."""

from __future__ import annotations

import asyncio

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EventRequest
from cannery.node.gateway.push.subscriptions import Subscription, Subscriptions
from cannery.node.handover import (
    Decided,
    Events,
    EventsRead,
    QueryMessage,
    ReadEvents,
    Stale,
    ToGateway,
    Watch,
)
from cannery.node.subnet_port import EventListener
from tests.apps.zones.world import ZoneWorld
from tests.events.test_watches import Desk

COUNT = 10_000
NEVER_NS = 2**63
_request = encoder((type_of(EventRequest),))


class Port:
    """The subnet's watches as a gateway sees them, without a socket between."""

    is_full = False

    def __init__(self, desk: Desk) -> None:
        self.desk = desk
        self.ids = 0

    def listen(self, listener: EventListener) -> None:
        self.listener = listener

    def post(self, message: ToGateway) -> None:
        match message:
            case Decided():
                self.listener.decided(message)
            case Stale(ids):
                self.listener.stale(ids)
            case Events():
                self.listener.events(message)

    def watch(self, query: QueryMessage) -> int:
        self.ids += 1
        self.desk.watches.watch(self, Watch(self.ids, query))
        return self.ids

    def unwatch(self, id: int) -> None:
        self.desk.watches.unwatch(self, id)

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        return self.desk.watches.read(ReadEvents(0, canister_id, since))


class Reader:
    """A connection that counts the events it was sent; `stops`: it takes nothing."""

    def __init__(self) -> None:
        self.heard = 0
        self.ends = 0
        self.reading = asyncio.Event()
        self.reading.set()

    @property
    def is_writable(self) -> bool:
        return self.reading.is_set()

    async def writable(self) -> None:
        await self.reading.wait()

    def send(self, frame: bytes) -> None:
        self.heard += b"\x65event" in frame[:24]

    def ended(self, subscription: Subscription) -> None:
        self.ends += 1


async def settle() -> None:
    """Let whatever can go on come to its end."""
    for _ in range(20):
        await asyncio.sleep(0)


def test_ten_thousand_subscribers_of_one_zone_hear_each_message_once() -> None:
    asyncio.run(_many())


async def _many() -> None:
    desk = Desk()
    world = ZoneWorld(node=desk.node)
    world.join("bob")
    port = Port(desk)
    subscriptions = Subscriptions(port)
    arg = _request((EventRequest(bytes(32), "", ["messages"], None),))
    readers = [Reader() for _ in range(COUNT)]
    for place, reader in enumerate(readers):
        who = desk.node.principal("bob" if place % 2 else "ann").raw
        query = QueryMessage(bytes(32), who, world.zone.id.raw, "events_allowed", arg)
        subscription = Subscription(reader, world.zone.id.raw, ("messages",), None, NEVER_NS)
        subscriptions.open(subscription, query)
    desk.decide()
    await settle()
    silent = readers[::100]
    for reader in silent:
        reader.reading.clear()
    for number in range(3):
        world.post("a", f"message {number}")
    await settle()
    assert {reader.heard for reader in readers if reader.is_writable} == {3}
    assert {reader.heard for reader in silent} == {0}, "nothing is kept for who does not read"
    for reader in silent:
        reader.reading.set()
    await settle()
    assert {reader.heard for reader in silent} == {3}, "who reads again catches up from the zone's log"
    world.as_("ann").member_remove(desk.node.principal("bob"))
    desk.decide()
    world.post("a", "not for bob")
    await settle()
    assert {reader.heard for reader in readers[1::2]} == {3}
    assert {reader.ends for reader in readers[1::2]} == {1}, "who is no member any more hears that it is over"
    assert {reader.heard for reader in readers[::2]} == {4}
    assert len(subscriptions) == COUNT // 2
