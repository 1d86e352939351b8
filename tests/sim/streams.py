"""The way between the machines of one node: it delays slices, breaks off, and brings again what it brought.

Like the local sockets of a real node: a connection brings slices in order, each read out of what was durable
then, perhaps long before it arrives. Where it breaks off, what was on the way is lost, the receiver is told
so, and the next connection begins where the receiver's durable state stands.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from cannery.errors import StoreError
from cannery.node.links import find_histories_fault
from cannery.node.service import Subnet
from cannery.replica.block import PeerLost, StreamAck, StreamSlice
from tests.sim.failure import Broken

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

ON_THE_WAY_COUNT_MAX = 4


class Connection:
    """What a receiver follows of one sender's stream: `next` is read next, `told` was acknowledged last."""

    def __init__(self, sender: Subnet, receiver: Subnet) -> None:
        self.sender = sender
        self.receiver = receiver
        self.next = receiver.received_from(sender.number)
        self.told = -1
        self.slices: deque[StreamSlice] = deque()
        # That there is nothing it has not heard ends the receiver's uncertainty.
        self.slices.append(sender.slice_for(receiver.number, self.next))
        self.next += len(self.slices[0].entries)


class Streams:
    """All connections between the machines of a world."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._ways = [(s, r) for s in world.machines for r in world.machines if s is not r]
        self._connections: dict[tuple[int, int], Connection] = {}

    @property
    def is_busy(self) -> bool:
        """Say whether anything is on its way, or could be."""
        return any(self._has_news(sender, receiver) for sender, receiver in self._ways)

    def _has_news(self, sender: Machine, receiver: Machine) -> bool:
        if sender.subnet is None or receiver.subnet is None:
            return False
        found = self._connections.get((sender.number, receiver.number))
        if found is None or found.slices or found.sender is not sender.subnet:
            return True
        received = receiver.subnet.received_from(sender.number)
        return found.told < received or found.next < sender.subnet.sent_to(receiver.number).next

    def turn(self) -> None:
        """Let every connection bring something, or break it off."""
        for sender, receiver in self._ways:
            try:
                self._turn(sender, receiver)
            except StoreError:
                # Where something cannot be read, the connection waits.
                if not (sender.store.damaged or receiver.store.damaged):
                    raise

    def _turn(self, sender: Machine, receiver: Machine) -> None:
        way = sender.number, receiver.number
        if sender.subnet is None or receiver.subnet is None:
            self._lose(way, receiver.subnet)
            return
        found = self._connections.get(way)
        if found is not None and (
            found.sender is not sender.subnet or found.receiver is not receiver.subnet or self._breaks()
        ):
            self._lose(way, receiver.subnet)
            found = None
        if sender.is_up and receiver.is_up:
            if found is None:
                found = self._connections[way] = self._connect(sender.subnet, receiver.subnet)
            self._carry(found)

    def _breaks(self) -> bool:
        world = self._world
        return not world.is_calm and world.chance.random() < world.plan.disconnect_rate

    def _lose(self, way: tuple[int, int], receiver: Subnet | None) -> None:
        found = self._connections.pop(way, None)
        if found is not None:
            self._world.count("connections lost")
            if receiver is not None:
                receiver.links.put(PeerLost(way[0]))

    def _connect(self, sender: Subnet, receiver: Subnet) -> Connection:
        fault = find_histories_fault(sender, receiver.number, receiver.received_from(sender.number))
        if fault is not None:
            raise Broken("streams: exactly once", fault)
        return Connection(sender, receiver)

    def _carry(self, found: Connection) -> None:
        world, sender, receiver = self._world, found.sender, found.receiver
        if len(found.slices) < ON_THE_WAY_COUNT_MAX:
            piece = sender.slice_for(receiver.number, found.next)
            if piece.entries:
                found.next = piece.first + len(piece.entries)
                found.slices.append(piece)
        while found.slices and (world.is_calm or world.chance.random() < 0.6):
            world.count("slices carried")
            receiver.links.put(found.slices.popleft())
        received = receiver.received_from(sender.number)
        if received > found.told and (world.is_calm or world.chance.random() < 0.6):
            found.told = received
            if sender.is_unacknowledged(receiver.number, received):
                sender.links.put(StreamAck(receiver.number, received))
