"""History requests: many topics, ranges, orders, pages by bytes, cursors, gaps; who has acknowledged what."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from cannery import LogRule, WhenFull
from cannery.apps.zones.history import Between, HistoryAsk, HistoryGap, HistoryOrder, HistoryRange
from cannery.apps.zones.roles import Role
from cannery.testing import Rejected
from tests.apps.zones.world import ZoneWorld, ask_for, ids_of, key_of

NEWEST = HistoryOrder.newest_first()


def read_all(zone: Any, ask: HistoryAsk) -> list[int]:
    found: list[int] = []
    while True:
        page = zone.history(ask)
        found += ids_of(page)
        if page.state.tag != "more":
            return found
        ask = replace(ask, cursor=page.state.more)


@pytest.fixture
def filled(world: ZoneWorld) -> ZoneWorld:
    """Ids 1 to 9, in turn under a, b and c."""
    for i in range(9):
        world.post("abc"[i % 3], f"message {i}")
    return world


def test_topics_come_in_the_order_asked_or_merged(filled: ZoneWorld) -> None:
    ann = filled.as_("ann")
    assert ids_of(ann.history(ask_for("b", "a"))) == [2, 5, 8, 1, 4, 7]
    assert ids_of(ann.history(ask_for("b", "a", merged=True))) == [1, 2, 4, 5, 7, 8]
    assert ids_of(ann.history(ask_for("b", "a", merged=True, order=NEWEST))) == [8, 7, 5, 4, 2, 1]
    assert ids_of(ann.history(ask_for("b", "a", per_topic=1, order=NEWEST))) == [8, 7]
    page = ann.history(ask_for("a", "nobody", bodies=False))
    assert page.state.tag == "complete"
    assert [(m.size, m.payload) for m in page.runs[0].messages] == [(9, b"")] * 3
    assert (page.oldest, page.newest) == (1, 9)


def test_ranges_of_ids_and_times(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    times = []
    for i in range(4):
        times.append(world.node.now_ns)
        world.post("a", str(i))
        world.node.advance(seconds=10)
    between = HistoryRange.ids(Between(2, 3))
    assert ids_of(ann.history(ask_for("a", range=between))) == [2, 3]
    between = HistoryRange.times(Between(times[1], times[3] - 1))
    assert ids_of(ann.history(ask_for("a", range=between))) == [2, 3]
    huge = HistoryRange.ids(Between(0, 2**64 - 1))
    assert ids_of(ann.history(ask_for("a", range=huge))) == [1, 2, 3, 4]
    for reversed_range in (HistoryRange.ids(Between(3, 2)), HistoryRange.times(Between(3, 2))):
        with pytest.raises(Rejected, match="the range is reversed: it begins at 3 and ends at 2; retrying"):
            ann.history(ask_for("a", range=reversed_range))


def test_pages_by_bytes_bring_at_least_one_message(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    for i in range(3):
        assert ann.add_message(key_of("a"), bytes([i]) * 1_000).tag == "ok"
    page = ann.history(ask_for("a", bytes_max=2_200))
    assert ids_of(page) == [1, 2]
    assert page.state.tag == "more"
    assert ids_of(ann.history(ask_for("a", bytes_max=1))) == [1]
    assert read_all(ann, ask_for("a", bytes_max=1)) == [1, 2, 3]


def test_a_gap_says_what_is_gone_and_a_cursor_survives_it(filled: ZoneWorld) -> None:
    ann = filled.as_("ann")
    first = ann.history(ask_for("a", "b", limit=1))
    assert ids_of(first) == [1]
    ann.prune(6)
    filled.upgrade()
    rest = ann.history(ask_for("a", "b", cursor=first.state.more))
    assert ids_of(rest) == [7, 8]
    assert rest.gaps == [HistoryGap(0, 2, 4), HistoryGap(1, 1, 5)]
    assert rest.state.tag == "gap"
    newest = ann.history(ask_for("a", order=NEWEST))
    assert (ids_of(newest), newest.gaps) == ([7], [HistoryGap(0, 1, 4)])
    later = HistoryRange.ids(Between(6, 9))
    assert ann.history(ask_for("a", range=later)).state.tag == "complete"
    # A gap on an earlier page is told again at the end, so that nobody takes the whole for whole.
    page = ann.history(ask_for("a", "b", limit=1))
    assert (page.state.tag, page.gaps) == ("more", [HistoryGap(0, 1, 4)])
    page = ann.history(ask_for("a", "b", limit=1, cursor=page.state.more))
    page = (
        ann.history(ask_for("a", "b", limit=1, cursor=page.state.more)) if page.state.tag == "more" else page
    )
    assert page.state.tag == "gap"


def test_a_range_of_times_that_reaches_behind_the_oldest_message_has_a_gap(filled: ZoneWorld) -> None:
    ann = filled.as_("ann")
    ann.prune(4)
    page = ann.history(ask_for("a", range=HistoryRange.times(Between(0, 2**63))))
    assert (ids_of(page), page.gaps) == ([4, 7], [HistoryGap(0, 1, 1)])


def test_cursors_that_are_not_this_zones_or_this_requests_are_refused(filled: ZoneWorld) -> None:
    ann = filled.as_("ann")
    cursor = ann.history(ask_for("a", "b", limit=1)).state.more
    here = filled.zone
    filled.zone = filled.new_zone()
    filled.post("a", "another zone")
    foreign = ask_for("a", "b", limit=1)
    filled.post("b", "another zone")
    other = filled.as_("ann").history(foreign).state.more
    filled.zone = here
    forged = [
        other,
        cursor[:-1],
        cursor + b"\\x00",
        b"",
        cursor[:5] + bytes(8) + cursor[13:],
        bytes([cursor[0] ^ 1]) + cursor[1:],
    ]
    for wrong in forged:
        with pytest.raises(Rejected, match=r"not of this zone and this request: .*; retrying does not help"):
            ann.history(ask_for("a", "b", cursor=wrong))
    for changed in (
        ask_for("b", "a", cursor=cursor),
        ask_for("a", "b", cursor=cursor, order=NEWEST),
        ask_for("a", "b", cursor=cursor, merged=True),
        ask_for("a", "b", cursor=cursor, range=HistoryRange.ids(Between(1, 5))),
        ask_for("a", "b", cursor=cursor, per_topic=2),
    ):
        with pytest.raises(Rejected, match="not of this zone and this request"):
            ann.history(changed)
    assert ids_of(ann.history(ask_for("a", "b", cursor=cursor, limit=2, bodies=False))) == [4, 7]


@pytest.mark.parametrize(
    ("ask", "text"),
    [
        (ask_for(), "1 to 1000 topics, not 0"),
        (ask_for(*map(str, range(1_001))), "1 to 1000 topics, not 1001"),
        (ask_for("a", limit=0), "1 to 20000 messages, not 0"),
        (ask_for("a", bytes_max=9_000_000), "1 to 8000000 bytes, not 9000000"),
        (ask_for("a", per_topic=0), "'per_topic' is at least 1"),
        (ask_for("a", "a"), "a topic stands twice"),
        (ask_for("a", merged=True, per_topic=1), "leave out 'per_topic' or 'merged'"),
        (ask_for(topics=[key_of("a"), b"short"]), "key_id must be 41 bytes, not 5"),
    ],
)
def test_requests_out_of_bounds_say_so(world: ZoneWorld, ask: HistoryAsk, text: str) -> None:
    with pytest.raises(Rejected, match=text + ".*; retrying does not help"):
        world.as_("ann").history(ask)


def test_a_member_removed_in_mid_download_gets_no_further_page(filled: ZoneWorld) -> None:
    bob = filled.join("bob", Role.reader())
    page = bob.history(ask_for("a", limit=1))
    filled.as_("ann").member_remove(filled.node.principal("bob"))
    with pytest.raises(Rejected, match="Not a member of the zone"):
        bob.history(ask_for("a", limit=1, cursor=page.state.more))


def test_topics_are_listed_in_pages(filled: ZoneWorld) -> None:
    ann = filled.as_("ann")
    page = ann.topics_page(None, 2)
    assert [(t.topic, t.count, t.first, t.last) for t in page.topics] == [
        (key_of("a"), 3, 1, 7),
        (key_of("b"), 3, 2, 8),
    ]
    rest = ann.topics_page(page.next, 2)
    assert ([t.topic for t in rest.topics], rest.next) == ([key_of("c")], None)
    ann.prune(2)
    (first,) = ann.topics_page(None, 1).topics
    assert (first.count, first.first, first.dropped_through) == (
        2,
        ann.get_min_message_id_by_key(key_of("a")),
        1,
    )


def test_the_zone_knows_who_still_misses_what(filled: ZoneWorld) -> None:
    bob = filled.join("bob", Role.reader())
    filled.post("a", "for bob")
    assert bob.acknowledge(3) == 10, "what came before bob joined is not missing"
    missing = {m.member: (m.first, m.count) for m in filled.as_("ann").missing(None, 10).members}
    assert missing == {filled.node.principal("ann"): (1, 10), filled.node.principal("bob"): (10, 1)}
    assert bob.acknowledge(99) == 11
    assert filled.as_("ann").acknowledge(4) == 5
    assert filled.as_("ann").usage().acknowledged_by_all == 5
    with pytest.raises(Rejected, match="needs the role member, you are reader"):
        bob.missing(None, 10)


def test_what_all_have_acknowledged_goes_first_and_nothing_else_goes(filled: ZoneWorld) -> None:
    bob = filled.join("bob", Role.reader())
    filled.retain(messages=LogRule(9, 10**9, None, WhenFull.prune_acknowledged()))
    with pytest.raises(AssertionError, match="not all readers have acknowledged"):
        filled.post("a", "no room")
    filled.as_("ann").acknowledge(2)
    bob.acknowledge(5)
    assert filled.post("a", "room", "for two") == [10, 11]
    with pytest.raises(AssertionError, match="not all readers have acknowledged"):
        filled.post("a", "and no more")
    assert filled.as_("ann").get_min_message_id() == 3
