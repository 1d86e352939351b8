"""Live messages of a zone: each once, in the order of ids, over lost connections and restarts of the node.

A zone's ids are dense, and each new message is an event. Whoever knows the next id that they lack needs no
event to be sure: where a connection begins, where events are gone, or where an id is ahead of the one that is
due, the zone itself is asked for what lies between. Nothing is held but one page and what the connection
holds; whoever reads slowly is told a gap of events by the node, and asks the zone.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from cannery.candid.codec import decoder
from cannery.candid.errors import CandidError
from cannery.candid.python import nat32, nat64, record, type_of
from cannery.client.errors import Unverified
from cannery.client.events import Event, EventsEnded, Gap, Subscribed
from cannery.client.zone_door import ZoneDoor
from cannery.client.zone_history import LAST_ID, Fetch, HistoryPlan, Reader
from cannery.client.zone_values import Message, Missing, ZoneRefused, ZoneRewound
from cannery.limits import ZONE_TOPICS_PER_REQUEST_COUNT_MAX

MESSAGES_TOPIC = "messages"


@record
class ArrivalMessage:
    """A message as events tell it; a payload that is empty though `size` is above 0 was left out."""

    id: nat64
    at_ns: nat64
    hash: bytes
    size: nat32
    payload: bytes


@record
class Arrival:
    """The payload of an event of the topic `messages`."""

    topic: bytes
    message: ArrivalMessage


_decode_arrival = decoder((type_of(Arrival),))


class Live:
    """What one iteration over live messages knows: the next id that it lacks."""

    def __init__(self, door: ZoneDoor, keys: Sequence[bytes] | None, following: int, reader: Reader) -> None:
        self.next = following
        self._door = door
        self._keys = keys
        self._wanted = None if keys is None else frozenset(keys)
        self._reader = reader

    async def messages(self) -> AsyncGenerator[Message | Missing]:
        """Give messages from `next` on, for as long as the caller wants them."""
        since: int | None = None
        while True:
            steps = self._door.agent.event_steps(self._door.id, [MESSAGES_TOPIC], since=since)
            try:
                async with aclosing(steps):
                    async for step in steps:
                        async with aclosing(self._after(step)) as items:
                            async for item in items:
                                yield item
            except EventsEnded as ended:
                since = ended.next
                if ended.reason == "ahead":
                    since = None
                elif "call refresh_role" not in str(ended) or not await self._door.confirm_role():
                    raise ZoneRefused(str(ended).partition("; retry")[0], None) from None

    async def _after(self, step: Event | Gap | Subscribed) -> AsyncGenerator[Message | Missing]:
        if not isinstance(step, Event):
            async with aclosing(self._catch_up(LAST_ID)) as items:
                async for item in items:
                    yield item
            return
        arrival = arrival_of(step)
        fields = arrival.message
        is_whole = bool(fields.payload) or not fields.size
        if fields.id > self.next or (fields.id == self.next and not is_whole):
            async with aclosing(self._catch_up(fields.id - is_whole)) as items:
                async for item in items:
                    yield item
        if fields.id < self.next:
            return
        self.next = fields.id + 1
        if self._wanted is None or arrival.topic in self._wanted:
            yield await self._reader.open(arrival.topic, _fields_of(fields))

    async def _catch_up(self, last: int) -> AsyncGenerator[Message | Missing]:
        """Fetch what lies between the next id and `last`, as far as the zone has it."""
        # More topics than one request takes would come group by group: all are read then, in one order.
        keys = self._keys if len(self._keys or ()) <= ZONE_TOPICS_PER_REQUEST_COUNT_MAX else None
        plan = HistoryPlan(keys, first_id=self.next, last_id=last)
        fetch = Fetch(self._door, plan, self._reader)
        told = 0
        async with aclosing(fetch.messages()) as messages:
            async for message in messages:
                for gap in fetch.gaps[told:]:
                    yield gap
                told = len(fetch.gaps)
                self.next = message.id + 1
                if self._wanted is None or message.key in self._wanted:
                    yield message
        for gap in fetch.gaps[told:]:
            yield gap
        if fetch.newest + 1 < self.next:
            raise ZoneRewound(
                f"the zone's newest message is {fetch.newest}, and {self.next - 1} was here before: it was "
                "taken back to an earlier state; begin anew after the id from which you want to go on"
            )
        self.next = max(self.next, min(fetch.newest, last) + 1)


def arrival_of(event: Event) -> Arrival:
    """Read the payload of an event of the topic `messages`."""
    try:
        (arrival,) = _decode_arrival(event.payload)
    except CandidError as error:
        raise Unverified(f"event {event.number} of the zone is no arrival: {error}") from None
    assert isinstance(arrival, Arrival), "the decoder of a hint makes instances of that hint"
    return arrival


def _fields_of(message: ArrivalMessage) -> dict[str, object]:
    names = ("id", "at_ns", "hash", "size", "payload")
    return {name: getattr(message, name) for name in names}
