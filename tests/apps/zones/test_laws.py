"""The zone's laws: after any posts, acknowledgements, prunes, upgrades and crashes it answers as a plain list
would, for every range, topic and cursor; it never stores more than its limits; chains stay whole.

One node on a store that crashes serves all examples, each with a zone of its own.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
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
from cannery.apps.zones.roles import Role
from cannery.cdk.topic_pages import TopicPosition, TopicQuery
from cannery.testing import Crashed, FaultyStore
from tests.apps.zones.world import ROOMY, ZoneWorld, key_of
from tests.cdk.topic_model import TopicModel

NAMES = ("a", "b", "c", "d")
names = st.sampled_from(NAMES)
bodies = st.binary(min_size=1, max_size=2) | st.integers(100, 300).map(lambda n: b"x" * n)
posts = st.lists(st.tuples(names, bodies), min_size=1, max_size=4)
rules = st.builds(
    LogRule,
    st.integers(2, 9) | st.just(10**6),
    st.integers(1_000, 3_000) | st.just(10**9),
    st.none(),
    st.sampled_from([WhenFull.refuse(), WhenFull.prune_acknowledged(), WhenFull.prune_oldest()]),
)
asks = st.builds(
    lambda topics, low, span, newest, merged, bodies, limit, size, per_topic: HistoryAsk(
        [key_of(name) for name in topics],
        HistoryRange.all() if span == 0 else HistoryRange.ids(_between(low, low + span)),
        HistoryOrder.newest_first() if newest else HistoryOrder.oldest_first(),
        merged,
        bodies,
        limit,
        size,
        None if merged else per_topic,
        None,
    ),
    st.lists(names, min_size=1, max_size=4, unique=True),
    st.integers(0, 10),
    st.integers(0, 15),
    st.booleans(),
    st.booleans(),
    st.booleans(),
    st.integers(1, 5),
    st.none() | st.sampled_from([1, 300]),
    st.none() | st.integers(1, 3),
)


def _keyed(items: list[tuple[str, bytes]]) -> list[tuple[bytes, bytes]]:
    return [(key_of(name), body) for name, body in items]


def _between(first: int, last: int) -> Any:
    return Between(first, last)


class Machine(RuleBasedStateMachine):
    """A zone beside the model of its messages."""

    world: ZoneWorld
    store: FaultyStore

    def __init__(self) -> None:
        super().__init__()
        self.world.zone = self.world.new_zone()
        self.model = TopicModel(MESSAGE_RULE)
        self.model.join(self.principal("ann").raw)
        # A request that is under way, the ids that it has brought, and where it stands.
        self.reading: tuple[HistoryAsk, list[int], TopicPosition | None, bool] | None = None

    def principal(self, name: str) -> Any:
        return self.world.node.principal(name)

    @property
    def ann(self) -> Any:
        return self.world.as_("ann")

    # writing

    @rule(items=posts)
    def post(self, items: list[tuple[str, bytes]]) -> None:
        self._post(items)

    @rule(items=posts, after=st.integers(1, 4))
    def post_into_a_crash(self, items: list[tuple[str, bytes]], after: int) -> None:
        """The machine goes down at some write; whoever got no answer posts again."""
        self.store.crash_at(self.store.operation_count + after)
        try:
            self._post(items)
        except Crashed:
            self.restart()
            self.store.crash_at(0)
            if self.ann.usage().next_id != self.model.next:
                # It had happened, and only its answer was lost.
                assert self.model.post(_keyed(items), 0) is not None
            self._post(items)
        self.store.crash_at(0)

    def _post(self, items: list[tuple[str, bytes]]) -> None:
        result = self.ann.add_messages(_keyed(items))
        posted = self.model.post(_keyed(items), 0)
        assert result.tag == ("err" if posted is None else "ok"), result
        if posted is not None:
            assert result.ok == [each.id for each in posted]

    def restart(self) -> None:
        for _ in range(10):
            try:
                self.world.node.restart()
                return
            except Crashed:
                continue
        raise AssertionError("the node does not start any more")

    @rule()
    def crash(self) -> None:
        self.store.crash()
        self.restart()

    @rule()
    def upgrade(self) -> None:
        self.world.upgrade()

    @rule(changed=rules)
    def retain(self, changed: LogRule) -> None:
        self.ann.set_retention(RetentionRules(changed, ROOMY, ROOMY))
        self.model.rule = changed
        self.model.fit([], 0)

    @rule(back=st.integers(0, 5))
    def prune(self, back: int) -> None:
        before = max(0, self.model.next - back)
        assert self.ann.prune(before) == self.model.prune(before)

    @rule(back=st.integers(0, 6))
    def erase(self, back: int) -> None:
        id = max(0, self.model.next - back)
        assert self.ann.erase_message(id) == self.model.erase(id)

    # members

    @rule(name=st.sampled_from(["bob", "cid"]))
    def join(self, name: str) -> None:
        self.world.join(name, Role.reader())
        self.model.join(self.principal(name).raw)

    @rule(name=st.sampled_from(["bob", "cid"]))
    def leave(self, name: str) -> None:
        was_there = self.model.marks.pop(self.principal(name).raw, None) is not None
        assert self.ann.member_remove(self.principal(name)) == was_there

    @rule(name=st.sampled_from(["ann", "bob", "cid"]), back=st.integers(-2, 6))
    def acknowledge(self, name: str, back: int) -> None:
        raw = self.principal(name).raw
        if raw in self.model.marks:
            through = max(0, self.model.next - back)
            assert self.world.as_(name).acknowledge(through) == self.model.acknowledge(raw, through)

    # reading

    @rule(ask=asks)
    def ask(self, ask: HistoryAsk) -> None:
        self.reading = (ask, [], None, False)
        self.go_on()

    @precondition(lambda self: self.reading is not None)
    @rule()
    def go_on(self) -> None:
        """The next page is the model's, whatever has happened since the page before."""
        assert self.reading is not None
        ask, given, position, had_gap = self.reading
        page = self.ann.history(ask)
        query = self.query_of(ask)
        expected = self.model.expected(query, position)
        found = [(run.topic, message.id) for run in page.runs for message in run.messages]
        assert found == expected[: len(found)]
        held = {m.id: m for m in self.model.held}
        for run in page.runs:
            for m in run.messages:
                stored = held[m.id].stored
                assert (m.hash, m.size, m.payload) == (
                    held[m.id].digest,
                    len(stored),
                    stored if ask.bodies else b"",
                )
        assert len(found) <= ask.limit
        had_gap = had_gap or bool(page.gaps)
        if page.state.tag == "more":
            assert found, "a page that is not the last one brings something"
            taken = self.taken(query, position, found)
            position = TopicPosition(found[-1][0] if not ask.merged else 0, found[-1][1], taken, had_gap)
            self.reading = (_with_cursor(ask, page.state.more), given, position, had_gap)
        else:
            assert len(found) == len(expected)
            assert page.state.tag == ("gap" if had_gap else "complete")
            if position is None and ask.per_topic is None:
                gaps = [(gap.topic, gap.first, gap.last + 1) for gap in page.gaps]
                assert gaps == [(gap.topic, gap.start, gap.end) for gap in self.model.gaps(query)]
            self.reading = None

    def taken(self, query: TopicQuery, position: TopicPosition | None, found: list[tuple[int, int]]) -> int:
        last = found[-1][0]
        before = position.taken if position is not None and position.topic == last else 0
        return before + sum(1 for topic, _ in found if topic == last)

    def query_of(self, ask: HistoryAsk) -> TopicQuery:
        low, high = 1, self.model.next
        if ask.range.tag == "ids":
            low, high = max(1, ask.range.ids.first), min(ask.range.ids.last + 1, self.model.next)
        newest_first = ask.order.tag == "newest_first"
        size = ask.bytes_max or 2_000_000
        return TopicQuery(
            ask.topics, low, high, newest_first, ask.merged, ask.bodies, ask.limit, size, ask.per_topic
        )

    @rule(name=names, low=st.integers(0, 12), high=st.integers(0, 12))
    def read_a_range_of_a_key(self, name: str, low: int, high: int) -> None:
        key = key_of(name)
        found = self.ann.get_messages_by_range_for_key(key, low, high)
        wanted = [link for link in self.model.links(key) if min(low, high) <= link[1] <= max(low, high)]
        assert [(m.prev_msg_id, m.id, m.next_msg_id) for m in found] == (
            wanted if low <= high else wanted[::-1]
        )

    @rule(low=st.integers(0, 12), high=st.integers(0, 12))
    def read_a_range(self, low: int, high: int) -> None:
        found = self.ann.get_messages_by_range(low, high)
        links = {link[1]: link for name in NAMES for link in self.model.links(key_of(name))}
        wanted = [m for m in self.model.held if low <= m.id <= high]
        assert [(m.prev_msg_id, m.id, m.next_msg_id) for m in found] == [links[m.id] for m in wanted]
        assert [(m.key_id, m.hash, m.ciphertext) for m in found] == [
            (m.key, m.digest, m.stored) for m in wanted
        ]

    # what always holds

    @invariant()
    def usage_is_the_models(self) -> None:
        usage, model = self.ann.usage(), self.model
        assert (usage.messages.count, usage.messages.size_bytes) == (len(model.held), model.total())
        assert usage.next_id == model.next
        assert usage.topics == len({m.key for m in model.held})

    @invariant()
    def limits_hold(self) -> None:
        usage, rule_ = self.ann.usage(), self.model.rule
        if rule_.when_full.tag == "prune_oldest":
            assert usage.messages.count <= rule_.count_max
            assert usage.messages.size_bytes <= rule_.bytes_max


def _with_cursor(ask: HistoryAsk, cursor: bytes) -> HistoryAsk:
    return replace(ask, cursor=cursor)


SETTINGS = settings(max_examples=10, stateful_step_count=20, deadline=None, phases=[Phase.generate])


def test_a_zone_answers_as_a_list_would(monkeypatch: pytest.MonkeyPatch) -> None:
    # Blocks come and go with a few messages.
    for name, value in (("EVERY_COUNT", 3), ("COUNT_MIN", 2), ("COUNT_MAX", 6), ("APART_COUNT", 1)):
        monkeypatch.setattr(limits, f"TOPIC_BLOCK_{name}", value)
    Machine.store = FaultyStore(seed=6)
    Machine.world = ZoneWorld(Machine.store)
    try:
        run_state_machine_as_test(  # type: ignore[no-untyped-call]
            Machine, settings=SETTINGS
        )
    finally:
        Machine.world.node.close()
