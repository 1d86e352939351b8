"""The way of events from the machines to those who follow them: the real watches, subscriptions and client,
with a gateway's connections in between that are slow, break off and begin again.

`Gate` stands for a gateway's socket to one subnet, `Listener` for a client and its connection. All events of
a canister are of the one topic that its listeners want, so each number that is missing is a hole.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EVENTS_METHOD, EventRequest
from cannery.client.errors import Unverified
from cannery.client.events import Event, EventsEnded, Follower, Gap, _Again
from cannery.node.gateway.push.ports import EventPorts
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
from cannery.node.service import Subnet
from cannery.node.submitted import Durable
from cannery.node.subnet_port import EventListener
from cannery.node.watches import Watches
from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from tests.sim.failure import Broken

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# How many messages a gateway's socket holds before it is full.
FULL_COUNTS = (1, 3, 6)
CATCH_UP_TURNS_MAX = 500
NEVER_NS = 2**62
_encode_request = encoder((type_of(EventRequest),))


class Gate:
    """A gateway's connection to one subnet: behind `EventPort` there, an `Outlet` here."""

    def __init__(self, world: World, machine: Machine) -> None:
        self._world = world
        self.machine = machine
        self._subnet: Subnet | None = None
        self._watches: Watches | None = None
        self._full_count = world.chance.choice(FULL_COUNTS)
        self._jobs: deque[Callable[[], None]] = deque()
        self._inbox: deque[ToGateway] = deque()
        self._asked: dict[int, Watch] = {}
        self._id = 0
        self._listener: EventListener
        self._reading: dict[int, asyncio.Future[EventsRead | None]] = {}

    # behind `EventPort`

    def listen(self, listener: EventListener) -> None:
        self._listener = listener

    def watch(self, query: QueryMessage) -> int:
        self._id += 1
        asked = self._asked[self._id] = Watch(self._id, query)
        if self._watches is not None:
            self._watches.watch(self, asked)
        return self._id

    def unwatch(self, id: int) -> None:
        if self._asked.pop(id, None) is not None and self._watches is not None:
            self._watches.unwatch(self, id)

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        while True:
            self._id += 1
            waiting = self._reading[self._id] = asyncio.get_running_loop().create_future()
            if self._watches is not None and self.machine.is_up:
                with self.machine.crashing():
                    # It comes behind what was posted before, as on a socket.
                    self.post(self._watches.read(ReadEvents(self._id, canister_id, since)))
            page = await waiting
            if page is not None and page.error is None:
                return page

    # an `Outlet`

    @property
    def is_full(self) -> bool:
        return len(self._inbox) >= self._full_count

    def post(self, message: ToGateway) -> None:
        self._inbox.append(message)

    # what happens

    @property
    def is_busy(self) -> bool:
        """Say whether anything is on its way."""
        return bool(self._inbox or self._jobs) or self._subnet is not self.machine.subnet

    def deliver(self, durable: Durable) -> None:
        """Hear what has become durable."""
        if self._watches is not None and self._subnet is self.machine.subnet:
            self._watches.deliver(durable)

    def turn(self) -> None:
        """Connect again where the subnet's process is another, and bring some of what is on the way."""
        world, subnet = self._world, self.machine.subnet
        if subnet is not self._subnet:
            self._connect(subnet)
        if subnet is not None and not subnet.is_rejoining:
            with self.machine.crashing():
                for _ in range(len(self._jobs)):
                    self._jobs.popleft()()
        was_full = self.is_full
        while self._inbox and (world.is_calm or world.chance.random() < 0.7):
            self._hear(self._inbox.popleft())
        if was_full and not self.is_full and self._watches is not None:
            self._watches.resume(self)
        if not self._inbox:
            self._give_up_reading()

    def _give_up_reading(self) -> None:
        """Let those ask again whose pages will not come."""
        for waiting in self._reading.values():
            if not waiting.done():
                waiting.set_result(None)
        self._reading.clear()

    def _connect(self, subnet: Subnet | None) -> None:
        self._inbox.clear()
        self._give_up_reading()
        self._jobs.clear()
        self._subnet = subnet
        self._listener.stale(tuple(self._asked))
        self._watches = None
        if subnet is not None:
            self._watches = Watches(lambda: subnet, self._ask)
            for asked in self._asked.values():
                self._watches.watch(self, asked)

    def _ask(self, job: Callable[[], None]) -> bool:
        self._jobs.append(job)
        return True

    def _hear(self, message: ToGateway) -> None:
        match message:
            case Decided(id=id) if id in self._asked:
                self._listener.decided(message)
            case Stale(ids=ids):
                self._listener.stale(tuple(id for id in ids if id in self._asked))
            case Events():
                self._listener.events(message)
            case EventsRead(id=id):
                waiting = self._reading.pop(id, None)
                if waiting is not None and not waiting.done():
                    waiting.set_result(message)


class Push:
    """A gateway with all who listen."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.loop = asyncio.new_event_loop()
        self.gates = [Gate(world, machine) for machine in world.machines]
        self.subscriptions = Subscriptions(EventPorts(self.gates))
        self.listeners: list[Listener] = []
        self.silent: list[Line] = []
        # What a listener has found wrong: within a task of the gateway nobody would hear of it.
        self.fault: Broken | None = None
        world.on_durable.append(self._deliver)
        world.on_turn.append(self.turn)

    def _deliver(self, machine: Machine, durable: Durable) -> None:
        self.gates[machine.number].deliver(durable)

    def turn(self) -> None:
        """Let a little happen."""
        if self.listeners:
            self.loop.run_until_complete(self._turn())
        if self.fault is not None:
            raise self.fault

    async def _turn(self) -> None:
        for listener in self.listeners:
            listener.turn()
        for gate in self.gates:
            gate.turn()
        for _ in range(4):
            await asyncio.sleep(0)

    def catch_up(self, listeners: Sequence[Listener]) -> None:
        """Let these hear all that there is. Raises `Broken`."""
        for _ in range(CATCH_UP_TURNS_MAX):
            if all(listener.lacks == 0 for listener in listeners):
                return
            self.turn()
        lacks = [f"{listener.who} lacks {listener.lacks}" for listener in listeners]
        raise Broken("everything comes to its end", f"who listens hears no more: {lacks}")

    def hang_up(self, line: Line) -> None:
        """Close a connection."""
        subscription, line.subscription = line.subscription, None
        if subscription is not None:
            self.subscriptions.close(subscription)

    def close(self) -> None:
        """End all connections."""

        async def end() -> None:
            for listener in self.listeners:
                listener.disconnect()
            for line in self.silent:
                self.hang_up(line)
            for _ in range(4):
                await asyncio.sleep(0)

        self.loop.run_until_complete(end())
        self.loop.close()


class Line:
    """One connection of a client: behind `Reader`. A silent one is never read again, and never closed."""

    def __init__(self, listener: Listener) -> None:
        self.listener = listener
        self.subscription: Subscription | None = None
        self._writable: asyncio.Future[None] | None = None
        self._is_writable = True

    def let_write(self, is_writable: bool) -> None:
        """Take what was sent, or not."""
        self._is_writable = is_writable
        if is_writable:
            if self._writable is not None and not self._writable.done():
                self._writable.set_result(None)
            self._writable = None

    # behind `Reader`

    @property
    def is_writable(self) -> bool:
        return self._is_writable

    async def writable(self) -> None:
        while not self._is_writable:
            if self._writable is None:
                self._writable = asyncio.get_running_loop().create_future()
            await self._writable

    def ended(self, subscription: Subscription) -> None:
        if subscription is self.subscription:
            self.subscription = None
            self.listener.ended(self)

    def send(self, frame: bytes) -> None:
        self.listener.send(self, frame)


class Listener:
    """A client that follows a canister, over as many connections as it takes."""

    def __init__(self, push: Push, who: Principal, canister: Principal, topic: str) -> None:
        self.push = push
        self.who = who
        self.canister = canister
        self.heard: dict[int, bytes] = {}
        self.gaps: list[Gap] = []
        self.denied: EventsEnded | None = None
        self.wants = True
        self._topic = topic
        self._account = keys.owned(keys.ACCOUNTS, canister.raw)
        self._client = Follower("http://sim", None, canister, [topic])  # type: ignore[arg-type]
        self._client.next = 0
        self._line: Line | None = None
        push.listeners.append(self)

    @property
    def next(self) -> int:
        """The number of the event that it waits for."""
        assert self._client.next is not None
        return self._client.next

    @property
    def lacks(self) -> int:
        """Give how many events there are that it has not heard of."""
        data = self.push.world.machine_of(self.canister).store.get(self._account)
        return 0 if data is None else records.ACCOUNT.decode(data).event_next - self.next

    def turn(self) -> None:
        """Connect or break off, read or not, by chance."""
        world = self.push.world
        if self._line is None:
            if self.wants and (world.is_calm or world.chance.random() < 0.3):
                self._connect()
        elif not world.is_calm and world.chance.random() < 0.03:
            world.count("event connections lost")
            self.disconnect()
        elif world.plan.gone_rate and not world.is_calm and world.chance.random() < world.plan.gone_rate:
            self._fall_silent()
        is_writable = world.is_calm or world.chance.random() < 0.8
        if self._line is not None:
            self._line.let_write(is_writable)

    def _connect(self) -> None:
        request = EventRequest(bytes(32), "", [self._topic], self._client.next)
        query = QueryMessage(
            self.push.world.chance.randbytes(32),
            self.who.raw,
            self.canister.raw,
            EVENTS_METHOD,
            _encode_request((request,)),
        )
        self._line = line = Line(self)
        line.subscription = Subscription(line, self.canister.raw, (self._topic,), self._client.next, NEVER_NS)
        self.push.subscriptions.open(line.subscription, query)

    def disconnect(self) -> None:
        """Break the connection off."""
        line, self._line = self._line, None
        if line is not None:
            self.push.hang_up(line)

    def _fall_silent(self) -> None:
        """Be gone without a word: the gateway goes on believing in the connection. A new one begins later."""
        line, self._line = self._line, None
        if line is not None:
            self.push.world.count("event connections that fell silent")
            line.let_write(False)
            self.push.silent.append(line)

    def ended(self, line: Line) -> None:
        """Hear that a connection is over."""
        if line is self._line:
            self._line = None

    def send(self, line: Line, frame: bytes) -> None:
        """Hear what comes over a connection; nobody hears what comes over one that is silent."""
        if line in self.push.silent:
            return
        try:
            self._take(_payload(frame))
        except Broken as broken:
            self.push.fault = self.push.fault or broken

    def _take(self, message: bytes) -> None:
        expected = self.next
        try:
            item = self._client._take(message)
        except _Again:
            # The node has ended the subscription; a client connects anew.
            self.push.world.count("event connections put off")
            return
        except Unverified as error:
            raise Broken("each event is heard once and in order", str(error)) from None
        except EventsEnded as ended:
            self.denied = ended
            if ended.reason == "ahead":
                raise Broken("an event leaves after its round is durable", str(ended)) from None
            return
        if isinstance(item, Event):
            self._hear(item, expected)
        elif isinstance(item, Gap):
            if item.first_lost != expected:
                raise Broken("a gap is explicit", f"{item}, and event {expected} was due")
            self.gaps.append(item)
            self.push.world.count("gaps of events")
        elif self.next != expected:
            raise Broken("a gap is explicit", f"event {expected} was due, now it is {self.next}")

    def _hear(self, event: Event, expected: int) -> None:
        if event.number != expected:
            raise Broken("a gap is explicit", f"event {event.number} came, and {expected} was due")
        self.push.world.secrets.shown(self.who, event.payload)
        self.push.world.count("events heard")
        self.heard[event.number] = event.payload
        self.denied = None
        data = self.push.world.machine_of(self.canister).store.synced(self._account)
        if data is None or event.number >= records.ACCOUNT.decode(data).event_next:
            raise Broken("an event leaves after its round is durable", f"{event}")


def _payload(frame: bytes) -> bytes:
    """Take a message out of its WebSocket frame (RFC 6455, section 5.2)."""
    length = frame[1] & 0x7F
    return frame[{126: 4, 127: 10}.get(length, 2) :]
