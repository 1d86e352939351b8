"""LEB128 and SLEB128, the variable-length numbers of Candid.

Candid specification, section "Notation". Decoders take overlong forms, as the specification does, but no
number of more than `CANDID_NUMBER_SIZE_BYTES_MAX` bytes. They raise `IndexError` where the bytes end early:
the decoders above turn it into `CandidError` once per message instead of testing before each byte.
"""

from __future__ import annotations

from cannery.candid.errors import CandidError
from cannery.limits import CANDID_NUMBER_SIZE_BYTES_MAX

_NAT_LIMIT = 1 << (7 * CANDID_NUMBER_SIZE_BYTES_MAX)
_INT_LIMIT = 1 << (7 * CANDID_NUMBER_SIZE_BYTES_MAX - 1)


def encode_leb128(value: int) -> bytes:
    """Encode a natural number."""
    if 0 <= value < 128:
        return value.to_bytes(1, "little")
    if value < 0 or value >= _NAT_LIMIT:
        raise CandidError(f"a nat is from 0 to 2^{7 * CANDID_NUMBER_SIZE_BYTES_MAX}-1")
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


def encode_sleb128(value: int) -> bytes:
    """Encode an integer."""
    if -64 <= value < 64:
        return (value & 127).to_bytes(1, "little")
    if not -_INT_LIMIT <= value < _INT_LIMIT:
        raise CandidError(f"an int has at most {7 * CANDID_NUMBER_SIZE_BYTES_MAX} bits")
    out = bytearray()
    while not -64 <= value < 64:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value & 127)
    return bytes(out)


def decode_leb128(data: bytes, position: int) -> tuple[int, int]:
    """Return the natural number at `position` and the position after it."""
    value = shift = 0
    start = position
    while True:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
        if position - start >= CANDID_NUMBER_SIZE_BYTES_MAX:
            raise CandidError(f"number at byte {start} has over {CANDID_NUMBER_SIZE_BYTES_MAX} bytes")


def decode_sleb128(data: bytes, position: int) -> tuple[int, int]:
    """Return the integer at `position` and the position after it."""
    value, end = decode_leb128(data, position)
    if data[end - 1] & 64:
        value -= 1 << (7 * (end - position))
    return value, end
