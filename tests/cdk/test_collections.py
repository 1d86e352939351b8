"""Stable collections against Python's own: maps, sets, logs and cells after any sequence of operations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from cannery import Canister, StableCell, StableLog, StableMap, StableSet, nat64, record
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.errors import Trap
from cannery.ports import EntryKind
from tests.cdk.memory_system import MemoryCanister, MemorySystem


@record
class Item:
    """A value."""

    text: str
    number: nat64


class Shelf(Canister):
    """One of each, with a neighbour before and behind that must not change."""

    before = StableMap(str, str)
    plain = StableMap(tuple[str, nat64], Item)
    counted = StableMap(str, nat64, counted=True)
    members = StableSet(str, counted=True)
    loose = StableSet(nat64)
    book = StableLog(Item)
    cell = StableCell(list[nat64], [])
    zbehind = StableMap(str, str)


PROGRAM = PythonProgram(Shelf)


def opened(canister: MemoryCanister, kind: EntryKind = EntryKind.UPDATE) -> tuple[Shelf, MemorySystem]:
    """Make an instance as the program does."""
    system = MemorySystem(canister, kind)
    shelf = Shelf()
    shelf.__dict__[SYSTEM_ATTRIBUTE] = system
    return shelf, system


def fresh() -> tuple[Shelf, MemorySystem]:
    canister = MemoryCanister()
    canister.learn(PROGRAM)
    return opened(canister)


words = st.text("ab\0", max_size=3)
numbers = st.integers(0, 2**64 - 1) | st.integers(0, 5)
pairs = st.tuples(words, st.integers(0, 3))
bounds = st.none() | pairs


class ShelfMachine(RuleBasedStateMachine):
    """Operations on every collection, beside a model of it."""

    def __init__(self) -> None:
        super().__init__()
        self.shelf, self.system = fresh()
        self.shelf.before.put("x", "y")
        self.shelf.zbehind.put("x", "y")
        self.plain: dict[tuple[str, int], Item] = {}
        self.counted: dict[str, int] = {}
        self.members: set[str] = set()
        self.book: list[Item] = []
        self.pruned = 0

    @rule()
    def next_message(self) -> None:
        self.system._keep()
        self.shelf, self.system = opened(self.system.canister)

    @rule(key=pairs, text=words)
    def put(self, key: tuple[str, int], text: str) -> None:
        self.shelf.plain[key] = Item(text, 1)
        self.plain[key] = Item(text, 1)

    @rule(key=pairs)
    def delete(self, key: tuple[str, int]) -> None:
        assert self.shelf.plain.delete(key) == (self.plain.pop(key, None) is not None)

    @rule(key=pairs)
    def get(self, key: tuple[str, int]) -> None:
        assert self.shelf.plain.get(key) == self.plain.get(key)
        assert (key in self.shelf.plain) == (key in self.plain)

    @rule(key=words, value=numbers)
    def put_counted(self, key: str, value: int) -> None:
        self.shelf.counted.put(key, value)
        self.counted[key] = value

    @rule(key=words)
    def delete_counted(self, key: str) -> None:
        assert self.shelf.counted.delete(key) == (self.counted.pop(key, None) is not None)

    @rule()
    def clear_counted(self) -> None:
        self.shelf.counted.clear()
        self.counted.clear()

    @rule(key=words)
    def add(self, key: str) -> None:
        assert self.shelf.members.add(key) == (key not in self.members)
        self.members.add(key)

    @rule(key=words)
    def discard(self, key: str) -> None:
        assert self.shelf.members.discard(key) == (key in self.members)
        self.members.discard(key)

    @rule(text=words)
    def append(self, text: str) -> None:
        assert self.shelf.book.append(Item(text, len(self.book))) == len(self.book)
        self.book.append(Item(text, len(self.book)))

    @rule(before=st.integers(0, 30))
    def prune(self, before: int) -> None:
        until = max(self.pruned, min(before, len(self.book)))
        assert self.shelf.book.prune(before=before) == until - self.pruned
        self.pruned = until

    @precondition(lambda self: self.pruned < len(self.book))
    @rule(data=st.data(), text=words)
    def replace_entry(self, data: st.DataObject, text: str) -> None:
        index = data.draw(st.integers(self.pruned, len(self.book) - 1))
        self.shelf.book.set(index, Item(text, 0))
        self.book[index] = Item(text, 0)

    @rule(
        start=bounds,
        end=bounds,
        reverse=st.booleans(),
        lead=st.none() | words,
        limit=st.none() | st.integers(0, 4),
    )
    def scan(
        self,
        start: tuple[str, int] | None,
        end: tuple[str, int] | None,
        reverse: bool,
        lead: str | None,
        limit: int | None,
    ) -> None:
        expected = [
            (key, value)
            for key, value in sorted(self.plain.items(), reverse=reverse)
            if (start is None or key >= start)
            and (end is None or key < end)
            and (lead is None or key[0] == lead)
        ][:limit]
        prefix = None if lead is None else (lead,)
        options = {"start": start, "end": end, "reverse": reverse, "prefix": prefix, "limit": limit}
        assert list(self.shelf.plain.items(**options)) == expected  # type: ignore[arg-type]
        assert list(self.shelf.plain.keys(**options)) == [k for k, _ in expected]  # type: ignore[arg-type]
        assert list(self.shelf.plain.values(**options)) == [v for _, v in expected]  # type: ignore[arg-type]

    @rule(limit=st.integers(1, 4), reverse=st.booleans(), lead=st.none() | words)
    def pages(self, limit: int, reverse: bool, lead: str | None) -> None:
        found, after = [], None
        while True:
            prefix = None if lead is None else (lead,)
            page = self.shelf.plain.page(limit=limit, after=after, reverse=reverse, prefix=prefix)
            found += page.items
            assert len(page.items) == limit or page.next is None
            if page.next is None:
                break
            after = page.next
        assert found == [
            i for i in sorted(self.plain.items(), reverse=reverse) if lead is None or i[0][0] == lead
        ]

    @rule(limit=st.integers(1, 4), reverse=st.booleans())
    def log_pages(self, limit: int, reverse: bool) -> None:
        found, after = [], None
        while True:
            page = self.shelf.book.page(limit=limit, after=after, reverse=reverse)
            found += page.items
            if page.next is None:
                break
            after = page.next
        expected = list(enumerate(self.book))[self.pruned :]
        assert found == (expected[::-1] if reverse else expected)

    @invariant()
    def same(self) -> None:
        assert len(self.shelf.counted) == len(self.counted)
        assert dict(self.shelf.counted.items()) == self.counted
        assert len(self.shelf.members) == len(self.members)
        assert list(self.shelf.members) == sorted(self.members)
        assert list(self.shelf.book) == self.book[self.pruned :]
        assert (self.shelf.book.first, self.shelf.book.next) == (self.pruned, len(self.book))
        assert len(self.shelf.book) == len(self.book) - self.pruned
        assert self.shelf.plain.first() == min(self.plain.items(), default=None, key=lambda i: i[0])
        assert self.shelf.plain.last() == max(self.plain.items(), default=None, key=lambda i: i[0])
        assert list(self.shelf.before.items()) == list(self.shelf.zbehind.items()) == [("x", "y")]


def test_collections_agree_with_their_models() -> None:
    run_state_machine_as_test(ShelfMachine)


def test_a_log_appends_with_one_read_and_two_writes() -> None:
    shelf, system = fresh()
    for number in range(100):
        shelf.book.append(Item("", number))
    reads: list[bytes] = []
    original = system.get
    system.get = lambda key: (reads.append(key), original(key))[1]  # type: ignore[method-assign, assignment, func-returns-value]
    before = dict(system.overlay)
    shelf.book.append(Item("", 100))
    changed = {key for key, value in system.overlay.items() if before.get(key) != value}
    assert (len(reads), len(changed)) == (1, 2)


def test_an_uncounted_map_puts_without_reading_and_has_no_length() -> None:
    shelf, system = fresh()
    system.get = lambda key: pytest.fail("a put reads")  # type: ignore[method-assign]
    shelf.plain.put(("a", 1), Item("", 1))
    with pytest.raises(TypeError, match="counted=True"):
        len(shelf.plain)


@given(st.lists(numbers, max_size=4))
def test_a_cell_has_its_default_until_it_is_set(value: list[int]) -> None:
    shelf, _ = fresh()
    assert shelf.cell.get() == []
    shelf.cell.get().append(1)
    assert shelf.cell.get() == []
    assert not shelf.cell.is_set()
    shelf.cell.value = value
    shelf.cell.value += [1]
    assert shelf.cell.get() == [*value, 1]
    assert shelf.cell.clear()
    assert shelf.cell.value == []
    assert not shelf.cell.clear()


def test_values_begin_with_the_number_of_their_type() -> None:
    shelf, system = fresh()
    shelf.cell.set([1])
    from cannery.candid.python import type_of
    from cannery.cdk.manifest import type_number

    stored = system.get(system.slot("cell"))
    assert stored is not None
    assert stored[:8] == type_number(type_of(list[nat64]))


def test_wrong_keys_and_values_are_refused_by_name() -> None:
    shelf, _ = fresh()
    with pytest.raises(TypeError, match="counted"):
        shelf.counted.put("a", "b")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="text is a str"):
        shelf.counted.put(1, 1)  # type: ignore[arg-type]
    with pytest.raises(KeyError):
        shelf.counted["none"]
    with pytest.raises(KeyError):
        del shelf.counted["none"]
    with pytest.raises(IndexError, match="entries 0 to -1"):
        shelf.book[0]
    with pytest.raises(IndexError):
        shelf.book.set(0, Item("", 0))
    with pytest.raises(ValueError, match="a page holds"):
        shelf.plain.page(limit=0)
    with pytest.raises(TypeError):
        StableCell(nat64, "x")  # type: ignore[arg-type]


def test_unknown_types_and_damaged_values_trap_with_the_collection_s_name() -> None:
    shelf, system = fresh()
    system.overlay[system.slot("cell")] = b"12345678" + b"rest"
    with pytest.raises(Trap, match=r"cell: a stored value has the unknown type"):
        shelf.cell.get()
    shelf.cell.set([1, 2])
    stored = system.overlay[system.slot("cell")]
    assert stored is not None
    system.overlay[system.slot("cell")] = stored[:-1]
    with pytest.raises(Trap, match=r"cell: a stored value of type .* cannot be read"):
        shelf.cell.get()


def test_queries_cannot_write() -> None:
    canister = MemoryCanister()
    canister.learn(PROGRAM)
    shelf, _ = opened(canister, EntryKind.QUERY)
    with pytest.raises(Trap):
        shelf.counted.put("a", 1)


def test_attributes_are_not_set() -> None:
    shelf, _ = fresh()
    with pytest.raises(AttributeError, match="would be lost after this message"):
        shelf.score = 3  # type: ignore[attr-defined]
    with pytest.raises(AttributeError, match="is not assigned to"):
        shelf.cell = [1]  # type: ignore[assignment]
    with pytest.raises(AttributeError):
        del shelf.cell
    with pytest.raises(RuntimeError, match="made by hand"):
        Shelf().cell.get()
