"""Arrivals: all topics in one order of ids, gaps told, and an event for each message that is new."""

from __future__ import annotations

from typing import Any

import pytest

from cannery import EventRequest, LogRule, WhenFull
from cannery.apps.zones.arrivals import MESSAGES_TOPIC, Arrival
from cannery.apps.zones.bounds import EVENT_PAYLOAD_SIZE_BYTES_MAX
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.testing import Rejected
from cannery.testing.node import Event
from tests.apps.zones.world import ZoneWorld, digest

_decode = decoder((type_of(Arrival),))


def arrival_of(event: Event) -> Arrival:
    (arrival,) = _decode(event.payload)
    assert isinstance(arrival, Arrival)
    return arrival


def shown(page: Any) -> list[tuple[int, str, bytes]]:
    return [(a.message.id, a.topic.decode().rstrip("."), a.message.payload) for a in page.arrivals]


def test_pages_bring_all_topics_in_the_order_of_ids(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    assert ann.arrivals(1, 10, None).next is None
    for i in range(5):
        world.post("ab"[i % 2], f"m{i}")
    first = ann.arrivals(0, 2, None)
    assert shown(first) == [(1, "a", b"m0"), (2, "b", b"m1")]
    assert (first.gone, first.next, first.oldest, first.newest) == (None, 3, 1, 5)
    assert shown(ann.arrivals(3, 3, None)) == [(3, "a", b"m2"), (4, "b", b"m3"), (5, "a", b"m4")]
    assert ann.arrivals(3, 3, None).next is None
    assert ann.arrivals(3, 9, 1).next == 4, "a page brings one message, however small it must be"
    assert shown(ann.arrivals(6, 3, None)) == shown(ann.arrivals(2**63, 3, None)) == []


def test_what_was_dropped_is_told_with_its_bounds(world: ZoneWorld) -> None:
    world.retain(messages=LogRule(2, 10**9, None, WhenFull.prune_oldest()))
    for i in range(5):
        world.post("a", f"m{i}")
    ann = world.as_("ann")
    page = ann.arrivals(2, 9, None)
    assert (page.gone, [id for id, _, _ in shown(page)]) == (4, [4, 5])
    assert ann.arrivals(4, 9, None).gone is None
    ann.prune(9)
    assert (ann.arrivals(1, 9, None).gone, ann.arrivals(1, 9, None).arrivals) == (6, [])


def test_a_new_message_is_an_event_and_a_repeated_one_is_none(world: ZoneWorld) -> None:
    large = "x" * (EVENT_PAYLOAD_SIZE_BYTES_MAX + 1)
    world.post("a", "one", "two")
    world.post("a", "one", "three", "three", large)
    events = world.node.events(world.zone)
    assert {event.topic for event in events} == {MESSAGES_TOPIC}
    told = [arrival_of(event) for event in events]
    assert [a.message.id for a in told] == [1, 2, 3, 4]
    kept = world.as_("ann").arrivals(1, 9, None).arrivals
    assert told[:3] == kept[:3]
    assert (told[3].message.payload, told[3].message.size) == (b"", len(large))
    assert told[3].message.hash == kept[3].message.hash == digest(large.encode())


def test_strangers_and_those_who_left_get_neither(world: ZoneWorld) -> None:
    bob = world.join("bob")
    request = EventRequest(bytes(32), "", [MESSAGES_TOPIC, "x"], None)
    assert bob.events_allowed(request) == [MESSAGES_TOPIC]
    world.as_("ann").member_remove(world.node.principal("bob"))
    for ask in (lambda: bob.events_allowed(request), lambda: bob.arrivals(1, 9, None)):
        with pytest.raises(Rejected, match="Not a member of the zone"):
            ask()


@pytest.mark.parametrize(("limit", "most"), [(0, None), (20_001, None), (1, 0), (1, 8_000_001)])
def test_pages_have_bounds(world: ZoneWorld, limit: int, most: int | None) -> None:
    with pytest.raises(Rejected, match=r"a page of arrivals holds 1 to \d+ \w+, not \d+; retrying does not"):
        world.as_("ann").arrivals(1, limit, most)
