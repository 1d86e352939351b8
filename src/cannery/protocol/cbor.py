"""CBOR as requests, answers and certificates use it: one item, text keys, no tags but self-described and
bignum.

IC interface specification, section "CBOR encoding of requests and responses"; RFC 8949. The bytes are read
by cbor2; this module holds what is not said there: bounds, one item exactly, no duplicate keys, and one
error. It knows nothing of envelopes or trees.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from io import BytesIO
from typing import NoReturn, TypeAlias

import cbor2

from cannery.errors import DecodeError
from cannery.limits import CBOR_DEPTH_MAX, CBOR_ITEM_COUNT_MAX, CBOR_SIZE_BYTES_MAX

CborValue: TypeAlias = "bool | int | float | str | bytes | list[CborValue] | dict[str, CborValue] | None"
CborSource: TypeAlias = (
    "bool | int | float | str | bytes | Sequence[CborSource] | Mapping[str, CborSource] | None"
)

SELF_DESCRIBE_TAG = 55799
SELF_DESCRIBE_PREFIX = b"\xd9\xd9\xf7"

# Below this size an input cannot hold enough items to matter, so counting them first would only cost time.
_COUNTED_SIZE_BYTES_MIN = 32 * 1024

_MAJOR_BYTES, _MAJOR_TEXT = 2, 3
_INDEFINITE = 31
# cbor2 repeats a duplicate key in its reason, whatever the key's length.
_REASON_SIZE_CHARS_MAX = 200
_SCALARS = frozenset((type(None), bool, int, float, str, bytes))
_COMPLEX_TAGS = (0, 1, 4, 5, 25, 28, 29, 30, 35, 36, 37, 52, 54, 100, 256, 258, 260, 261, 1004, 43000, 55799)


class CborError(DecodeError):
    """Bytes are not one CBOR item within the bounds."""


def encode(value: CborSource, *, self_describe: bool) -> bytes:
    """Encode a value, with the tag 55799 in front if asked."""
    body = cbor2.dumps(value)
    return SELF_DESCRIBE_PREFIX + body if self_describe else body


def decode(data: bytes) -> tuple[CborValue, bool]:
    """Read one item and tell whether it was self-described; every map key is text."""
    value, tagged = decode_any_keys(data, CBOR_DEPTH_MAX)
    _check_types(value)
    return value, tagged  # type: ignore[return-value]  # _check_types has just shown it


def decode_any_keys(
    data: bytes, depth_max: int, *, binary_keys: bool = True, item_count_max: int = CBOR_ITEM_COUNT_MAX
) -> tuple[object, bool]:
    """Read one item whose map keys the caller checks; with `binary_keys`, they are text or bytes at least.

    The caller of this is a parser of a fixed shape, for which a second walk over the values would be waste.
    """
    if len(data) > CBOR_SIZE_BYTES_MAX:
        raise CborError(f"CBOR of {len(data)} bytes is larger than the {CBOR_SIZE_BYTES_MAX} bytes allowed")
    tagged = data[:3] == SELF_DESCRIBE_PREFIX
    if len(data) > _COUNTED_SIZE_BYTES_MIN:
        _check_item_count(data, item_count_max)
    stream = BytesIO(data)
    if tagged:
        stream.seek(3)
    try:
        value = cbor2.load(
            stream,
            max_depth=depth_max,
            allow_duplicate_keys=False,
            strict_hashable_types=binary_keys,
            semantic_decoders=_REFUSED_TAGS,
            tag_hook=_refuse_tag,
        )
    except CborError as error:
        raise CborError(str(error)) from None
    except (
        cbor2.CBORDecodeError,
        ValueError,
        OverflowError,
        MemoryError,
        RecursionError,
        TypeError,
    ) as error:
        raise CborError(f"not CBOR as the interface asks for: {_innermost(error)}") from None
    if stream.tell() != len(data):
        raise CborError(
            f"{len(data) - stream.tell()} bytes follow the CBOR item, send one item and nothing else"
        )
    return value, tagged


def _refuse_tag(tag: cbor2.CBORTag, _immutable: bool) -> NoReturn:
    raise CborError(f"tag {tag.tag} has no place here: only self-described CBOR and bignums are tagged")


def _refuse_complex_tag(_decoder: object, *_immutable: object) -> NoReturn:
    raise CborError("a tag has no place here: only self-described CBOR (in front) and bignums are tagged")


_REFUSED_TAGS = dict.fromkeys(_COMPLEX_TAGS, _refuse_complex_tag)


def _innermost(error: BaseException) -> str:
    while error.__cause__ is not None:
        error = error.__cause__
    return str(error)[:_REASON_SIZE_CHARS_MAX] or type(error).__name__


def _check_types(value: object) -> None:
    pending = [value]
    while pending:
        item = pending.pop()
        if type(item) is dict:
            for key in item:
                if type(key) is not str:
                    raise CborError("a map has a key that is not text")
            pending.extend(item.values())
        elif type(item) is list:
            pending.extend(item)
        elif type(item) not in _SCALARS:
            raise CborError("a simple value other than true, false and null has no place here")


def _check_item_count(data: bytes, item_count_max: int) -> None:
    """Skim the items' heads, so that a small input cannot ask for a thousand times its size in objects.

    Only counts: whatever is malformed beyond the counting, cbor2 refuses afterwards.
    """
    position, count, size = 0, 0, len(data)
    while position < size:
        count += 1
        if count > item_count_max:
            raise CborError(f"more than {item_count_max} CBOR items in one input")
        head = data[position]
        position += 1
        major, info = head >> 5, head & 0x1F
        argument = info
        if 24 <= info <= 27:
            width = 1 << (info - 24)
            argument = int.from_bytes(data[position : position + width], "big")
            position += width
        if major in (_MAJOR_BYTES, _MAJOR_TEXT) and info != _INDEFINITE:
            position += argument
