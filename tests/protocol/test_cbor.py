"""CBOR: round trips, and everything that is refused."""

from __future__ import annotations

import cbor2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cannery.limits import CBOR_ITEM_COUNT_MAX
from cannery.protocol.cbor import SELF_DESCRIBE_PREFIX, CborError, CborValue, decode, encode

values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**128)
    | st.text(max_size=20)
    | st.binary(max_size=20)
    | st.floats(allow_nan=False),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=20,
)


@given(values, st.booleans())
def test_round_trip(value: CborValue, tagged: bool) -> None:
    decoded, was_tagged = decode(encode(value, self_describe=tagged))
    assert decoded == value
    assert was_tagged is tagged


@given(values)
def test_a_tag_changes_no_types(value: CborValue) -> None:
    plain, _ = decode(encode(value, self_describe=False))
    tagged, _ = decode(encode(value, self_describe=True))
    assert _shape(plain) == _shape(tagged)


def _shape(value: CborValue) -> object:
    if isinstance(value, list):
        return ("list", type(value), [_shape(item) for item in value])
    if isinstance(value, dict):
        return ("dict", type(value), {name: _shape(item) for name, item in value.items()})
    return type(value)


@given(values, st.binary(min_size=1, max_size=5))
def test_nothing_may_follow(value: CborValue, rest: bytes) -> None:
    with pytest.raises(CborError, match="follow"):
        decode(encode(value, self_describe=False) + rest)


@given(st.binary(max_size=200))
@example(b"\xd9\xd9\xf7")
@example(b"\x5f\x41a\xff")
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value, _tagged = decode(data)
    except CborError:
        return
    assert isinstance(value, (type(None), bool, int, float, str, bytes, list, dict))


DEEP = 1_000_000
REFUSED = {
    "nothing": b"",
    "a tag of nothing": SELF_DESCRIBE_PREFIX,
    "a tag twice": SELF_DESCRIBE_PREFIX * 2 + b"\x01",
    "a tag inside": b"\x81" + SELF_DESCRIBE_PREFIX + b"\x01",
    "arrays in arrays": b"\x81" * DEEP,
    "endless arrays in arrays": b"\x9f" * DEEP,
    "maps in maps": b"\xa1\x61a" * DEEP,
    "tags of tags": b"\xc2" * DEEP,
    "arrays in arrays, uncounted": b"\x81" * 10_000,
    "a map with a key twice": b"\xa2\x61a\x01\x61a\x02",
    "a number as key": b"\xa1\x01\x01",
    "a blob as key": b"\xa1\x41a\x01",
    "a nested blob as key": b"\x81\xa1\x61a\xa1\x41a\x01",
    "an array as key": b"\xa1\x81\x01\x01",
    "a huge array": b"\x9b" + b"\xff" * 8,
    "a huge map": b"\xbb" + b"\x7f" + b"\xff" * 7,
    "a huge blob": b"\x5b" + b"\x7f" + b"\xff" * 7,
    "a huge text": b"\x7b\x00\x00\x00\xff\xff\xff\xff\xff",
    "a blob cut short": b"\x45abc",
    "text that is no UTF-8": b"\x62\xff\xff",
    "undefined": b"\xf7",
    "undefined inside": b"\x81\xf7",
    "a simple value": b"\xe0",
    "a break": b"\xff",
    "a reserved head": b"\x1c",
    "a date": b"\xc0\x74" + b"2013-03-21T20:04:00Z",
    "a regular expression": b"\xd8\x23\x64(a+)",
    "a shared value": b"\xd8\x1c\x81\xd8\x1d\x00",
    "a fraction": b"\xc4\x82\x1a\x7f\xff\xff\xff\x01",
    "a tag nobody knows": b"\xda\x00\x01\x00\x00\x01",
}


@pytest.mark.parametrize("data", REFUSED.values(), ids=REFUSED.keys())
def test_refused(data: bytes) -> None:
    with pytest.raises(CborError):
        decode(data)


@pytest.mark.parametrize("tag", [*range(2), *range(4, 300), 1004, 43000, 55799, 2**32, 2**64 - 1])
def test_no_tag_but_bignums_is_taken_inside(tag: int) -> None:
    for content in (1, "a", b"a", [1, 2], {"a": 1}, []):
        with pytest.raises(CborError):
            decode(cbor2.dumps([0]).replace(b"\x00", cbor2.dumps(cbor2.CBORTag(tag, content))))


def test_a_small_input_cannot_ask_for_many_objects() -> None:
    count = CBOR_ITEM_COUNT_MAX + 1
    with pytest.raises(CborError, match="items"):
        decode(b"\x9a" + count.to_bytes(4, "big") + b"\x80" * count)
    # As many bytes in one blob are welcome, and so are as many items as are allowed.
    blob = b"\x81" * count
    assert decode(encode({"arg": blob}, self_describe=False))[0] == {"arg": blob}
    allowed = CBOR_ITEM_COUNT_MAX - 1
    assert decode(b"\x9a" + allowed.to_bytes(4, "big") + b"\x00" * allowed)[0] == [0] * allowed


def test_a_refusal_is_short() -> None:
    key = b"\x7a\x00\x01\x00\x00" + b"a" * 65_536
    with pytest.raises(CborError) as caught:
        decode(b"\xa2" + key + b"\x01" + key + b"\x02")
    assert len(str(caught.value)) < 500


def test_indefinite_lengths_are_read() -> None:
    assert decode(b"\xbf\x61a\x5f\x41x\x41y\xff\x61b\x9f\x01\xff\xff")[0] == {"a": b"xy", "b": [1]}
