# ruff: noqa: ARG001 - readers and skippers share one signature, whatever each needs of it
"""Readers of single values: primitive types, references, counts and raw bytes.

Candid specification, section "Memory". A reader takes (data, position, depth, meter) and returns (value,
position); a skipper returns the position. Both raise `CandidError`, or one of `ENDS_EARLY` where the bytes
end: whoever calls the outermost reader turns those into `CandidError`. Composite values are read in `coerce`
and skipped in `skip`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from struct import Struct
from struct import error as struct_error
from typing import TypeAlias

from cannery.candid.errors import CandidError, CoercionError
from cannery.candid.graph import BOOL, FIXED_FORMATS, INT, NAT, NULL, PRINCIPAL, RESERVED, TEXT
from cannery.candid.leb128 import decode_leb128, decode_sleb128
from cannery.candid.measure import charge
from cannery.candid.values import FuncRef, ServiceRef
from cannery.limits import CANDID_PRINCIPAL_CACHE_COUNT_MAX, CANDID_VALUE_DEPTH_LEVELS_MAX
from cannery.protocol.principal import PRINCIPAL_SIZE_BYTES_MAX, Principal

Reader: TypeAlias = Callable[[bytes, int, int, list[int]], tuple[object, int]]
Skipper: TypeAlias = Callable[[bytes, int, int, list[int]], int]

ENDS_EARLY = (IndexError, OverflowError, struct_error, UnicodeDecodeError, RecursionError)
"""What reading past the end, or text that is not UTF-8, raises inside a reader; OverflowError where a length
leads past all places that there can be; RecursionError where the caller itself stands so deep that less than
`CANDID_VALUE_DEPTH_LEVELS_MAX` frames are left."""

_DEPTH_SLACK_LEVELS = 8


def refuse_ending(error: Exception) -> CandidError:
    """Turn one of `ENDS_EARLY` into the error that a decoder raises."""
    if isinstance(error, UnicodeDecodeError):
        return CandidError(f"text is not UTF-8: {error.reason}")
    if isinstance(error, RecursionError):
        return CandidError("values are nested too deeply")
    return CandidError("the message ends inside a value")


@lru_cache(maxsize=CANDID_PRINCIPAL_CACHE_COUNT_MAX)
def principal_of(raw: bytes) -> Principal:
    """Return the principal of these bytes, the same object for the same bytes."""
    if len(raw) > PRINCIPAL_SIZE_BYTES_MAX:
        raise CandidError(
            f"a principal has at most {PRINCIPAL_SIZE_BYTES_MAX} bytes, this one has {len(raw)}"
        )
    return Principal(raw)


def read_raw(data: bytes, position: int) -> tuple[bytes, int]:
    """Read a length and as many bytes."""
    size, position = decode_leb128(data, position)
    end = position + size
    if end > len(data):
        raise CandidError(f"{size} bytes at byte {position} run past the end")
    return data[position:end], end


def read_principal(data: bytes, position: int) -> tuple[Principal, int]:
    """Read a principal in its transparent form."""
    if data[position] != 1:
        raise CandidError(f"reference at byte {position} is opaque, or no reference")
    raw, position = read_raw(data, position + 1)
    return principal_of(raw), position


def read_func(data: bytes, position: int) -> tuple[FuncRef, int]:
    """Read a reference to a method in its transparent form."""
    if data[position] != 1:
        raise CandidError(f"reference at byte {position} is opaque, or no reference")
    principal, position = read_principal(data, position + 1)
    raw, position = read_raw(data, position)
    return FuncRef(principal, raw.decode()), position


def refuse_depth(position: int) -> CandidError:
    """Make the error for values nested too deeply."""
    return CandidError(
        f"values are nested over {CANDID_VALUE_DEPTH_LEVELS_MAX} levels deep at byte {position}"
    )


def check_depth(depth: int, position: int) -> None:
    """Refuse a composite value that stands too deep."""
    if depth > CANDID_VALUE_DEPTH_LEVELS_MAX + _DEPTH_SLACK_LEVELS:
        raise refuse_depth(position)


def read_count(data: bytes, position: int, size: int, charge_each: int, meter: list[int]) -> tuple[int, int]:
    """Read how many elements follow; refuse more than the rest of the bytes or the meter can pay for."""
    count, position = decode_leb128(data, position)
    if count * size > len(data) - position:
        raise CandidError(f"{count} elements at byte {position} run past the end")
    if charge_each:
        charge(meter, count * charge_each)
    return count, position


def value_null(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a value without bytes."""
    return None, position


def value_bool(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a bool."""
    byte = data[position]
    if byte > 1:
        raise CandidError(f"bool at byte {position} is {byte}, not 0 or 1")
    return byte == 1, position + 1


def value_nat(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a natural number."""
    byte = data[position]
    return (byte, position + 1) if byte < 128 else decode_leb128(data, position)


def value_int(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read an integer."""
    return decode_sleb128(data, position)


def value_text(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read text."""
    raw, position = read_raw(data, position)
    return raw.decode(), position


def value_principal(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a principal."""
    return read_principal(data, position)


def value_func(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a reference to a method."""
    return read_func(data, position)


def value_service(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a reference to a canister."""
    principal, position = read_principal(data, position)
    return ServiceRef(principal), position


def value_blob(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
    """Read a blob."""
    return read_raw(data, position)


def _fixed_reader(format: str) -> Reader:
    unpack, size = Struct("<" + format).unpack_from, Struct("<" + format).size

    def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
        return unpack(data, position)[0], position + size

    return read


PRIMITIVE_READERS: dict[int, Reader] = {
    NULL: value_null,
    BOOL: value_bool,
    NAT: value_nat,
    INT: value_int,
    TEXT: value_text,
    PRINCIPAL: value_principal,
    RESERVED: value_null,
    **{ref: _fixed_reader(format) for ref, format in FIXED_FORMATS.items()},
}


def skipper_of(reader: Reader) -> Skipper:
    """Make a skipper out of a reader."""

    def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
        return reader(data, position, depth, meter)[1]

    return skip


def fixed_skipper(size: int) -> Skipper:
    """Make a skipper for values of fixed size."""

    def skip(data: bytes, position: int, depth: int, meter: list[int]) -> int:
        if position + size > len(data):
            raise CandidError("the message ends inside a value")
        return position + size

    return skip


def skip_future(data: bytes, position: int, depth: int, meter: list[int]) -> int:
    """Skip a value of a later Candid."""
    size, position = decode_leb128(data, position)
    references, position = decode_leb128(data, position)
    if references or position + size > len(data):
        raise CandidError(f"future value at byte {position} runs past the end, or has references")
    return position + size


def refusal(text: str) -> Reader:
    """Make a reader for values that do not fit the expected type."""

    def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
        raise CoercionError(text)

    return read


def no_values(kind: str) -> Reader:
    """Make a reader for a type without values."""

    def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
        raise CandidError(f"value at byte {position} has a type without values ({kind})")

    return read


def numbers_reader(format: str) -> Reader:
    """Make a reader for a vector of numbers of fixed size."""
    size = Struct("<" + format).size

    def read(data: bytes, position: int, depth: int, meter: list[int]) -> tuple[object, int]:
        count, position = read_count(data, position, size, 0, meter)
        return read_numbers(format, data, position, count), position + count * size

    return read


def read_numbers(format: str, data: bytes, position: int, count: int) -> list[int | float]:
    """Read numbers of fixed size in one go; the caller has checked that they are there."""
    return list(Struct(f"<{count}{format}").unpack_from(data, position))
