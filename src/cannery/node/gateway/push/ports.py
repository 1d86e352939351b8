"""The events of several subnets as those of one port: each watch goes to the subnet of its canister."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from cannery.node.handover import Decided, Events, EventsRead, QueryMessage
from cannery.node.subnet_port import EventListener, EventPort
from cannery.replica import keys
from cannery.replica.places import SUBNET_BITS

_FIRST: Final = 0


class EventPorts:
    """Behind `EventPort`."""

    def __init__(self, ports: Sequence[EventPort]) -> None:
        self._ports = ports
        self._id = 0
        self._watches: dict[int, tuple[int, int]] = {}
        self._ids: dict[tuple[int, int], int] = {}

    def listen(self, listener: EventListener) -> None:
        """Tell who hears of watches; there is one."""
        for number, port in enumerate(self._ports):
            port.listen(_Renumbered(listener, number, self._ids))

    def watch(self, query: QueryMessage) -> int:
        """Begin a watch and give its number."""
        number = self._number_of(query.canister_id)
        self._id += 1
        own = self._ports[number].watch(query)
        self._watches[self._id] = number, own
        self._ids[number, own] = self._id
        return self._id

    def unwatch(self, id: int) -> None:
        """End a watch."""
        place = self._watches.pop(id, None)
        if place is not None:
            del self._ids[place]
            self._ports[place[0]].unwatch(place[1])

    async def read_events(self, canister_id: bytes, since: int) -> EventsRead:
        """Read a page of a canister's events from a number on."""
        return await self._ports[self._number_of(canister_id)].read_events(canister_id, since)

    def _number_of(self, canister_id: bytes) -> int:
        counter = keys.canister_counter(canister_id)
        number = _FIRST if counter is None else counter >> SUBNET_BITS
        return number if number < len(self._ports) else _FIRST


class _Renumbered:
    """Passes on what one subnet says, by the numbers of `EventPorts`."""

    def __init__(self, listener: EventListener, number: int, ids: dict[tuple[int, int], int]) -> None:
        self._listener = listener
        self._number = number
        self._ids = ids

    def decided(self, decided: Decided) -> None:
        id = self._ids.get((self._number, decided.id))
        if id is not None:
            self._listener.decided(replace(decided, id=id))

    def stale(self, ids: tuple[int, ...]) -> None:
        known = (self._ids.get((self._number, id)) for id in ids)
        self._listener.stale(tuple(id for id in known if id is not None))

    def events(self, events: Events) -> None:
        self._listener.events(events)
