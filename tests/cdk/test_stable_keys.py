"""Keys of stable collections: order-preserving, prefix-free, read back, and equal to the golden file."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Principal, int8, int16, int32, int64, nat, nat8, nat16, nat32, nat64, record
from cannery.candid.python import type_of
from cannery.cdk.stable_keys import KeyCodec, KeyTypeError, StoredKeyError, key_codec, next_prefix

GOLDEN = Path(__file__).parent.parent / "formats" / "stable_keys.json"


@record
class Place:
    """A record key, whose parts stand in the order of the class, not of Candid's hashes."""

    zone: str
    number: nat32
    owner: Principal


def bits(size: int, *, signed: bool = False) -> st.SearchStrategy[int]:
    low, high = (-(2 ** (size - 1)), 2 ** (size - 1) - 1) if signed else (0, 2**size - 1)
    return st.integers(low, high) | st.sampled_from([low, high, 0, min(1, high), max(-1, low)])


principals = st.binary(max_size=29).map(Principal)
texts = st.text(max_size=6) | st.text("a\0b", max_size=4)
blobs = st.binary(max_size=6) | st.lists(st.sampled_from([0, 1, 255]), max_size=4).map(bytes)

HINTS: list[tuple[str, object, st.SearchStrategy[object]]] = [
    ("bool", bool, st.booleans()),
    ("nat8", nat8, bits(8)),
    ("nat16", nat16, bits(16)),
    ("nat32", nat32, bits(32)),
    ("nat64", nat64, bits(64)),
    ("int8", int8, bits(8, signed=True)),
    ("int16", int16, bits(16, signed=True)),
    ("int32", int32, bits(32, signed=True)),
    ("int64", int64, bits(64, signed=True)),
    ("nat", nat, st.integers(0, 2**2032 - 1) | st.integers(0, 300)),
    ("int", int, st.integers(-(2**1016), 2**1016 - 1) | st.integers(-300, 300)),
    ("text", str, texts),
    ("blob", bytes, blobs),
    ("principal", Principal, principals),
    ("tuple", tuple[str, nat, bool], st.tuples(texts, st.integers(0, 300), st.booleans())),
    ("pair", tuple[bytes, int], st.tuples(blobs, st.integers(-300, 300))),
    ("record", Place, st.builds(Place, zone=texts, number=bits(32), owner=principals)),
    (
        "nested",
        tuple[tuple[str, str], Place],
        st.tuples(st.tuples(texts, texts), st.builds(Place, texts, bits(32), principals)),
    ),
]
CODECS: dict[str, KeyCodec] = {name: key_codec(type_of(hint)) for name, hint, _ in HINTS}
TWO = st.one_of([st.tuples(st.just(name), values, values) for name, _, values in HINTS])


def order_of(value: object) -> object:
    """The documented order: Python's own, principals by length first, records by their fields as declared."""
    if isinstance(value, Principal):
        return len(value.raw), value.raw
    if isinstance(value, Place):
        return order_of((value.zone, value.number, value.owner))
    if isinstance(value, tuple):
        return tuple(order_of(part) for part in value)
    return value


@given(TWO)
def test_order_of_bytes_is_order_of_values_and_no_key_begins_another(
    pair: tuple[str, object, object],
) -> None:
    name, a, b = pair
    encode = CODECS[name].encode
    first, second = encode(a), encode(b)
    assert (first < second) == (order_of(a) < order_of(b))  # type: ignore[operator]
    assert (first == second) == (a == b)
    if a != b:
        assert not first.startswith(second)
        assert not second.startswith(first)


@given(TWO)
def test_keys_read_back(pair: tuple[str, object, object]) -> None:
    name, value, _ = pair
    codec = CODECS[name]
    assert codec.decode(codec.encode(value)) == value
    assert codec.decode(b"slot" + codec.encode(value), 4) == value


@given(st.sampled_from(sorted(CODECS)), st.binary(max_size=40))
def test_a_decoder_accepts_or_raises_its_one_error(name: str, data: bytes) -> None:
    codec = CODECS[name]
    try:
        value = codec.decode(data)
    except StoredKeyError:
        return
    assert codec.encode(value) == data


@given(texts, texts)
def test_text_keys_can_be_scanned_by_their_beginning(prefix: str, text: str) -> None:
    codec = CODECS["text"]
    low = codec.start(prefix)
    high = next_prefix(low)
    key = codec.encode(text)
    assert (low <= key and (high is None or key < high)) == text.startswith(prefix)


@given(texts, st.integers(0, 300), st.tuples(texts, st.integers(0, 300), st.booleans()))
def test_tuples_can_be_scanned_by_their_leading_parts(
    text: str, number: int, value: tuple[str, int, bool]
) -> None:
    codec = CODECS["tuple"]
    for lead in ((text,), (text, number), value[:1], value[:2]):
        low = codec.start(lead)
        high = next_prefix(low)
        key = codec.encode(value)
        assert (low <= key and (high is None or key < high)) == (value[: len(lead)] == lead)


@pytest.mark.parametrize(
    "hint", [float, list[nat8] if False else list[str], nat64 | None, None, dict[str, str]]
)
def test_other_types_are_no_keys(hint: object) -> None:
    with pytest.raises(KeyTypeError, match="cannot be a key"):
        key_codec(type_of(hint))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("nat8", 256),
        ("nat8", -1),
        ("nat8", True),
        ("int8", 128),
        ("nat", -1),
        ("nat", 2**2032),
        ("int", 2**1016),
        ("text", b"a"),
        ("blob", "a"),
        ("principal", b"a"),
        ("tuple", ("a", 1)),
        ("record", ("a", 1, Principal(b""))),
        ("text", "a" * 5000),
        ("bool", 1),
    ],
)
def test_values_of_another_type_are_refused(name: str, value: object) -> None:
    with pytest.raises((KeyTypeError, ValueError)):
        CODECS[name].encode(value)


SAMPLES: list[tuple[str, object]] = [
    ("bool", True),
    ("nat8", 7),
    ("nat32", 70_000),
    ("nat64", 2**64 - 1),
    ("int16", -2),
    ("int64", 5),
    ("nat", 0),
    ("nat", 256),
    ("int", -1),
    ("int", -257),
    ("int", 1000),
    ("text", "ab\0c"),
    ("blob", b"\x00\xff"),
    ("principal", Principal(bytes.fromhex("00000000001000000101"))),
    ("tuple", ("a", 3, False)),
    ("record", Place("north", 9, Principal(b"\x04"))),
]


def test_keys_equal_the_golden_file() -> None:
    written = [
        [name, CODECS[name].shape, repr(value), CODECS[name].encode(value).hex()] for name, value in SAMPLES
    ]
    assert written == json.loads(GOLDEN.read_text())
