"""The subnets that follow this one's streams over the local socket: each gets what is durable, in a window.

A follower begins where its own durable state stands, so what was sent and not received is sent again when it
comes back. What is on its way is bounded: no more is read out of the store until it says what has arrived.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol

from cannery.errors import StoreError
from cannery.limits import STREAM_SLICE_SIZE_BYTES_MAX
from cannery.node.handover import Follow, Received, Slice, ToGateway
from cannery.node.links import find_histories_fault
from cannery.node.service import Subnet
from cannery.replica.block import StreamAck

_WINDOW_SIZE_BYTES: Final = 4 * STREAM_SLICE_SIZE_BYTES_MAX


class Connection(Protocol):
    """Where a follower is reached."""

    @property
    def is_full(self) -> bool: ...

    def post(self, message: ToGateway) -> None: ...

    def close(self) -> None: ...


@dataclass(slots=True)
class _Follower:
    id: int
    subnet: int
    next: int
    on_the_way: deque[tuple[int, int]] = field(default_factory=deque)
    size_bytes: int = 0


class Followers:
    """Sends slices; behind `links.StreamPort`."""

    def __init__(self, subnet: Callable[[], Subnet]) -> None:
        self._subnet = subnet
        self._followers: dict[Connection, _Follower] = {}

    def follow(self, connection: Connection, message: Follow) -> None:
        """Begin to send a subnet its stream."""
        subnet = self._subnet()
        fault = find_histories_fault(subnet, message.subnet, message.first)
        if fault is not None:
            subnet.links.note_fault(message.subnet, fault)
            connection.close()
            return
        subnet.links.note_fault(message.subnet, None)
        self._followers[connection] = _Follower(message.id, message.subnet, message.first)
        self._acknowledge(message.subnet, message.first)
        found = subnet.slice_for(message.subnet, message.first)
        if not found.entries:
            # That there is nothing it has not heard ends the follower's uncertainty.
            connection.post(Slice(message.id, found))
        self.note_durable()

    def received(self, connection: Connection, message: Received) -> None:
        """Let go of what a follower has."""
        follower = self._followers.get(connection)
        if follower is None:
            return
        while follower.on_the_way and follower.on_the_way[0][0] <= message.received:
            follower.size_bytes -= follower.on_the_way.popleft()[1]
        self._acknowledge(message.subnet, message.received)
        self.note_durable()

    def drop(self, connection: Connection) -> None:
        """Forget a follower whose connection is gone."""
        self._followers.pop(connection, None)

    def note_durable(self) -> None:
        """Send what is durable and not sent yet; what cannot be read is read again after the next sync."""
        for connection, follower in self._followers.items():
            links = self._subnet().links
            try:
                self._send(connection, follower)
            except StoreError as error:
                links.note_fault(follower.subnet, f"subnet {follower.subnet} is not told all: {error}")
            else:
                links.note_fault(follower.subnet, None)

    def _send(self, connection: Connection, follower: _Follower) -> None:
        while follower.size_bytes < _WINDOW_SIZE_BYTES and not connection.is_full:
            found = self._subnet().slice_for(follower.subnet, follower.next)
            if not found.entries:
                break
            follower.next = found.first + len(found.entries)
            size = sum(map(len, found.entries))
            follower.on_the_way.append((follower.next, size))
            follower.size_bytes += size
            connection.post(Slice(follower.id, found))

    def _acknowledge(self, peer: int, received: int) -> None:
        subnet = self._subnet()
        if subnet.is_unacknowledged(peer, received):
            subnet.links.put(StreamAck(peer, received))
