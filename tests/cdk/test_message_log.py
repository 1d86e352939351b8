"""The message log beside a model of it: ids, repeats, rules, gaps, pages, readers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cannery import Canister, LogRule, MessageLog, WhenFull, limits
from cannery.cdk.message_log import LogGap
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.ports import EntryKind
from tests.cdk.memory_system import MemoryCanister, MemorySystem

OVERHEAD_BYTES = 8 + 8 + 8 + 1 + 1  # key, type number, time, length of the client id, length of the text
RETIRED_MAX = 3


class Mailbox(Canister):
    """A log of texts."""

    log = MessageLog(str, retired_count_max=RETIRED_MAX)


PROGRAM = PythonProgram(Mailbox)


def opened(canister: MemoryCanister) -> tuple[Mailbox, MemorySystem]:
    system = MemorySystem(canister, EntryKind.UPDATE)
    mailbox = Mailbox()
    mailbox.__dict__[SYSTEM_ATTRIBUTE] = system
    return mailbox, system


def fresh() -> tuple[Mailbox, MemorySystem]:
    canister = MemoryCanister(now_ns=1_000)
    canister.learn(PROGRAM)
    return opened(canister)


texts = st.text("ab", max_size=5)
client_ids = st.sampled_from([b"", b"c1", b"c2", b"c3", b"c4", b"c5", b"c6"])
rules = st.builds(
    LogRule,
    st.integers(0, 8) | st.just(10**6),
    st.integers(0, 400) | st.just(10**9),
    st.none() | st.integers(0, 50),
    st.sampled_from([WhenFull.refuse(), WhenFull.prune_acknowledged(), WhenFull.prune_oldest()]),
)


class LogMachine(RuleBasedStateMachine):
    """Operations on a log, beside a dict of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.mailbox, self.system = fresh()
        self.held: dict[int, tuple[int, bytes, str]] = {}
        self.ids: dict[bytes, int] = {}
        self.retired: dict[int, bytes] = {}
        self.next = 0
        self.readers: dict[str, int] = {}
        self.rule = LogRule(1_000_000, 1_000_000_000, None, WhenFull.refuse())

    # the model

    def size(self, entry: tuple[int, bytes, str]) -> int:
        return OVERHEAD_BYTES + len(entry[1]) + len(entry[2])

    def total(self) -> int:
        return sum(self.size(entry) for entry in self.held.values())

    def drop(self, id: int) -> None:
        _, client_id, _ = self.held.pop(id)
        if client_id:
            self.retired[id] = client_id
            if len(self.retired) > RETIRED_MAX:
                del self.ids[self.retired.pop(min(self.retired))]

    def fits(self, size: int, more: int) -> bool:
        return len(self.held) + more <= self.rule.count_max and self.total() + size <= self.rule.bytes_max

    def make_room(self, size: int) -> bool:
        more = 1 if size else 0
        if size > self.rule.bytes_max:
            return False
        if self.rule.age_ns_max is not None:
            while self.held:
                oldest = min(self.held)
                if self.held[oldest][0] > self.system.now_ns - self.rule.age_ns_max:
                    break
                self.drop(oldest)
        if self.rule.when_full.tag == "refuse":
            return self.fits(size, more)
        read_by_all = min(self.readers.values(), default=0)
        until = self.next if self.rule.when_full.tag == "prune_oldest" else read_by_all
        while self.held and min(self.held) < until and not self.fits(size, more):
            self.drop(min(self.held))
        return self.fits(size, more)

    # the operations

    @rule(text=texts, client_id=client_ids)
    def append(self, text: str, client_id: bytes) -> None:
        result = self.mailbox.log.append(text, client_id=client_id)
        if client_id in self.ids:
            assert (result.state, result.id) == ("repeated", self.ids[client_id])
            return
        entry = (self.system.now_ns, client_id, text)
        if not self.make_room(self.size(entry)):
            assert result.state == "full"
            assert result.reason
            return
        assert (result.state, result.id) == ("new", self.next)
        self.held[self.next] = entry
        if client_id:
            self.ids[client_id] = self.next
        self.next += 1

    @rule(id=st.integers(-1, 12))
    def delete(self, id: int) -> None:
        there = id in self.held
        if there:
            self.drop(id)
        assert self.mailbox.log.delete(id) == there

    @rule(before=st.integers(0, 12))
    def prune(self, before: int) -> None:
        gone = [id for id in sorted(self.held) if id < before]
        for id in gone:
            self.drop(id)
        assert self.mailbox.log.prune(before=before) == len(gone)

    @rule(changed=rules)
    def set_rule(self, changed: LogRule) -> None:
        self.rule = changed
        self.mailbox.log.set_rule(changed)
        assert self.mailbox.log.rule == changed

    @rule()
    def clean(self) -> None:
        before = len(self.held)
        self.make_room(0)
        assert self.mailbox.log.clean() == before - len(self.held)

    @rule(reader=st.sampled_from(["me", "you"]), through=st.integers(-1, 15))
    def acknowledge(self, reader: str, through: int) -> None:
        until = max(self.readers.get(reader, 0), min(through + 1, self.next))
        self.readers[reader] = until
        assert self.mailbox.log.acknowledge(reader, through=through) == until
        assert self.mailbox.log.acknowledged(reader) == until

    @rule(reader=st.sampled_from(["me", "you"]))
    def forget(self, reader: str) -> None:
        assert self.mailbox.log.forget_reader(reader) == (self.readers.pop(reader, None) is not None)

    @rule(passed_ns=st.integers(1, 30))
    def next_message(self, passed_ns: int) -> None:
        self.system._keep()
        self.system.canister.now_ns += passed_ns
        self.mailbox, self.system = opened(self.system.canister)

    @rule(limit=st.integers(1, 5), reverse=st.booleans(), bytes_max=st.none() | st.integers(0, 120))
    def pages(self, limit: int, reverse: bool, bytes_max: int | None) -> None:
        """Items and gaps of all pages together are all ids, each once, in order."""
        covered: list[int] = []
        after = None
        while True:
            page = self.mailbox.log.page(limit=limit, after=after, reverse=reverse, bytes_max=bytes_max)
            assert len(page.items) <= limit
            spans = [(item.id, item.id + 1) for item in page.items] + [(g.start, g.end) for g in page.gaps]
            for start, end in sorted(spans, reverse=reverse):
                assert start < end
                covered += range(end - 1, start - 1, -1) if reverse else range(start, end)
            for item in page.items:
                assert (item.at_ns, item.client_id, item.value) == self.held[item.id]
            assert not any(id in self.held for gap in page.gaps for id in range(gap.start, gap.end))
            if page.next is None:
                break
            assert page.items
            after = page.next
        assert covered == (list(range(self.next))[::-1] if reverse else list(range(self.next)))

    @invariant()
    def same(self) -> None:
        usage = self.mailbox.log.usage()
        assert (usage.next, usage.count, usage.size_bytes) == (self.next, len(self.held), self.total())
        assert usage.retired == len(self.retired)
        assert usage.first <= min(self.held, default=self.next)
        assert len(self.mailbox.log) == len(self.held)
        for id in range(-1, self.next + 1):
            item = self.mailbox.log.get(id)
            assert (item is None) == (id not in self.held)
        for client_id in (b"c1", b"c2", b"c3", b"c4", b"c5", b"c6"):
            assert self.mailbox.log.find(client_id) == self.ids.get(client_id)


def test_the_log_agrees_with_its_model() -> None:
    run_state_machine_as_test(LogMachine)


def test_a_page_after_a_cursor_shows_what_is_gone_since() -> None:
    mailbox, _ = fresh()
    for number in range(10):
        mailbox.log.append(str(number))
    mailbox.log.prune(before=6)
    page = mailbox.log.page(limit=2, after=2)
    assert [item.id for item in page.items] == [6, 7]
    assert page.gaps == [LogGap(3, 6)]
    assert page.next == 7
    assert mailbox.log.page(limit=5, after=9).items == []
    assert mailbox.log.page(limit=5, after=9).gaps == []


def test_cleaning_reads_no_more_than_it_frees() -> None:
    mailbox, system = fresh()
    mailbox.log.set_rule(LogRule(100, 10**9, 10**6, WhenFull.prune_oldest()))
    for number in range(500):
        mailbox.log.append(str(number))
    read = 0
    scan = system.scan

    def counted(start: bytes, end: bytes, *, reverse: bool = False):  # type: ignore[no-untyped-def]
        nonlocal read
        for pair in scan(start, end, reverse=reverse):
            read += 1
            yield pair

    system.scan = counted  # type: ignore[method-assign]
    mailbox.log.append("one more")
    assert read <= 4


def test_cleaning_is_bounded_and_goes_on_with_the_next_message() -> None:
    mailbox, _ = fresh()
    count = limits.MESSAGE_LOG_CLEAN_COUNT_MAX + 500
    for number in range(count):
        mailbox.log.append(str(number))
    mailbox.log.set_rule(LogRule(10, 10**9, None, WhenFull.prune_oldest()))
    first = mailbox.log.clean()
    assert limits.MESSAGE_LOG_CLEAN_COUNT_MAX <= first <= 2 * limits.MESSAGE_LOG_CLEAN_COUNT_MAX
    assert first + mailbox.log.clean() == count - 10
    assert len(mailbox.log) == 10


def test_readers_are_bounded() -> None:
    mailbox, _ = fresh()
    for number in range(limits.MESSAGE_LOG_READER_COUNT_MAX):
        mailbox.log.acknowledge(f"reader {number}", through=0)
    with pytest.raises(ValueError, match="at most 100 readers"):
        mailbox.log.acknowledge("one more", through=0)


@given(st.integers(0, 1000))
def test_a_message_larger_than_the_log_is_refused(size: int) -> None:
    mailbox, _ = fresh()
    mailbox.log.set_rule(LogRule(10, 100, None, WhenFull.prune_oldest()))
    result = mailbox.log.append("x" * size)
    assert (result.state == "new") == (size + OVERHEAD_BYTES + (size > 127) <= 100)
