"""LEB128 numbers: known bytes, laws, bounds."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid.errors import CandidError
from cannery.candid.leb128 import decode_leb128, decode_sleb128, encode_leb128, encode_sleb128
from cannery.limits import CANDID_NUMBER_SIZE_BYTES_MAX

BIG = 2**2000


@pytest.mark.parametrize(
    ("value", "encoded"),
    [
        (0, "00"),
        (1, "01"),
        (127, "7f"),
        (128, "8001"),
        (624485, "e58e26"),
        (60000000000000000, "808098f4e9b5ca6a"),
    ],
)
def test_known_naturals(value: int, encoded: str) -> None:
    assert encode_leb128(value).hex() == encoded
    assert decode_leb128(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@pytest.mark.parametrize(
    ("value", "encoded"),
    [(0, "00"), (-1, "7f"), (63, "3f"), (64, "c000"), (-64, "40"), (-65, "bf7f"), (-123456, "c0bb78")],
)
def test_known_integers(value: int, encoded: str) -> None:
    assert encode_sleb128(value).hex() == encoded
    assert decode_sleb128(bytes.fromhex(encoded), 0) == (value, len(encoded) // 2)


@given(st.integers(0, BIG), st.binary(max_size=3))
def test_naturals_round_trip(value: int, after: bytes) -> None:
    encoded = encode_leb128(value)
    assert decode_leb128(encoded + after, 0) == (value, len(encoded))
    assert decode_leb128(after + encoded, len(after)) == (value, len(after) + len(encoded))


@given(st.integers(-BIG, BIG), st.binary(max_size=3))
def test_integers_round_trip(value: int, after: bytes) -> None:
    encoded = encode_sleb128(value)
    assert decode_sleb128(encoded + after, 0) == (value, len(encoded))


@given(st.integers(-(2**70), 2**70))
def test_encodings_are_the_shortest(value: int) -> None:
    assert len(encode_sleb128(value)) == (value if value >= 0 else ~value).bit_length() // 7 + 1


def test_overlong_forms_are_read() -> None:
    assert decode_leb128(b"\x80\x80\x00", 0) == (0, 3)
    assert decode_sleb128(b"\xff\xff\x7f", 0) == (-1, 3)


def test_numbers_are_bounded() -> None:
    longest = b"\xff" * (CANDID_NUMBER_SIZE_BYTES_MAX - 1) + b"\x7f"
    value, _ = decode_leb128(longest, 0)
    assert encode_leb128(value) == longest
    with pytest.raises(CandidError):
        encode_leb128(value + 1)
    with pytest.raises(CandidError):
        encode_leb128(-1)
    with pytest.raises(CandidError):
        encode_sleb128(1 << (7 * CANDID_NUMBER_SIZE_BYTES_MAX))
    with pytest.raises(CandidError, match="over 2000 bytes"):
        decode_leb128(b"\x80" * 5000 + b"\x00", 0)
    assert len(str(value)) < 4300, "Python prints no more digits without further permission"
