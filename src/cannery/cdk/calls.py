"""Calls to other canisters as values: what to call, what is under way, what came back.

IC interface specification, "Inter-canister calls". A `Call` is made by a typed interface (`service`) or by
hand; only `Context` sends it. A call in flight is a record of the node, so none of these objects outlives its
message.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from cannery.candid import types as ct
from cannery.candid.binding import BINDING_ATTRIBUTE
from cannery.candid.codec import encoder
from cannery.candid.errors import CandidError
from cannery.candid.python import type_of
from cannery.errors import RejectCode, Trap
from cannery.ports import CallOutcome
from cannery.protocol.principal import Principal

T_co = TypeVar("T_co", covariant=True)
T = TypeVar("T")

Encode = Callable[[Sequence[object]], bytes]
Decode = Callable[[bytes], tuple[object, ...]]


@dataclass(frozen=True, slots=True)
class Call(Generic[T_co]):
    """A call that could be made: callee, method, encoded argument, and the result types where they are
    known."""

    callee: bytes
    method: str
    arg: bytes
    results: tuple[ct.Type, ...] | None = None

    @staticmethod
    def raw(canister: Principal, method: str, arg: bytes) -> Call[bytes]:
        """Make a call whose argument is encoded already, and whose reply is read as raw bytes."""
        return Call(canister.raw, method, arg)

    @staticmethod
    def of(
        canister: Principal,
        method: str,
        args: Sequence[object] = (),
        *,
        types: Sequence[object] | None = None,
        returns: Sequence[object] | None = None,
    ) -> Call[object]:
        """Make a call by hand: `types` and `returns` are type hints, one for each value.

        Without `types` they are inferred as `encode_args` does. Without `returns` the continuation's hint
        reads the reply.
        """
        arg = encode_args(*args, types=types)
        results = None if returns is None else tuple(type_of(hint) for hint in returns)
        return Call(canister.raw, method, arg, results)


def encode_args(*values: object, types: Sequence[object] | None = None) -> bytes:
    """Encode values as an argument, for the installation of a child: by type hints, or by what the values
    are.

    Inferred are records and variants of classes, bool, str, bytes, Principal and None; an int needs `types`.
    """
    hints = [_inferred(value, "encode_args") for value in values] if types is None else list(types)
    if len(hints) != len(values):
        raise TypeError(f"encode_args: {len(values)} values, {len(hints)} types")
    return encode_arguments("encode_args", encoder(tuple(type_of(hint) for hint in hints)), values)


def encode_arguments(method: str, encode: Encode, values: Sequence[object]) -> bytes:
    """Encode the arguments of a call; raise TypeError naming the method where they do not fit."""
    try:
        return encode(values)
    except CandidError as error:
        raise TypeError(f"arguments of {method}: {error}") from None


class Pending(Generic[T_co]):
    """A call that was sent. Returned from a method, it leaves the answer to the call's continuation."""

    __slots__ = ("number", "results")

    def __init__(self, number: int, results: tuple[ct.Type, ...] | None) -> None:
        self.number = number
        self.results = results


class Outcome(Generic[T_co]):
    """What a call brought back: a reply with its value, or a reject with a code and a text."""

    __slots__ = ("_value", "error_code", "refunded", "reject_code", "reject_message")

    def __init__(
        self,
        value: T_co | None,
        reject_code: int = 0,
        reject_message: str = "",
        refunded: int = 0,
        error_code: str | None = None,
    ) -> None:
        self._value = value
        self.reject_code = reject_code
        self.reject_message = reject_message
        self.refunded = refunded
        self.error_code = error_code

    @property
    def ok(self) -> bool:
        """Whether the callee replied."""
        return self.reject_code == 0

    @property
    def value(self) -> T_co:
        """The reply's value; a trap where there is none: ask `ok` before."""
        return self.unwrap()

    def unwrap(self) -> T_co:
        """Return the reply's value; trap with the callee's text where it rejected."""
        if self.reject_code:
            raise Trap(f"a call was rejected with code {self.reject_code}: {self.reject_message}")
        # A reply has been decoded to T; None is a value of T where the callee returns nothing.
        return self._value  # type: ignore[return-value]

    def __repr__(self) -> str:
        if self.ok:
            return f"Outcome({self._value!r})"
        return f"Outcome(rejected {self.reject_code}: {self.reject_message!r})"


class RawOutcome(Outcome[bytes]):
    """An outcome whose reply is left undecoded."""

    __slots__ = ()


def read_outcome(outcome: CallOutcome, decode: Decode) -> Outcome[object]:
    """Decode an outcome; a reply that is not of these types counts as a reject, so that a continuation can
    clean up."""
    if outcome.reject_code:
        return Outcome(
            None, outcome.reject_code, outcome.reject_message, outcome.cycles_refunded, outcome.error_code
        )
    try:
        values = decode(outcome.reply)
    except CandidError as error:
        text = f"the reply is not of the expected type: {error}"
        return Outcome(None, RejectCode.CANISTER_ERROR, text, outcome.cycles_refunded)
    value: object = values if len(values) > 1 else values[0] if values else None
    return Outcome(value, 0, "", outcome.cycles_refunded)


def read_raw_outcome(outcome: CallOutcome) -> RawOutcome:
    """Wrap an outcome without decoding its reply."""
    return RawOutcome(
        outcome.reply,
        outcome.reject_code,
        outcome.reject_message,
        outcome.cycles_refunded,
        outcome.error_code,
    )


def _inferred(value: object, method: str) -> object:
    if BINDING_ATTRIBUTE in type(value).__dict__:
        return type(value)
    for known in (bool, str, bytes, Principal):
        if isinstance(value, known):
            return known
    if value is None:
        return None
    raise TypeError(f"{method}: give types= for an argument of type {type(value).__name__}")
