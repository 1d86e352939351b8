"""Stable maps and sets: ordered by key, scanned both ways, read in pages.

State: slot ‖ key -> value (nothing for sets); a counted one keeps its size in slot -> 8 bytes big-endian,
which costs a read for each put and a further read and write for each new key. Without `counted=True` a put is
one write, and `len()` is refused. A collection that becomes counted in a later version counts itself once, at
the first use.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from cannery.candid.python import type_of
from cannery.cdk.manifest import CollectionKind
from cannery.cdk.pages import Page, checked_limit, take
from cannery.cdk.part import CollectionSpec, Part, bound_view, names_of
from cannery.cdk.stable_keys import KeyCodec, key_codec, next_prefix
from cannery.cdk.stable_values import Conversion, ValueCodec, conversion_of
from cannery.ports import System

if TYPE_CHECKING:
    from typing_extensions import TypeForm

K = TypeVar("K")
V = TypeVar("V")
D = TypeVar("D")


class _Keys(Generic[K]):
    """The keys of one collection in one activation: what maps and sets share."""

    __slots__ = ("_codec", "_counted", "_slot", "_system", "_where")

    def __init__(self, system: System, slot: bytes, codec: KeyCodec, where: str, counted: bool) -> None:
        self._system = system
        self._slot = slot
        self._codec = codec
        self._where = where
        self._counted = counted

    @property
    def _after(self) -> bytes:
        """What comes after every key of the collection."""
        after = next_prefix(self._slot)
        assert after is not None, "slots do not begin with ff"
        return after

    def stored(self, key: object) -> bytes:
        """Return the stored key of an author's key."""
        return self._slot + self._codec.encode(key)

    def key_of(self, stored: bytes) -> K:
        """Return the author's key of a stored key."""
        # The codec was made for the key type that the declaration binds to K.
        return typing.cast(K, self._codec.decode(stored, len(self._slot)))

    def range(self, start: K | None, end: K | None, prefix: object) -> tuple[bytes, bytes]:
        """Return the stored range of start <= key < end within a prefix."""
        low, high = self._slot + b"\x00", self._after
        if prefix is not None:
            low = self._slot + self._codec.start(prefix)
            high = next_prefix(low) or self._after
        if start is not None:
            low = max(low, self.stored(start))
        if end is not None:
            high = min(high, self.stored(end))
        return low, high

    def scan(self, low: bytes, high: bytes, reverse: bool) -> Iterator[tuple[bytes, bytes]]:
        """Scan a stored range."""
        if low >= high:
            return iter(())
        return self._system.scan(low, high, reverse=reverse)

    def page_range(self, after: K | None, bounds: tuple[bytes, bytes], reverse: bool) -> tuple[bytes, bytes]:
        """Cut a range to what comes after a key in scan order."""
        low, high = bounds
        if after is None:
            return bounds
        if reverse:
            return low, min(high, self.stored(after))
        return max(low, self.stored(after) + b"\x00"), high

    def changed(self, difference: int) -> None:
        """Keep the count, where there is one, after a key was added or removed."""
        count = self.count() + difference
        self._system.put(self._slot, count.to_bytes(8, "big"))

    def count(self) -> int:
        """Return the number of keys."""
        if not self._counted:
            raise TypeError(
                f"{self._where} keeps no count: declare it with counted=True, or count what you need"
            )
        stored = self._system.get(self._slot)
        if stored is not None:
            return int.from_bytes(stored, "big")
        return sum(1 for _ in self.scan(self._slot + b"\x00", self._after, False))

    def clear(self) -> None:
        """Remove every key."""
        self._system.delete_range(self._slot, self._after)


class MapView(Generic[K, V]):
    """A map as a method sees it. A value is frozen: to change it, put another one.

    Do not change a map while you iterate over it: take a page first.
    """

    __slots__ = ("_counted", "_keys", "_system", "_values")

    def __init__(self, system: System, keys: _Keys[K], values: ValueCodec[V], counted: bool) -> None:
        self._system = system
        self._keys = keys
        self._values = values
        self._counted = counted

    @overload
    def get(self, key: K) -> V | None: ...
    @overload
    def get(self, key: K, default: D) -> V | D: ...
    def get(self, key: K, default: object = None) -> object:
        """Return the value at `key`, or the default."""
        data = self._system.get(self._keys.stored(key))
        return default if data is None else self._values.read(data, self._system)

    def __getitem__(self, key: K) -> V:
        data = self._system.get(self._keys.stored(key))
        if data is None:
            raise KeyError(key)
        return self._values.read(data, self._system)

    def __contains__(self, key: object) -> bool:
        return self._system.get(self._keys.stored(key)) is not None

    def put(self, key: K, value: V) -> None:
        """Store a value at `key`."""
        stored = self._keys.stored(key)
        data = self._values.write(value)
        if self._counted and self._system.get(stored) is None:
            self._keys.changed(1)
        self._system.put(stored, data)

    def __setitem__(self, key: K, value: V) -> None:
        self.put(key, value)

    def delete(self, key: K) -> bool:
        """Remove `key`; say whether it was there."""
        stored = self._keys.stored(key)
        if self._counted and self._system.get(stored) is not None:
            self._keys.changed(-1)
        return self._system.delete(stored)

    def __delitem__(self, key: K) -> None:
        if not self.delete(key):
            raise KeyError(key)

    def __len__(self) -> int:
        return self._keys.count()

    def __bool__(self) -> bool:
        return self.first() is not None

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def items(
        self,
        *,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[tuple[K, V]]:
        """Iterate over pairs with start <= key < end and, for tuple, text and blob keys, a common
        beginning."""
        low, high = self._keys.range(start, end, prefix)
        key_of, read, system = self._keys.key_of, self._values.read, self._system
        for stored, data in islice(self._keys.scan(low, high, reverse), limit):
            yield key_of(stored), read(data, system)

    def keys(
        self,
        *,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[K]:
        """Iterate over keys, as `items` does."""
        low, high = self._keys.range(start, end, prefix)
        for stored, _ in islice(self._keys.scan(low, high, reverse), limit):
            yield self._keys.key_of(stored)

    def values(
        self,
        *,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[V]:
        """Iterate over values, as `items` does."""
        low, high = self._keys.range(start, end, prefix)
        for _, data in islice(self._keys.scan(low, high, reverse), limit):
            yield self._values.read(data, self._system)

    def page(
        self,
        *,
        limit: int,
        after: K | None = None,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
    ) -> Page[tuple[K, V], K]:
        """Return up to `limit` pairs that come after a key in scan order."""
        keys, system = self._keys, self._system
        low, high = keys.page_range(after, keys.range(start, end, prefix), reverse)
        taken, more = take(keys.scan(low, high, reverse), checked_limit(limit))
        items = [(keys.key_of(stored), self._values.read(data, system)) for stored, data in taken]
        return Page(items, items[-1][0] if more else None)

    def first(self) -> tuple[K, V] | None:
        """Return the pair with the smallest key."""
        return next(self.items(limit=1), None)

    def last(self) -> tuple[K, V] | None:
        """Return the pair with the largest key."""
        return next(self.items(reverse=True, limit=1), None)

    def clear(self) -> None:
        """Remove everything, in one range delete."""
        self._keys.clear()


class SetView(Generic[K]):
    """A set as a method sees it."""

    __slots__ = ("_counted", "_keys", "_system")

    def __init__(self, system: System, keys: _Keys[K], counted: bool) -> None:
        self._system = system
        self._keys = keys
        self._counted = counted

    def add(self, key: K) -> bool:
        """Add a key; say whether it is new."""
        stored = self._keys.stored(key)
        if self._system.get(stored) is not None:
            return False
        if self._counted:
            self._keys.changed(1)
        self._system.put(stored, b"")
        return True

    def discard(self, key: K) -> bool:
        """Remove a key; say whether it was there."""
        stored = self._keys.stored(key)
        if self._counted and self._system.get(stored) is not None:
            self._keys.changed(-1)
        return self._system.delete(stored)

    def __contains__(self, key: object) -> bool:
        return self._system.get(self._keys.stored(key)) is not None

    def __len__(self) -> int:
        return self._keys.count()

    def __bool__(self) -> bool:
        return self.first() is not None

    def __iter__(self) -> Iterator[K]:
        return self.keys()

    def keys(
        self,
        *,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
        limit: int | None = None,
    ) -> Iterator[K]:
        """Iterate over keys with start <= key < end and, for tuple, text and blob keys, a common
        beginning."""
        low, high = self._keys.range(start, end, prefix)
        for stored, _ in islice(self._keys.scan(low, high, reverse), limit):
            yield self._keys.key_of(stored)

    def page(
        self,
        *,
        limit: int,
        after: K | None = None,
        start: K | None = None,
        end: K | None = None,
        prefix: object = None,
        reverse: bool = False,
    ) -> Page[K, K]:
        """Return up to `limit` keys that come after a key in scan order."""
        keys = self._keys
        low, high = keys.page_range(after, keys.range(start, end, prefix), reverse)
        taken, more = take(keys.scan(low, high, reverse), checked_limit(limit))
        items = [keys.key_of(stored) for stored, _ in taken]
        return Page(items, items[-1] if more else None)

    def first(self) -> K | None:
        """Return the smallest key."""
        return next(self.keys(limit=1), None)

    def last(self) -> K | None:
        """Return the largest key."""
        return next(self.keys(reverse=True, limit=1), None)

    def clear(self) -> None:
        """Remove everything, in one range delete."""
        self._keys.clear()


class StableMap(Part, Generic[K, V]):
    """Declare a map: `people = StableMap(Principal, Person)`.

    `convert_from` are functions from values of incompatible older types, `renamed_from` the attribute's
    earlier names.
    """

    def __init__(
        self,
        key: TypeForm[K],
        value: TypeForm[V],
        *,
        counted: bool = False,
        renamed_from: str | tuple[str, ...] | None = None,
        convert_from: Sequence[Callable[..., V]] = (),
    ) -> None:
        self.name = ""
        self.counted = counted
        self.renamed_from = names_of(renamed_from)
        self._key_codec = key_codec(type_of(key))
        self._value_type = type_of(value)
        self._conversions: tuple[Conversion, ...] = tuple(
            conversion_of(f, self._value_type) for f in convert_from
        )
        self._value_codec: ValueCodec[V] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def collections(self) -> tuple[CollectionSpec, ...]:
        kind: CollectionKind = "counted_map" if self.counted else "map"
        shape = self._key_codec.shape
        return (
            CollectionSpec(self.name, kind, shape, self._value_type, self.renamed_from, self._conversions),
        )

    def bind(self, system: System) -> MapView[K, V]:
        """Make the view of one activation."""
        if self._value_codec is None:
            self._value_codec = ValueCodec(self.name, self._value_type, self._conversions)
        keys: _Keys[K] = _Keys(system, system.slot(self.name), self._key_codec, self.name, self.counted)
        return MapView(system, keys, self._value_codec, self.counted)

    @overload
    def __get__(self, instance: None, owner: type) -> StableMap[K, V]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> MapView[K, V]: ...
    def __get__(self, instance: object | None, owner: type) -> StableMap[K, V] | MapView[K, V]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)


class StableSet(Part, Generic[K]):
    """Declare a set: `members = StableSet(Principal)`."""

    def __init__(
        self, key: TypeForm[K], *, counted: bool = False, renamed_from: str | tuple[str, ...] | None = None
    ) -> None:
        self.name = ""
        self.counted = counted
        self.renamed_from = names_of(renamed_from)
        self._key_codec = key_codec(type_of(key))

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def collections(self) -> tuple[CollectionSpec, ...]:
        kind: CollectionKind = "counted_set" if self.counted else "set"
        return (CollectionSpec(self.name, kind, self._key_codec.shape, None, self.renamed_from),)

    def bind(self, system: System) -> SetView[K]:
        """Make the view of one activation."""
        keys: _Keys[K] = _Keys(system, system.slot(self.name), self._key_codec, self.name, self.counted)
        return SetView(system, keys, self.counted)

    @overload
    def __get__(self, instance: None, owner: type) -> StableSet[K]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> SetView[K]: ...
    def __get__(self, instance: object | None, owner: type) -> StableSet[K] | SetView[K]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)
