"""The laws of a zone's messages over time: several writers, the same message twice in one call, limits of age
that change in mid-stream, ranges of times, pages of what is new, pages by bytes over topics that come and go.

One node serves all examples, each with a zone of its own; its clock moves only where a plan says so.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import replace
from typing import Any

from hypothesis import Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cannery import LogRule, WhenFull, limits
from cannery.apps.zones.history import Between, HistoryAsk, HistoryOrder, HistoryRange
from cannery.apps.zones.mailbox import MESSAGE_RULE
from cannery.apps.zones.retention import RetentionRules
from cannery.cdk.topic_pages import TopicPosition, TopicQuery
from tests.apps.zones.world import ROOMY, ZoneWorld, ask_for, key_of
from tests.cdk.topic_model import Held, TopicModel

NS_PER_S = 10**9
WRITERS = ("ann", "bob", "cid")
NAMES = ("a", "b", "c")
names = st.sampled_from(NAMES)
bodies = st.sampled_from([b"x", b"y"]) | st.integers(100, 400).map(lambda n: b"z" * n)
posts = st.lists(st.tuples(names, bodies), min_size=1, max_size=6)
rules = st.builds(
    LogRule,
    st.integers(2, 9) | st.just(10**6),
    st.integers(1_000, 3_000) | st.just(10**9),
    st.none() | st.sampled_from([NS_PER_S, 100 * NS_PER_S, 500 * NS_PER_S, 2**64 - 1]),
    st.sampled_from([WhenFull.refuse(), WhenFull.prune_acknowledged(), WhenFull.prune_oldest()]),
)


class Machine(RuleBasedStateMachine):
    """A zone beside the model of its messages."""

    world: ZoneWorld

    def __init__(self) -> None:
        super().__init__()
        self.world.zone = self.world.new_zone()
        self.model = TopicModel(MESSAGE_RULE)
        self.model.join(self.raw("ann"))
        for name in WRITERS[1:]:
            self.world.join(name)
            self.model.join(self.raw(name))
        self.reading: tuple[HistoryAsk, TopicQuery, TopicPosition | None, list[tuple[int, int]]] | None = None

    def raw(self, name: str) -> bytes:
        return self.world.node.principal(name).raw

    @property
    def ann(self) -> Any:  # an actor's methods are known at run time only
        return self.world.as_("ann")

    @property
    def now_ns(self) -> int:
        return self.world.node.now_ns

    @property
    def first(self) -> int:
        return self.model.held[0].id if self.model.held else self.model.next

    # writing

    @rule(who=st.sampled_from(WRITERS), items=posts)
    def post(self, who: str, items: list[tuple[str, bytes]]) -> None:
        keyed = [(key_of(name), body) for name, body in items]
        result = self.world.as_(who).add_messages(keyed)
        posted = self.model.post(keyed, self.now_ns)
        assert result.tag == ("err" if posted is None else "ok"), result
        if posted is not None:
            assert result.ok == [each.id for each in posted]

    @rule(who=st.sampled_from(WRITERS), back=st.integers(0, 6))
    def acknowledge(self, who: str, back: int) -> None:
        through = max(0, self.model.next - back)
        assert self.world.as_(who).acknowledge(through) == self.model.acknowledge(self.raw(who), through)

    @rule(changed=rules)
    def retain(self, changed: LogRule) -> None:
        self.ann.set_retention(RetentionRules(changed, ROOMY, ROOMY))
        self.model.rule = changed
        self.model.fit([], self.now_ns)

    @rule(seconds=st.sampled_from([70, 120, 1_000]))
    def time_passes(self, seconds: int) -> None:
        """What became too old goes, though nobody writes; no step is shorter than the timer's."""
        self.world.node.advance(seconds=seconds)
        self.world.node.run()
        if self.model.rule.age_ns_max is not None:
            self.model.fit([], self.now_ns)

    @rule()
    def upgrade(self) -> None:
        self.world.upgrade()

    # reading

    @rule(first=st.integers(0, 12), limit=st.integers(1, 5), bytes_max=st.none() | st.sampled_from([1, 500]))
    def read_what_is_new(self, first: int, limit: int, bytes_max: int | None) -> None:
        page = self.ann.arrivals(first, limit, bytes_max)
        start = max(1, first)
        wanted = [m for m in self.model.held if m.id >= start]
        found = [(each.topic, each.message.id, each.message.payload) for each in page.arrivals]
        assert found == [(m.key, m.id, m.stored) for m in wanted[: len(found)]]
        assert found or not wanted
        assert len(found) <= limit
        if bytes_max is None:
            assert len(found) == min(limit, len(wanted))
        assert page.next == (wanted[len(found)].id if len(found) < len(wanted) else None)
        assert page.gone == (self.first if start < self.first else None)
        assert (page.oldest, page.newest) == (self.first, self.model.next - 1)

    @rule(
        first=st.integers(0, 12),
        last=st.integers(0, 12),
        edges=st.tuples(st.integers(-1, 1), st.integers(-1, 1)),
        newest=st.booleans(),
    )
    def read_a_range_of_times(self, first: int, last: int, edges: tuple[int, int], newest: bool) -> None:
        """A range whose ends lie at, just before or just behind messages."""
        times = [m.at_ns for m in self.model.held] or [self.now_ns]
        low_ns, high_ns = sorted(
            times[min(place, len(times) - 1)] + edge for place, edge in zip((first, last), edges, strict=True)
        )
        ask = ask_for(
            *NAMES,
            range=HistoryRange.times(Between(low_ns, high_ns)),
            order=HistoryOrder.newest_first() if newest else HistoryOrder.oldest_first(),
            merged=True,
        )
        page = self.ann.history(ask)
        wanted = [m.id for m in self.model.held if low_ns <= m.at_ns <= high_ns]
        assert [m.id for run in page.runs for m in run.messages] == (wanted[::-1] if newest else wanted)
        low, high = self.ids_of(low_ns, high_ns)
        query = TopicQuery(ask.topics, low, high, newest, True, True, 1_000, 2_000_000)
        gaps = [(gap.topic, gap.first, gap.last + 1) for gap in page.gaps]
        assert sorted(gaps) == [(gap.topic, gap.start, gap.end) for gap in self.model.gaps(query)]
        assert page.state.tag == ("gap" if gaps else "complete")

    def ids_of(self, low_ns: int, high_ns: int) -> tuple[int, int]:
        held: list[Held] = self.model.held
        ids = [*(m.id for m in held), self.model.next]
        low = ids[bisect_left(held, low_ns, key=lambda m: m.at_ns)]
        high = ids[bisect_left(held, high_ns + 1, key=lambda m: m.at_ns)]
        return (1 if low == self.first else low), high

    @rule(
        topics=st.lists(names, min_size=1, max_size=3, unique=True),
        merged=st.booleans(),
        newest=st.booleans(),
        size=st.sampled_from([1, 200, 700]),
    )
    def begin_to_read(self, topics: list[str], merged: bool, newest: bool, size: int) -> None:
        order = HistoryOrder.newest_first() if newest else HistoryOrder.oldest_first()
        ask = ask_for(*topics, merged=merged, order=order, bytes_max=size)
        query = TopicQuery(ask.topics, 1, 2**63, newest, merged, True, 1_000, size)
        self.reading = (ask, query, None, [])
        self.read_on()

    @precondition(lambda self: self.reading is not None)
    @rule()
    def read_on(self) -> None:
        """Pages by bytes go on behind the last message, whatever came or went; none comes twice."""
        assert self.reading is not None
        ask, query, position, given = self.reading
        page = self.ann.history(ask)
        expected = self.model.expected(query, position)
        found = [(run.topic, message.id) for run in page.runs for message in run.messages]
        assert found == expected[: len(found)]
        assert not set(found) & set(given)
        size = sum(len(message.payload) for run in page.runs for message in run.messages)
        assert len(found) == 1 or size <= query.bytes_max
        if page.state.tag != "more":
            assert len(found) == len(expected)
            self.reading = None
            return
        assert found
        position = TopicPosition(0 if query.merged else found[-1][0], found[-1][1], 0, False)
        self.reading = replace(ask, cursor=page.state.more), query, position, given + found

    # what always holds

    @invariant()
    def figures_are_the_models(self) -> None:
        usage = self.ann.usage()
        assert (usage.messages.count, usage.messages.size_bytes) == (len(self.model.held), self.model.total())
        assert (usage.first_id, usage.next_id) == (self.first, self.model.next)
        assert usage.acknowledged_by_all == min(self.model.marks.values())

    @invariant()
    def neighbours_are_the_models(self) -> None:
        for name in NAMES:
            links = self.model.links(key_of(name))
            oldest, newest = (links[0][1], links[-1][1]) if links else (None, None)
            assert self.ann.get_min_message_id_by_key(key_of(name)) == oldest
            assert self.ann.get_max_message_id_by_key(key_of(name)) == newest


SETTINGS = settings(max_examples=15, stateful_step_count=25, deadline=None, phases=[Phase.generate])


def test_a_zone_keeps_messages_over_time_as_a_list_would(monkeypatch: Any) -> None:  # pytest's fixture
    for name, value in (("EVERY_COUNT", 3), ("COUNT_MIN", 2), ("COUNT_MAX", 6), ("APART_COUNT", 1)):
        monkeypatch.setattr(limits, f"TOPIC_BLOCK_{name}", value)
    Machine.world = ZoneWorld()
    try:
        run_state_machine_as_test(Machine, settings=SETTINGS)  # type: ignore[no-untyped-call]
    finally:
        Machine.world.node.close()
