"""Types on the wire: canonical bytes, and the checks of type tables."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.wire import decode_header, decode_type, encode_type
from cannery.limits import CANDID_TABLE_ENTRIES_COUNT_MAX
from tests.candid.strategies import types


def rec(name: str, **definitions: ct.Type) -> ct.Rec:
    return ct.Rec(name, ct.Env(definitions))


LIST = rec("List", List=ct.Opt(ct.record_of({"head": ct.Int(), "tail": ct.Ref("List")})))


@pytest.mark.parametrize(
    ("t", "encoded"),
    [
        (ct.Null(), "007f"),
        (ct.PrincipalType(), "0068"),
        (ct.BLOB, "016d7b00"),
        (ct.Opt(ct.Opt(ct.Nat())), "026e016e7d00"),
        (LIST, "026e016c02a0d2aca8047c90eddae7040000"),
        (ct.Func((ct.Nat(),), (ct.Text(),), ("query",)), "016a017d0171010100"),
        (ct.Service((("m", ct.Func()),)), "026901016d016a00000000"),
    ],
)
def test_known_types(t: ct.Type, encoded: str) -> None:
    assert encode_type(t).hex() == encoded
    assert encode_type(decode_type(bytes.fromhex(encoded))).hex() == encoded


@given(types)
def test_types_round_trip(t: ct.Type) -> None:
    encoded = encode_type(t)
    assert encode_type(decode_type(encoded)) == encoded


def test_equal_structure_gives_equal_bytes() -> None:
    nat_list = ct.record_of({"head": ct.Int(), "tail": ct.Ref("B")})
    mutual = rec("B", A=nat_list, B=ct.Opt(ct.Ref("A")))
    unrolled = ct.Opt(ct.record_of({"head": ct.Int(), "tail": LIST}))
    assert encode_type(mutual) == encode_type(LIST) == encode_type(unrolled)
    assert encode_type(ct.tuple_record(LIST, unrolled)) == encode_type(ct.tuple_record(mutual, LIST))


def test_different_structure_gives_different_bytes() -> None:
    other = rec("List", List=ct.Opt(ct.record_of({"head": ct.Nat(), "tail": ct.Ref("List")})))
    assert encode_type(other) != encode_type(LIST)


def test_names_and_bindings_leave_no_trace() -> None:
    named = ct.record_of({"name": ct.Nat()})
    numbered = ct.Record((ct.Field(ct.field_hash("name"), None, ct.Nat()),), dict)
    assert encode_type(named) == encode_type(numbered)


def test_open_and_vacuous_types_are_refused() -> None:
    with pytest.raises(CandidError, match="not defined"):
        encode_type(ct.Opt(ct.Ref("X")))
    with pytest.raises(CandidError, match="nothing but itself"):
        encode_type(rec("A", A=ct.Ref("B"), B=ct.Ref("A")))
    with pytest.raises(CandidError, match="no func"):
        encode_type(ct.Service((("m", ct.Nat()),)))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (b"DADL\0\0", "DIDL"),
        (b"DIDL", "ends"),
        (b"DIDL\1\x7f\0", "no composite"),
        (b"DIDL\1\x6e\1\0", "neither primitive"),
        (b"DIDL\0\1\x6e", "neither primitive"),
        (b"DIDL\1\x6c\2\1\x7c\0\x7c\0", "sorted"),
        (b"DIDL\1\x6c\2\1\x7c\1\x7c\0", "sorted"),
        (b"DIDL\1\x6b\1\x80\x80\x80\x80\x10\x7c\0", "2\\^32"),
        (b"DIDL\2\x6a\0\0\0\x69\2\1b\0\1a\0\0", "sorted and unique"),
        (b"DIDL\2\x6a\0\0\0\x69\2\1a\0\1a\0\0", "sorted and unique"),
        (b"DIDL\2\x6a\0\0\0\x69\1\2\xc3\x28\0\0", "UTF-8"),
        (b"DIDL\2\x6e\x7d\x69\1\1a\0\0", "no func"),
        (b"DIDL\1\x69\1\1a\x7d\0", "no func"),
        (b"DIDL\1\x6a\0\0\1\4\0", "unknown"),
        (b"DIDL\1\x6a\0\0\2\1\1\0", "repeated"),
        (b"DIDL\1\x6a\0\1\x7d\1\2\0", "oneway"),
        (b"DIDL\x80\x94\xeb\xdc\3\0", "limit"),
        (b"DIDL\0\x80\x94\xeb\xdc\3", "limit"),
        (b"DIDL\1\x6c\x80\x94\xeb\xdc\3\0", "more than"),
        (b"DIDL\1\x67\x80\x94\xeb\xdc\3\0", "past the end"),
    ],
)
def test_bad_headers_are_refused(header: bytes, reason: str) -> None:
    with pytest.raises(CandidError, match=reason):
        decode_header(header)


def test_the_table_is_bounded() -> None:
    count = CANDID_TABLE_ENTRIES_COUNT_MAX + 1
    with pytest.raises(CandidError, match="limit"):
        decode_header(b"DIDL" + bytes([count & 127 | 128, count >> 7]) + b"\x6e\x7d" * count + b"\0")


def test_future_types_are_kept() -> None:
    t = decode_type(b"\2\x67\3ABC\x6e\0\1")
    assert t == ct.Opt(ct.Future(-25, b"ABC"))
    assert encode_type(t).hex() == "026e016703414243" + "00"


@given(st.binary(max_size=40))
def test_any_bytes_give_a_type_or_the_one_error(data: bytes) -> None:
    try:
        t = decode_type(data)
    except CandidError:
        return
    assert decode_type(encode_type(t)) == decode_type(encode_type(decode_type(encode_type(t))))


@given(types, st.data())
def test_mutated_types_give_a_type_or_the_one_error(t: ct.Type, data: st.DataObject) -> None:
    raw = bytearray(encode_type(t))
    raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_type(bytes(raw))
    except CandidError:
        return


def test_a_long_chain_of_definitions_costs_no_stack() -> None:
    count = 2000
    table = b"".join(b"\x6e" + _sleb(i + 1) for i in range(count - 1)) + b"\x6e\x7d"
    t = decode_type(bytes([count & 127 | 128, count >> 7]) + table + b"\0")
    assert isinstance(t, ct.Rec)
    assert hash(t) == hash(t)


def _sleb(value: int) -> bytes:
    return bytes([value]) if value < 64 else bytes([value & 127 | 128, value >> 7])
