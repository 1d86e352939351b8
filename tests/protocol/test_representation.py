"""Representation-independent hashes: the specification's examples, and what does not change a hash."""

from __future__ import annotations

from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.protocol.representation import RepresentationError, decode_leb128, encode_leb128, hash_map

EXAMPLE = {
    "request_type": "call",
    "sender": b"\x04",
    "ingress_expiry": 1_685_570_400_000_000_000,
    "canister_id": bytes.fromhex("00000000000004D2"),
    "method_name": "hello",
    "arg": b"DIDL\x00\xfd*",
}


def test_the_specifications_request_id() -> None:
    assert hash_map(EXAMPLE).hex() == "1d1091364d6bb8a6c16b203ee75467d59ead468f523eb058880ae8ec80e2b101"


def test_a_nested_map_is_hashed_as_a_map() -> None:
    inner = sha256(sha256(b"arg").digest() + sha256(b"DIDL\x00\x00").digest()).digest()
    outer = sha256(sha256(b"reply").digest() + inner).digest()
    assert hash_map({"reply": {"arg": b"DIDL\x00\x00"}}) == outer


def test_an_array_is_the_hash_of_its_elements_hashes() -> None:
    elements = b"".join(sha256(label).digest() for label in (b"a", b"b"))
    inner = sha256(elements).digest()
    assert hash_map({"p": [[b"a", b"b"]]}) == sha256(sha256(b"p").digest() + sha256(inner).digest()).digest()


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=5) | st.integers(0, 2**64), max_size=6))
def test_order_and_nulls_do_not_matter(fields: dict[str, object]) -> None:
    turned: dict[str, object] = dict(reversed(fields.items()))
    turned.setdefault("absent", None)
    if turned["absent"] is None:
        assert hash_map(turned) == hash_map(fields)


@pytest.mark.parametrize("value", [True, 1.5, -1, 2**128, object()])
def test_values_without_a_hash_are_refused(value: object) -> None:
    with pytest.raises(RepresentationError):
        hash_map({"a": [value]})


@pytest.mark.parametrize(("number", "encoded"), [(0, "00"), (624485, "e58e26"), (127, "7f"), (128, "8001")])
def test_known_numbers(number: int, encoded: str) -> None:
    assert encode_leb128(number).hex() == encoded
    assert decode_leb128(bytes.fromhex(encoded)) == number


@given(st.integers(0, 2**128 - 1))
def test_number_round_trip(number: int) -> None:
    assert decode_leb128(encode_leb128(number)) == number


@given(st.binary(max_size=25))
def test_any_bytes_are_the_shortest_number_or_refused(data: bytes) -> None:
    try:
        number = decode_leb128(data)
    except RepresentationError:
        return
    assert encode_leb128(number) == data


@pytest.mark.parametrize("data", [b"", b"\x80", b"\x80\x00", b"\x00\x00", b"\xff" * 19 + b"\x01"])
def test_bytes_that_are_no_number(data: bytes) -> None:
    with pytest.raises(RepresentationError):
        decode_leb128(data)
