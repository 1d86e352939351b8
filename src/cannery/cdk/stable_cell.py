"""Stable cells: one value each, with a default until it is first set. State: slot -> value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Generic, TypeVar, overload

from cannery.candid.python import type_of
from cannery.cdk.part import CollectionSpec, Part, bound_view, names_of
from cannery.cdk.stable_values import Conversion, ValueCodec, conversion_of
from cannery.ports import System

if TYPE_CHECKING:
    from typing_extensions import TypeForm

V = TypeVar("V")


class CellView(Generic[V]):
    """A cell as a method sees it."""

    __slots__ = ("_default", "_slot", "_system", "_values")

    def __init__(self, system: System, slot: bytes, values: ValueCodec[V], default: bytes) -> None:
        self._system = system
        self._slot = slot
        self._values = values
        self._default = default

    def get(self) -> V:
        """Return the value, or the default where none was set."""
        data = self._system.get(self._slot)
        return self._values.read(self._default if data is None else data, self._system)

    def set(self, value: V) -> None:
        """Store a value."""
        self._system.put(self._slot, self._values.write(value))

    @property
    def value(self) -> V:
        """The value; may be assigned, and added to with `+=`."""
        return self.get()

    @value.setter
    def value(self, value: V) -> None:
        self.set(value)

    def is_set(self) -> bool:
        """Tell whether a value was set."""
        return self._system.get(self._slot) is not None

    def clear(self) -> bool:
        """Go back to the default; say whether a value was set."""
        return self._system.delete(self._slot)


class StableCell(Part, Generic[V]):
    """Declare a cell: `count = StableCell(nat64, 0)`; the type comes with a default of that type."""

    def __init__(
        self,
        value: TypeForm[V],
        default: V,
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
        # Kept as bytes, so that every reader gets a value of its own; a wrong one is refused here.
        self._default = ValueCodec[V]("the default of a cell", self._value_type).write(default)
        self._value_codec: ValueCodec[V] | None = None

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = self.name or name

    def collections(self) -> tuple[CollectionSpec, ...]:
        return (
            CollectionSpec(self.name, "cell", "", self._value_type, self.renamed_from, self._conversions),
        )

    def bind(self, system: System) -> CellView[V]:
        """Make the view of one activation."""
        if self._value_codec is None:
            self._value_codec = ValueCodec(self.name, self._value_type, self._conversions)
        return CellView(system, system.slot(self.name), self._value_codec, self._default)

    @overload
    def __get__(self, instance: None, owner: type) -> StableCell[V]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> CellView[V]: ...
    def __get__(self, instance: object | None, owner: type) -> StableCell[V] | CellView[V]:
        return self if instance is None else bound_view(instance, self.attribute or self.name, self.bind)
