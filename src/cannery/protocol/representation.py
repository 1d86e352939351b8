"""Representation-independent hashing of maps, and the LEB128 numbers it hashes.

IC interface specification, section "Representation-independent hashing of structured data". Request ids,
delegations and query answers are signed through it. It does not read CBOR: see `cbor`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from hashlib import sha256

from cannery.errors import DecodeError
from cannery.limits import FIELD_NAME_CACHE_COUNT_MAX, NAT_CACHE_COUNT_MAX, NAT_SIZE_BITS_MAX

_LEB128_SIZE_BYTES_MAX = (NAT_SIZE_BITS_MAX + 6) // 7


_FIVE_GROUPS_MAX = 2**35 - 1


class RepresentationError(DecodeError):
    """A value has no representation-independent hash, or bytes are no LEB128 number."""


def hash_map(fields: Mapping[str, object] | Mapping[object, object]) -> bytes:
    """Hash a map of text, blobs, naturals, arrays and maps; fields that are null count as absent."""
    return sha256(
        b"".join(
            sorted(
                [_hash_name(name) + hash_value(value) for name, value in fields.items() if value is not None]
            )
        )
    ).digest()


def hash_value(value: object) -> bytes:
    """Hash one value of a map."""
    if isinstance(value, bytes):
        return sha256(value).digest()
    if isinstance(value, str):
        return sha256(value.encode("utf-8")).digest()
    if type(value) is int:
        return hash_nat(value)
    if isinstance(value, Mapping):
        return hash_map(value)
    if isinstance(value, Sequence):
        return sha256(b"".join([hash_value(element) for element in value])).digest()
    raise RepresentationError(f"a value of type {type(value).__name__} cannot be part of a signed map")


@lru_cache(maxsize=NAT_CACHE_COUNT_MAX)
def hash_nat(value: int) -> bytes:
    """Hash a natural number; expiries repeat within a minute, hence the cache."""
    return sha256(encode_leb128(value)).digest()


@lru_cache(maxsize=FIELD_NAME_CACHE_COUNT_MAX)
def _hash_name(name: object) -> bytes:
    if not isinstance(name, str):
        raise RepresentationError("the names of fields are text")
    return sha256(name.encode("utf-8")).digest()


def encode_leb128(value: int) -> bytes:
    """Encode a natural number of at most 128 bits in its shortest form."""
    if value < 0 or value.bit_length() > NAT_SIZE_BITS_MAX:
        raise RepresentationError(f"a number must be natural and have at most {NAT_SIZE_BITS_MAX} bits")
    encoded = bytearray()
    while value > _FIVE_GROUPS_MAX:
        # Times have nine groups of seven bits, and each answer has one.
        encoded += bytes(
            (
                value & 0x7F | 0x80,
                value >> 7 & 0x7F | 0x80,
                value >> 14 & 0x7F | 0x80,
                value >> 21 & 0x7F | 0x80,
                value >> 28 & 0x7F | 0x80,
            )
        )
        value >>= 35
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)


def decode_leb128(data: bytes) -> int:
    """Read a natural number that fills `data` exactly, in its shortest form."""
    if not 0 < len(data) <= _LEB128_SIZE_BYTES_MAX:
        raise RepresentationError(
            f"{len(data)} bytes are no LEB128 number of at most {NAT_SIZE_BITS_MAX} bits"
        )
    value = 0
    for position, byte in enumerate(data):
        value |= (byte & 0x7F) << (7 * position)
    if encode_leb128(value) != data:
        raise RepresentationError("the bytes are not the shortest LEB128 form of one number")
    return value
