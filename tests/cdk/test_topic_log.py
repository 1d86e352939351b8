"""The topic log beside a plain list: posts, repeats, rules, chains, pages over many topics, readers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cannery import Canister, LogRule, WhenFull, limits
from cannery.candid.codec import value_decoder
from cannery.candid.python import type_of
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.cdk.topic_entries import split
from cannery.cdk.topic_log import TopicLog, TopicLogView
from cannery.cdk.topic_pages import TopicPage, TopicPosition, TopicQuery, read_page
from cannery.cdk.topic_records import Located, Posted, TopicLogFull, TopicMessage
from cannery.ports import EntryKind
from tests.cdk.memory_system import MemoryCanister, MemorySystem
from tests.cdk.topic_model import TopicModel

ROOMY = LogRule(10**6, 10**9, None, WhenFull.refuse())


class Zone(Canister):
    """A topic log."""

    log = TopicLog(rule=ROOMY)


PROGRAM = PythonProgram(Zone)
MESSAGES_OF = value_decoder(type_of(list[TopicMessage]))


def fresh() -> tuple[Zone, MemorySystem]:
    canister = MemoryCanister(now_ns=1_000)
    canister.learn(PROGRAM)
    system = MemorySystem(canister, EntryKind.UPDATE)
    zone = Zone()
    zone.__dict__[SYSTEM_ATTRIBUTE] = system
    return zone, system


keys = st.sampled_from([b"a", b"b", b"c\x00", b"d" * 41])
payloads = st.binary(min_size=1, max_size=3) | st.integers(100, 400).map(lambda n: b"x" * n)
rules = st.builds(
    LogRule,
    st.integers(1, 8) | st.just(10**6),
    st.integers(150, 2_500) | st.just(10**9),
    st.none() | st.integers(0, 60),
    st.sampled_from([WhenFull.refuse(), WhenFull.prune_acknowledged(), WhenFull.prune_oldest()]),
)


def messages_of(page: TopicPage) -> list[tuple[int, TopicMessage]]:
    found: list[tuple[int, TopicMessage]] = []
    for run in page.runs:
        encoded = bytes([run.messages.count]) + run.messages.data
        found += [(run.topic, message) for message in MESSAGES_OF(encoded)]  # type: ignore[attr-defined]
    return found


class TopicLogMachine(RuleBasedStateMachine):
    """Operations on a topic log, beside a list of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.zone, self.system = fresh()
        self.log = self.zone.log
        self.model = TopicModel(ROOMY)
        self.reading: tuple[TopicQuery, TopicPosition | None] | None = None

    def stored(self, *names: str) -> list[tuple[bytes, bytes]]:
        """Give what lies in some of the log's collections, with keys as they are there."""
        state = {**self.system.canister.state, **self.system.overlay}
        return [
            (key.removeprefix(slot), value)
            for slot in (self.system.slot(f"log.{name}") for name in names)
            for key, value in state.items()
            if value is not None and key.startswith(slot)
        ]

    @rule(every=st.sampled_from([3, 10**9]))
    def seal_or_not(self, every: int) -> None:
        """What older versions wrote has no blocks, and goes on."""
        limits.TOPIC_BLOCK_EVERY_COUNT = every

    # the operations

    @rule(items=st.lists(st.tuples(keys, payloads), min_size=1, max_size=3))
    def post(self, items: list[tuple[bytes, bytes]]) -> None:
        wanted = self.model.post(items, self.system.now_ns)
        if wanted is None:
            with pytest.raises(TopicLogFull):
                self.log.post_many(items)
        else:
            assert self.log.post_many(items) == wanted

    @rule(ns=st.integers(1, 30))
    def wait(self, ns: int) -> None:
        self.system.canister.now_ns += ns

    @rule(back=st.integers(0, 5))
    def prune(self, back: int) -> None:
        before = self.model.next - back
        assert self.log.prune(before=before) == self.model.prune(before)

    @rule(changed=rules)
    def set_rule(self, changed: LogRule) -> None:
        self.model.rule = changed
        self.log.set_rule(changed)
        before = len(self.model.held)
        self.model.fit([], self.system.now_ns)
        assert self.log.clean() == before - len(self.model.held)

    @rule(reader=st.sampled_from([b"me", b"you"]), back=st.integers(-2, 6))
    def acknowledge(self, reader: bytes, back: int) -> None:
        through = self.model.next - back
        assert self.log.acknowledge(reader, through=through) == self.model.acknowledge(reader, through)

    @rule(reader=st.sampled_from([b"me", b"you"]))
    def join(self, reader: bytes) -> None:
        assert self.log.add_reader(reader) == self.model.join(reader)

    @rule(reader=st.sampled_from([b"me", b"you"]))
    def forget(self, reader: bytes) -> None:
        assert self.log.forget_reader(reader) == (self.model.marks.pop(reader, None) is not None)

    @rule(back=st.integers(0, 6))
    def erase(self, back: int) -> None:
        id = self.model.next - back
        assert self.log.erase(id) == self.model.erase(id)

    # pages

    @rule(
        asked=st.lists(keys, min_size=1, max_size=4, unique=True),
        low=st.integers(0, 12),
        span=st.integers(0, 20),
        newest_first=st.booleans(),
        merged=st.booleans(),
        with_payloads=st.booleans(),
        count_max=st.integers(1, 4),
        bytes_max=st.sampled_from([1, 200, 10**6]),
        per_topic_max=st.none() | st.integers(1, 3),
    )
    def begin_page(
        self, asked: list[bytes], low: int, span: int, newest_first: bool, merged: bool, with_payloads: bool,
        count_max: int, bytes_max: int, per_topic_max: int | None,
    ) -> None:  # fmt: skip
        per_topic_max = None if merged else per_topic_max
        query = TopicQuery(
            asked, low, low + span, newest_first, merged, with_payloads, count_max, bytes_max, per_topic_max
        )
        self.reading = (query, None)
        self.go_on()

    @rule()
    def go_on(self) -> None:
        """Read the next page: it is the model's, whatever was posted and pruned since the page before."""
        if self.reading is None:
            return
        query, position = self.reading
        page = read_page(self.log, query, position)
        given = messages_of(page)
        expected = self.model.expected(query, position)
        assert [(topic, m.id) for topic, m in given] == expected[: len(given)]
        by_id = {m.id: m for m in self.model.held}
        for topic, m in given:
            model = by_id[m.id]
            payload = model.stored if query.with_payloads else b""
            assert m == TopicMessage(m.id, model.at_ns, model.digest, len(model.stored), payload)
            assert query.keys[topic] == model.key
        assert len(given) <= query.count_max
        if page.next is None:
            assert len(given) == len(expected)
            if position is None and query.per_topic_max is None:
                assert page.gaps == self.model.gaps(query)
        else:
            assert len(given) >= 1
            assert len(given) == query.count_max or query.bytes_max < 10**6
        assert not page.gaps or page.has_gap
        self.reading = None if page.next is None else (query, page.next)

    # what always holds

    @invariant()
    def usage_is_what_is_stored(self) -> None:
        usage = self.log.usage()
        assert (usage.count, usage.next) == (len(self.model.held), self.model.next)
        assert usage.size_bytes == self.model.total()
        entries, blocks = self.stored("entries"), self.stored("blocks")
        rest = self.stored("ids", "hashes", "numbers", "topics")
        stored = sum(len(key) + len(value) for key, value in entries + blocks + rest)
        assert stored == usage.size_bytes if not blocks else stored < usage.size_bytes
        ids = [int.from_bytes(key[4:], "big") for key, _ in entries]
        for _, value in blocks:
            ids += [id for id, _ in split(value[17:])]
        assert sorted(ids) == [m.id for m in self.model.held], "each message lies in one place"
        assert usage.topic_count == len({m.key for m in self.model.held})

    @invariant()
    def chains_are_whole(self) -> None:
        for key in {m.key for m in self.model.held}:
            ids = [m.id for m in self.model.held if m.key == key]
            topic = self.log.topic(key)
            assert topic is not None
            assert (topic.count, topic.last, self.log.first_of(key)) == (len(ids), ids[-1], ids[0])
            assert topic.dropped_through == self.model.dropped[key]
            for before, id, after in self.model.links(key):
                found = self.log.get(id)
                assert found is not None
                assert (found.previous, found.next, found.key) == (before, after, key)

    @invariant()
    def whatever_is_held_is_found(self) -> None:
        for m in self.model.held:
            id = self.log.find(m.digest)
            assert id is not None
            assert any(h.id == id and h.digest == m.digest for h in self.model.held)
        assert [m.id for _, m in self.log.scan_all(0, 2**32)] == [m.id for m in self.model.held]
        for at_ns in {m.at_ns for m in self.model.held}:
            assert self.log.id_at(at_ns) == next(m.id for m in self.model.held if m.at_ns >= at_ns)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let blocks come and go with a few messages."""
    for name, value in (("EVERY_COUNT", 3), ("COUNT_MIN", 2), ("COUNT_MAX", 6), ("APART_COUNT", 1)):
        monkeypatch.setattr(limits, f"TOPIC_BLOCK_{name}", value)


@pytest.mark.usefixtures("small_blocks")
def test_a_topic_log_is_a_list() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        TopicLogMachine, settings=settings(max_examples=30, stateful_step_count=25, deadline=None)
    )


def everything(log: TopicLogView, *keys: bytes, newest_first: bool = False) -> list[TopicMessage]:
    query = TopicQuery(keys, 0, 2**32, newest_first, False, True, 50_000, 8_000_000)
    page = read_page(log, query)
    assert page.next is None
    return [message for _, message in messages_of(page)]


def test_a_hundred_messages_lie_in_three_blocks_and_four_alone() -> None:
    zone, system = fresh()
    for i in range(200):
        zone.log.post(b"ab"[i % 2 : i % 2 + 1], b"message %d" % i)
    numbers = {b"a": 1, b"b": 2}
    for key, number in numbers.items():
        runs = list(zone.log.runs(Located(number, zone.log.topic(key)), 0, 2**32))  # type: ignore[arg-type]
        assert sum(run.count for run in runs) == 100
        assert sum(1 for run in runs if run.count == 1) <= 4
    found = everything(zone.log, b"a", b"b")
    assert [m.payload for m in found] == [b"message %d" % i for i in [*range(0, 200, 2), *range(1, 200, 2)]]
    newest = everything(zone.log, b"a", newest_first=True)
    assert [m.id for m in newest] == list(range(199, 0, -2))
    assert zone.log.erase(51)
    assert not zone.log.erase(51)
    assert zone.log.prune(before=40) == 39
    left = everything(zone.log, b"a")
    assert [m.id for m in left] == list(range(41, 200, 2))
    assert [m.payload for m in left if m.id == 51] == [b""]
    block_slot = system.slot("log.blocks")
    assert any(key.startswith(block_slot) for key in {**system.canister.state, **system.overlay})


def test_large_messages_lie_alone() -> None:
    zone, system = fresh()
    for i in range(64):
        zone.log.post(b"a", i.to_bytes(1, "big") * 20_000)
    slot = system.slot("log.blocks")
    assert not any(key.startswith(slot) for key in {**system.canister.state, **system.overlay})
    assert [m.id for m in everything(zone.log, b"a")] == list(range(1, 65))


def test_the_limit_of_bytes_holds_to_the_byte() -> None:
    for size in (1, 127, 128, 300, 16_383, 16_384):
        cost = TopicModel.message_cost(bytes(size)) + (1 if size >= 16_384 else 0)
        bytes_max = cost + TopicModel.topic_cost(b"a")
        zone, _ = fresh()
        zone.log.set_rule(LogRule(10, bytes_max - 1, None, WhenFull.prune_oldest()))
        with pytest.raises(TopicLogFull, match=f"1 messages of {bytes_max} bytes"):
            zone.log.post(b"a", bytes(size))
        zone.log.set_rule(LogRule(10, bytes_max, None, WhenFull.prune_oldest()))
        assert zone.log.post(b"a", bytes(size)) == Posted(1, True)
        assert zone.log.usage().size_bytes == bytes_max


def test_a_topic_that_loses_its_last_message_to_a_post_into_it_is_still_counted() -> None:
    zone, _ = fresh()
    cost, topic = TopicModel.message_cost(bytes(100)), TopicModel.topic_cost(b"a")
    zone.log.post(b"a", bytes(100))
    zone.log.set_rule(LogRule(10, cost + topic, None, WhenFull.prune_oldest()))
    with pytest.raises(TopicLogFull):
        zone.log.post(b"a", bytes(101))
    assert zone.log.post(b"a", b"x" * 100) == Posted(2, True)
    assert zone.log.usage().size_bytes == cost + topic
    found = zone.log.topic(b"a")
    assert found is not None
    assert (found.count, found.dropped_through) == (1, 1)


def test_a_full_log_says_why() -> None:
    zone, _ = fresh()
    zone.log.post(b"a", b"1")
    zone.log.set_rule(LogRule(1, 10**6, None, WhenFull.refuse()))
    with pytest.raises(TopicLogFull, match=r"it is full$"):
        zone.log.post(b"a", b"2")
    zone.log.add_reader(b"me")
    zone.log.set_rule(LogRule(1, 10**6, None, WhenFull.prune_acknowledged()))
    zone.log.acknowledge(b"me", through=1)
    assert zone.log.post(b"a", b"2").id == 2
    with pytest.raises(TopicLogFull, match="not all readers have acknowledged"):
        zone.log.post(b"a", b"3")


def test_what_cannot_be_a_message_is_refused() -> None:
    zone, _ = fresh()
    with pytest.raises(ValueError, match="1 to 2000000 bytes, this one 0"):
        zone.log.post(b"a", b"")
    with pytest.raises(ValueError, match="a topic has 1 to 128 bytes, this one 129"):
        zone.log.post(b"a" * 129, b"x")
    with pytest.raises(ValueError, match="2000001"):
        zone.log.post(b"a", bytes(2_000_001))
    assert zone.log.get(0) is None
    assert zone.log.get(2**64) is None


def test_one_message_drops_no_more_than_its_bound_and_the_next_goes_on(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(limits, "TOPIC_LOG_CLEAN_COUNT_MAX", 4)
    zone, _ = fresh()
    for i in range(10):
        zone.log.post(b"a", bytes([i]))
    zone.log.set_rule(LogRule(2, 10**6, None, WhenFull.prune_oldest()))
    with pytest.raises(TopicLogFull, match="it is being cleaned") as caught:
        zone.log.post(b"a", b"new")
    assert caught.value.passes
    assert zone.log.usage().count == 6
    assert zone.log.clean() == 4
    assert zone.log.post(b"a", b"new").id == 11
    assert zone.log.is_within_rule()


class CountingSystem(MemorySystem):
    """Counts the keys that are touched, as a node counts work."""

    touched = 0

    def get(self, key: bytes) -> bytes | None:
        self.touched += 1
        return super().get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self.touched += 1
        super().put(key, value)

    def scan(self, start: bytes, end: bytes, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        for pair in super().scan(start, end, reverse=reverse):
            self.touched += 1
            yield pair


def work_of_dropping(held: int, dropped: int) -> int:
    """Post so many messages to a full log of three topics; give how many keys that touched."""
    zone, system = fresh()
    for begin in range(0, held, 60):
        zone.log.post_many(
            [(b"abc"[i % 3 : i % 3 + 1], i.to_bytes(4, "big")) for i in range(begin, begin + 60)]
        )
    zone.log.set_rule(LogRule(held, 10**9, None, WhenFull.prune_oldest()))
    counting = CountingSystem(system.canister, EntryKind.UPDATE, overlay=system.overlay)
    zone = Zone()
    zone.__dict__[SYSTEM_ATTRIBUTE] = counting
    zone.log.post_many([(b"z", b"new" + i.to_bytes(4, "big")) for i in range(dropped)])
    assert (zone.log.usage().first, zone.log.usage().count) == (1 + dropped, held)
    return counting.touched


def test_making_room_costs_what_it_frees_and_not_what_is_there() -> None:
    few, many = work_of_dropping(180, 60), work_of_dropping(900, 60)
    assert abs(many - few) < few // 10, "a log of five times as many messages costs the same"
    assert work_of_dropping(900, 120) < 2.5 * many


def test_times_are_found_and_readers_listed() -> None:
    zone, system = fresh()
    assert zone.log.id_at(0) == 1
    assert zone.log.oldest_ns() is None
    for i in range(5):
        system.canister.now_ns = 2_000 + 10 * i
        zone.log.post(b"a", bytes([i]))
    assert [zone.log.id_at(at) for at in (0, 2_000, 2_001, 2_040, 2_041)] == [1, 1, 2, 5, 6]
    zone.log.add_reader(b"me")
    zone.log.acknowledge(b"you", through=0)
    assert zone.log.readers(limit=1) == ([(b"me", 6)], b"me")
    assert zone.log.readers(limit=5, after=b"me") == ([(b"you", 6)], None)
    assert zone.log.acknowledged(b"nobody") is None
    topics, after = zone.log.topics(limit=10)
    assert [(t.key, t.count) for t in topics] == [(b"a", 5)]
    assert after is None


@pytest.mark.parametrize(
    ("query", "text"),
    [
        (TopicQuery([], 0, 9, False, False, True, 1, 1), "1 to 1000 topics, not 0"),
        (TopicQuery([b"a"], 0, 9, False, False, True, 0, 1), "1 to 50000 messages, not 0"),
        (TopicQuery([b"a"], 0, 9, False, False, True, 1, 8_000_001), "1 to 8000000 bytes, not 8000001"),
        (TopicQuery([b"a"], 0, 9, False, True, True, 1, 1, 1), "not with a merged one"),
    ],
)
def test_queries_out_of_bounds_are_refused(query: TopicQuery, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        read_page(fresh()[0].log, query)
