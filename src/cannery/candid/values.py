"""Python forms of those Candid values that Python has no type for.

Candid specification, sections "Options", "Variants" and "References". Numbers, text, blobs, vectors and
records use Python's own types; the classes that authors declare are in `record` and `variant`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from cannery.candid.binding import bind_class
from cannery.protocol.principal import Principal

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Some(Generic[T]):
    """Hold the value of an option whose content may be null itself.

    `opt nat` is `None | int`. Where the content is `opt`, `null` or `reserved`, a present value is wrapped,
    so that `opt opt nat` tells `None` (null), `Some(None)` (opt null) and `Some(3)` (opt opt 3) apart.
    """

    value: T


class Variant:
    """One case of a variant: its tag and its value (`None` for a case without one).

    Variants without a Python class of their own decode to this class; those declared with `@variant` are
    subclasses. An unnamed case has the tag `_N_`, N being its number. Instances are immutable, equal by
    class, tag and value.
    """

    __slots__ = ("tag", "value")

    tag: str
    value: object

    def __init__(self, tag: str, value: object = None) -> None:
        object.__setattr__(self, "tag", tag)
        object.__setattr__(self, "value", value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(
            f"a {type(self).__name__} is immutable: make a new one instead of setting {name!r}"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"a {type(self).__name__} is immutable: {name!r} stays")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, Variant)
        return self.tag == other.tag and self.value == other.value

    def __hash__(self) -> int:
        return hash((self.tag, self.value))

    def __repr__(self) -> str:
        if type(self) is Variant:
            return f"Variant({self.tag!r}, {self.value!r})"
        return f"{type(self).__name__}.{self.tag}({'' if self.value is None else repr(self.value)})"


@dataclass(frozen=True, slots=True)
class FuncRef:
    """Refer to a public method of a canister."""

    principal: Principal
    method: str


@dataclass(frozen=True, slots=True)
class ServiceRef:
    """Refer to a canister by its interface."""

    principal: Principal


@dataclass(frozen=True, slots=True)
class Packed:
    """Stand for a list whose elements are encoded already: `count` of them, one after the other, in `data`.

    Only encoders take it, wherever a `vec` of composite values stands. Whoever makes one answers for the
    bytes: they must come from an encoder of exactly the vector's element type.
    """

    count: int
    data: bytes


bind_class(Variant, ("tag", "value"), {})
