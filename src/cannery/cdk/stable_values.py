"""Values of stable collections: the number of the Candid type they were written with, then their bytes.

A value written with the collection's own type is decoded at once. One of an older type is decoded by Candid
subtyping (Candid specification, section "Coercion"), or by one of the collection's functions from old to new;
nothing is rewritten. The same form carries the saved values of continuations and timers.
"""

from __future__ import annotations

import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cannery import limits
from cannery.candid import types as ct
from cannery.candid.codec import value_converter, value_decoder, value_encoder
from cannery.candid.errors import CandidError
from cannery.candid.python import type_of
from cannery.candid.subtype import explain_loss, is_subtype
from cannery.candid.wire import decode_type
from cannery.cdk.manifest import TYPE_NUMBER_SIZE_BYTES, type_number
from cannery.errors import Trap
from cannery.ports import System

V = TypeVar("V")

Decoder = Callable[[bytes], object]


@dataclass(frozen=True, slots=True)
class Conversion:
    """A function from values of an older type to values of the present one."""

    old: ct.Type
    function: Callable[..., object]


class ValueCodec(Generic[V]):
    """Write and read the values of one collection. `where` names it in error texts."""

    __slots__ = ("_conversions", "_decode", "_encode", "_older", "number", "type", "where")

    def __init__(self, where: str, type_: ct.Type, conversions: Sequence[Conversion] = ()) -> None:
        self.where = where
        self.type = type_
        self.number = type_number(type_)
        self._encode = value_encoder(type_)
        self._decode = value_decoder(type_)
        self._conversions = tuple(conversions)
        # Decoders by type number: derived from the number alone, hence the same in every run.
        self._older: dict[bytes, Decoder] = {}

    def write(self, value: V) -> bytes:
        """Encode a value; raise TypeError naming the collection where it is not of its type."""
        try:
            return self.number + self._encode(value)
        except CandidError as error:
            raise TypeError(f"{self.where}: {error}") from None

    def read(self, data: bytes, system: System) -> V:
        """Decode a stored value of this or an older type."""
        number = data[:TYPE_NUMBER_SIZE_BYTES]
        decode = (
            self._decode if number == self.number else self._older.get(number) or self._find(number, system)
        )
        try:
            # The decoder was made for this collection's type, or converts to it.
            return typing.cast(V, decode(data[TYPE_NUMBER_SIZE_BYTES:]))
        except CandidError as error:
            raise Trap(
                f"{self.where}: a stored value of type {number.hex()} cannot be read: {error}"
            ) from None

    def _find(self, number: bytes, system: System) -> Decoder:
        encoded = system.type_bytes(number)
        if encoded is None:
            raise Trap(f"{self.where}: a stored value has the unknown type {number.hex()}")
        decode = reader_of(decode_type(encoded), self.type, self._conversions)
        if decode is None:
            raise Trap(
                f"{self.where}: a stored value has type {number.hex()}, which the declared type cannot read"
            )
        if len(self._older) < limits.STABLE_VALUE_TYPE_COUNT_MAX:
            self._older[number] = decode
        return decode


def reader_of(old: ct.Type, new: ct.Type, conversions: Sequence[Conversion]) -> Decoder | None:
    """Make the decoder of values written as `old` and read as `new`; None where there is no way.

    A conversion from exactly this type comes first, then subtyping, then the first conversion from a
    supertype.
    """
    number = type_number(old)
    for conversion in conversions:
        if type_number(conversion.old) == number:
            return _converted(value_decoder(conversion.old), conversion.function)
    if reads_all(old, new):
        return value_converter(old, new)
    for conversion in conversions:
        if reads_all(old, conversion.old):
            return _converted(value_converter(old, conversion.old), conversion.function)
    return None


def reads_all(old: ct.Type, new: ct.Type) -> bool:
    """Tell whether every old value is read as `new` with nothing lost: no option turns to null."""
    return is_subtype(old, new) and not explain_loss(old, new)


def _converted(decode: Decoder, function: Callable[..., object]) -> Decoder:
    return lambda data: function(decode(data))


def conversion_of(function: Callable[..., object], new: ct.Type) -> Conversion:
    """Read the old type off a conversion function's one parameter; raise TypeError where it has no hint, or
    where the function does not return values of the type `new`.
    """
    hints = typing.get_type_hints(function, include_extras=True)
    parameters = [name for name in hints if name != "return"]
    if len(parameters) != 1 or function.__code__.co_argcount != 1:
        raise TypeError(
            f"{function.__name__}: a conversion has one parameter, hinted with the type of the old values"
        )
    if "return" not in hints or type_number(type_of(hints["return"])) != type_number(new):
        raise TypeError(
            f"{function.__name__}: a conversion's return hint is the type of the collection's values; give"
            " one function from each older type"
        )
    return Conversion(type_of(hints[parameters[0]]), function)
