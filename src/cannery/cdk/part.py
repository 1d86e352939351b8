"""A part of a canister: a class attribute that brings stable collections, and perhaps continuations and
timers.

`StableMap` and its sisters are parts with one collection; `Delivery` and `MessageLog` are made of several. A
part is declared once per class and bound, when a method first touches it, to the activation's system. Nothing
is read by binding.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from cannery.candid import types as ct
from cannery.cdk.manifest import CollectionKind
from cannery.cdk.stable_values import Conversion
from cannery.ports import System

if TYPE_CHECKING:
    from cannery.cdk.context import Context
    from cannery.cdk.declare import Canister

SYSTEM_ATTRIBUTE = "_cannery_system"
NO_ANSWER = object()
"""What an internal handler returns where nobody waits for it."""


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What a collection is: `key` is its key type's shape ("" without one), `value` None for sets."""

    name: str
    kind: CollectionKind
    key: str
    value: ct.Type | None
    renamed_from: tuple[str, ...] = ()
    conversions: tuple[Conversion, ...] = ()


@dataclass(frozen=True, slots=True)
class InternalHandler:
    """A continuation or timer that a part brings: its full name, the type of its saved value, what runs.

    `run` gets the canister's instance, the context and the system; what it returns is the answer of the types
    `results`, if anybody waits. A timer's is ignored.
    """

    name: str
    saved: ct.Type | None
    run: Callable[[Canister, Context, System], object]
    results: tuple[ct.Type, ...] = ()


class Part(ABC):
    """A class attribute of a canister that brings stable state."""

    name: str
    attribute = ""
    """The attribute's name, where `name` has a component's prefix before it."""

    @abstractmethod
    def __set_name__(self, owner: type, name: str) -> None:
        """Take the name of the attribute, the first time."""

    def put_under(self, prefix: str) -> None:
        """Take a component's prefix before the name."""
        self.attribute, self.name = self.name, ""
        self.__set_name__(type(self), f"{prefix}.{self.attribute}")

    @abstractmethod
    def collections(self) -> tuple[CollectionSpec, ...]:
        """Give the collections of this part."""

    def continuations(self, cls: type[Canister]) -> tuple[InternalHandler, ...]:  # noqa: ARG002 (for parts to override)
        """Give the continuations that this part brings to a class."""
        return ()

    def timers(self, cls: type[Canister]) -> tuple[InternalHandler, ...]:  # noqa: ARG002 (for parts to override)
        """Give the timer methods that this part brings to a class."""
        return ()


Bound = TypeVar("Bound")


def bound_view(instance: object, name: str, bind: Callable[[System], Bound]) -> Bound:
    """Make the view of a part for an instance, and keep it there for the rest of the activation."""
    attributes = instance.__dict__
    found: Bound | None = attributes.get(name)
    if found is not None:
        return found
    try:
        system = attributes[SYSTEM_ATTRIBUTE]
    except KeyError:
        raise RuntimeError(
            f"{type(instance).__name__} was made by hand: the node makes one for every message it runs"
        ) from None
    view = attributes[name] = bind(system)
    return view


def names_of(renamed_from: str | tuple[str, ...] | list[str] | None) -> tuple[str, ...]:
    """Turn the argument `renamed_from` into a tuple of earlier names."""
    if renamed_from is None:
        return ()
    return (renamed_from,) if isinstance(renamed_from, str) else tuple(renamed_from)
