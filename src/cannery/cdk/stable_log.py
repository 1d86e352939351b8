"""Stable logs: entries with dense numbers from 0, appended in constant time, pruned from the front.

State: slot ‖ index (8 bytes big-endian) -> value; slot -> index of the first entry ‖ index of the next one (8
bytes each). An append is one read and two writes, however long the log is; pruning is one range delete.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from cannery.candid.python import type_of
from cannery.cdk.pages import Page, checked_limit, take
from cannery.cdk.part import CollectionSpec, Part, bound_view, names_of
from cannery.cdk.stable_values import Conversion, ValueCodec, conversion_of
from cannery.ports import System

if TYPE_CHECKING:
    from typing_extensions import TypeForm

V = TypeVar("V")


class LogView(Generic[V]):
    """A log as a method sees it."""

    __slots__ = ("_slot", "_system", "_values")

    def __init__(self, system: System, slot: bytes, values: ValueCodec[V]) -> None:
        self._system = system
        self._slot = slot
        self._values = values

    def append(self, value: V) -> int:
        """Add an entry at the end; return its number."""
        data = self._values.write(value)
        first, index = self._bounds()
        self._system.put(self._at(index), data)
        self._keep(first, index + 1)
        return index

    def get(self, index: int) -> V | None:
        """Return the entry with this number; None where there is none, or it was pruned."""
        if not 0 <= index < 2**64:
            return None
        data = self._system.get(self._at(index))
        return None if data is None else self._values.read(data, self._system)

    def __getitem__(self, index: int) -> V:
        entry = None if index < 0 else self._system.get(self._at(index))
        if entry is None:
            raise IndexError(f"the log has entries {self.first} to {self.next - 1}, not {index}")
        return self._values.read(entry, self._system)

    def set(self, index: int, value: V) -> None:
        """Replace an entry that is there; raise IndexError where it is not."""
        data = self._values.write(value)
        first, next_ = self._bounds()
        if not first <= index < next_:
            raise IndexError(f"the log has entries {first} to {next_ - 1}, not {index}")
        self._system.put(self._at(index), data)

    @property
    def first(self) -> int:
        """The number of the oldest entry that is kept."""
        return self._bounds()[0]

    @property
    def next(self) -> int:
        """The number that the next entry gets."""
        return self._bounds()[1]

    def __len__(self) -> int:
        first, next_ = self._bounds()
        return next_ - first

    def __iter__(self) -> Iterator[V]:
        return (value for _, value in self.items())

    def items(
        self,
        *,
        start: int | None = None,
        end: int | None = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[int, V]]:
        """Iterate over numbers and entries with start <= number < end."""
        read, system = self._values.read, self._system
        for key, data in islice(self._scan(start, end, reverse), limit):
            yield self._index_of(key), read(data, system)

    def page(
        self, *, limit: int, after: int | None = None, reverse: bool = False
    ) -> Page[tuple[int, V], int]:
        """Return up to `limit` numbers and entries that come after a number in scan order."""
        start = after + 1 if after is not None and not reverse else None
        end = after if reverse else None
        taken, more = take(self._scan(start, end, reverse), checked_limit(limit))
        items = [(self._index_of(key), self._values.read(data, self._system)) for key, data in taken]
        return Page(items, items[-1][0] if more else None)

    def prune(self, *, before: int) -> int:
        """Drop the entries with numbers under `before`; return how many there were."""
        first, next_ = self._bounds()
        until = min(before, next_)
        if until <= first:
            return 0
        self._system.delete_range(self._at(first), self._at(until))
        self._keep(until, next_)
        return until - first

    def _bounds(self) -> tuple[int, int]:
        stored = self._system.get(self._slot)
        if stored is None:
            return 0, 0
        return int.from_bytes(stored[:8], "big"), int.from_bytes(stored[8:], "big")

    def _keep(self, first: int, next_: int) -> None:
        self._system.put(self._slot, first.to_bytes(8, "big") + next_.to_bytes(8, "big"))

    def _at(self, index: int) -> bytes:
        return self._slot + index.to_bytes(8, "big")

    def _index_of(self, key: bytes) -> int:
        return int.from_bytes(key[len(self._slot) :], "big")

    def _scan(self, start: int | None, end: int | None, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        first, next_ = self._bounds()
        low = first if start is None else max(first, start)
        high = next_ if end is None else min(next_, end)
        if low >= high:
            return iter(())
        return self._system.scan(self._at(low), self._at(high), reverse=reverse)


class StableLog(Part, Generic[V]):
    """Declare a log: `entries = StableLog(Entry)`.

    `convert_from` are functions from entries of incompatible older types, `renamed_from` the attribute's
    earlier names.
    """

    def __init__(
        self,
        value: TypeForm[V],
        *,
        renamed_from: str | tuple[str, ...] | None = None,
        convert_from: Sequence[Callable[..., V]] = (),
    ) -> None:
        self.name = ""
        self.renamed_from = names_of(renamed_from)
        self._value_type = type_of(value)
        self._conversions: tuple[Conversion, ...] = tuple(
            conversion_of(f, self._value_type) for f in convert_from
        )
        self._value_codec: ValueCodec[V] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def collections(self) -> tuple[CollectionSpec, ...]:
        return (CollectionSpec(self.name, "log", "", self._value_type, self.renamed_from, self._conversions),)

    def bind(self, system: System) -> LogView[V]:
        """Make the view of one activation."""
        if self._value_codec is None:
            self._value_codec = ValueCodec(self.name, self._value_type, self._conversions)
        return LogView(system, system.slot(self.name), self._value_codec)

    @overload
    def __get__(self, instance: None, owner: type) -> StableLog[V]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> LogView[V]: ...
    def __get__(self, instance: object | None, owner: type) -> StableLog[V] | LogView[V]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)
