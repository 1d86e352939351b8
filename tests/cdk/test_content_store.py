"""The content store beside a dict: uploads in pieces, limits, what goes first, what cannot be read yet."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from cannery import Canister, LogRule, WhenFull, limits
from cannery.cdk.content_store import PAGE_SIZE_BYTES, ContentRefused, ContentStore, ContentStoreView
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.ports import EntryKind
from tests.cdk.memory_system import MemoryCanister, MemorySystem

ROOMY = LogRule(1_000, 10**9, None, WhenFull.prune_oldest())


class Shelf(Canister):
    """A content store."""

    files = ContentStore("file", rule=ROOMY)


PROGRAM = PythonProgram(Shelf)


def fresh() -> tuple[ContentStoreView, MemorySystem]:
    canister = MemoryCanister(now_ns=1_000)
    canister.learn(PROGRAM)
    system = MemorySystem(canister, EntryKind.UPDATE)
    shelf = Shelf()
    shelf.__dict__[SYSTEM_ATTRIBUTE] = system
    return shelf.files, system


@dataclass
class Model:
    """A content of the model; None stands for a byte that has not come."""

    number: int
    created_ns: int
    data: list[int | None]
    is_finished: bool = False


names = st.sampled_from([b"one", b"two\x00", b"three"])
places = st.sampled_from([0, 1, 5, PAGE_SIZE_BYTES - 1, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES + 3])
chunks = st.binary(max_size=4) | st.sampled_from([b"\x07" * PAGE_SIZE_BYTES, b"\x05" * (PAGE_SIZE_BYTES + 9)])


class ContentMachine(RuleBasedStateMachine):
    """Operations on a content store, beside a dict of what it should hold."""

    def __init__(self) -> None:
        super().__init__()
        self.store, self.system = fresh()
        self.held: dict[bytes, Model] = {}
        self.next = 1
        self.count_max = ROOMY.count_max

    def oldest_first(self) -> list[bytes]:
        return sorted(self.held, key=lambda name: self.held[name].number)

    @rule(name=names, size=st.sampled_from([0, 1, 3, PAGE_SIZE_BYTES, PAGE_SIZE_BYTES + 9]))
    def begin(self, name: bytes, size: int) -> None:
        known = self.held.get(name)
        if (known is None and size == 0) or (known is not None and len(known.data) != size):
            with pytest.raises(ContentRefused):
                self.store.begin(name, size)
            return
        begun = self.store.begin(name, size)
        assert begun.is_new == (known is None)
        if known is None:
            gone = []
            while len(self.held) >= self.count_max:
                gone.append(self.oldest_first()[0])
                del self.held[gone[-1]]
            assert begun.dropped == tuple(gone)
            self.held[name] = Model(self.next, self.system.now_ns, [None] * size)
            self.next += 1
        assert begun.content.number == self.held[name].number

    @rule(name=names, offset=places, data=chunks)
    def write(self, name: bytes, offset: int, data: bytes) -> None:
        known = self.held.get(name)
        if known is None or known.is_finished or offset + len(data) > len(known.data):
            with pytest.raises(ContentRefused):
                self.store.write(name, offset, data)
            return
        self.store.write(name, offset, data)
        known.data[offset : offset + len(data)] = list(data)

    @rule(name=names, is_right=st.booleans())
    def finish(self, name: bytes, is_right: bool) -> None:
        known = self.held.get(name)
        if known is None or None in known.data or (not is_right and not known.is_finished):
            with pytest.raises(ContentRefused):
                self.store.finish(name, None if is_right else b"wrong")
            return
        whole = bytes(byte or 0 for byte in known.data)
        assert self.store.finish(name, sha256(whole).digest()[:20]).is_finished
        known.is_finished = True

    @rule(name=names)
    def remove(self, name: bytes) -> None:
        assert self.store.remove(name) == (self.held.pop(name, None) is not None)

    @rule(count_max=st.integers(1, 4))
    def set_rule(self, count_max: int) -> None:
        self.count_max = count_max
        self.store.set_rule(LogRule(count_max, 10**9, None, WhenFull.prune_oldest()))
        gone = self.oldest_first()[: max(0, len(self.held) - count_max)]
        assert self.store.clean() == tuple(gone)
        for name in gone:
            del self.held[name]

    @rule(name=names, offset=places, size=st.sampled_from([0, 1, 9, PAGE_SIZE_BYTES]))
    def read(self, name: bytes, offset: int, size: int) -> None:
        known = self.held.get(name)
        if known is None or not known.is_finished or offset + size > len(known.data):
            with pytest.raises(ContentRefused):
                self.store.read(name, offset, size)
            return
        assert self.store.read(name, offset, size) == bytes(
            byte or 0 for byte in known.data[offset : offset + size]
        )

    @invariant()
    def what_is_counted_covers_what_is_stored(self) -> None:
        usage = self.store.usage()
        assert usage.count == len(self.held)
        slots = [self.system.slot(f"files.{name}") for name in ("contents", "pages", "order", "unfinished")]
        state = {**self.system.canister.state, **self.system.overlay}
        stored = sum(
            len(key) - len(slot) + len(value)
            for slot in slots
            for key, value in state.items()
            if value is not None and key.startswith(slot)
        )
        assert stored <= usage.size_bytes
        assert (usage.size_bytes == 0) == (not self.held)
        assert self.store.is_within_rule()


def test_a_content_store_is_a_dict_of_bytes() -> None:
    run_state_machine_as_test(  # type: ignore[no-untyped-call]
        ContentMachine, settings=settings(max_examples=25, stateful_step_count=25, deadline=None)
    )


def put(store: ContentStoreView, name: bytes, data: bytes) -> None:
    store.begin(name, len(data))
    store.write(name, 0, data)
    store.finish(name, sha256(data).digest())


def test_refusals_say_what_is_wrong() -> None:
    store, _ = fresh()
    store.begin(b"n", 10)
    for act, text in (
        (lambda: store.begin(b"n", 11), "begun with 10 bytes, not 11"),
        (lambda: store.begin(b"m", 64 * 1024 * 1024 + 1), "size is too large: file has at most 67108864"),
        (lambda: store.write(b"n", 9, b"xx"), "chunk out of bounds: it ends at 11, the file at 10"),
        (lambda: store.write(b"x", 0, b"xx"), "begin its upload first"),
        (lambda: store.finish(b"n", None), "not whole: 0 of 10 bytes were written"),
        (lambda: store.read(b"n", 0, 1), "file is not finalized"),
        (lambda: store.read(b"x", 0, 1), "file not found"),
    ):
        with pytest.raises(ContentRefused, match=text):
            act()
    store.write(b"n", 4, b"45")
    with pytest.raises(ContentRefused, match="bytes 0 to 4 are missing"):
        store.finish(b"n", None)
    store.write(b"n", 0, b"0123")
    with pytest.raises(ContentRefused, match="bytes 6 to 10 are missing"):
        store.finish(b"n", None)
    store.write(b"n", 8, b"89")
    with pytest.raises(ContentRefused, match="bytes 6 to 8 are missing"):
        store.finish(b"n", None)
    store.write(b"n", 6, b"67")
    with pytest.raises(ContentRefused, match="hash mismatch"):
        store.finish(b"n", bytes(32))
    assert store.finish(b"n", sha256(b"0123456789").digest()).is_finished
    with pytest.raises(ContentRefused, match="finalized: it cannot be changed"):
        store.write(b"n", 0, b"x")


def test_too_many_holes_are_refused_and_what_came_stays() -> None:
    store, _ = fresh()
    store.begin(b"n", 1_000)
    for i in range(4):
        store.write(b"n", 10 * i, b"x")
    with pytest.raises(ContentRefused, match="too many pieces with holes"):
        store.write(b"n", 500, b"x")
    for i in range(0, 1_000, 100):
        store.write(b"n", i, b"y" * 100)
    assert store.finish(b"n", None).size == 1_000


def test_many_small_ones_make_room_for_a_large_one_in_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "CONTENT_CLEAN_COUNT_MAX", 3)
    store, _ = fresh()
    for n in range(8):
        put(store, b"%d" % n, b"x")
    cost = store.usage().size_bytes // 8
    store.set_rule(LogRule(10, 9 * cost, None, WhenFull.prune_oldest()))
    for left in (5, 2):
        with pytest.raises(ContentRefused, match="no room: it is being cleaned; retry after 1 s"):
            store.begin(b"large", 8 * cost - 170)
        assert store.usage().count == left
    store.begin(b"large", 8 * cost - 170)


def test_bytes_age_and_abandoned_uploads() -> None:
    store, system = fresh()
    put(store, b"a", bytes(1_000))
    cost = store.usage().size_bytes
    store.set_rule(LogRule(10, 2 * cost + 10, None, WhenFull.prune_oldest()))
    put(store, b"b", bytes(1_000))
    assert store.begin(b"c", 1_000).dropped == (b"a",)
    assert store.usage().size_bytes <= 2 * cost + 10
    with pytest.raises(ContentRefused, match="and the limit of all is"):
        store.begin(b"d", 3_000)
    store.set_rule(LogRule(2, 10**6, None, WhenFull.refuse()))
    with pytest.raises(ContentRefused, match="no room"):
        store.begin(b"d", 10)
    # An upload that nobody finishes makes room after a day, whatever the rule.
    system.canister.now_ns += limits.CONTENT_UPLOAD_NS_MAX + 1
    assert store.begin(b"d", 10).dropped == (b"c",)
    store.set_rule(LogRule(10, 10**6, 5, WhenFull.refuse()))
    assert store.next_due_ns() == 1_005
    assert not store.is_within_rule()
    assert store.clean() == (b"b",)
    system.canister.now_ns += 5
    assert store.clean() == (b"d",)
    assert store.usage().size_bytes == 0
