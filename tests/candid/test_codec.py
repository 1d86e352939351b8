"""Encoders and decoders: known messages, Python forms, coercion, and their laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.codec import (
    decode_dynamic,
    decoder,
    encoder,
    value_converter,
    value_decoder,
    value_encoder,
)
from cannery.candid.errors import CandidError
from cannery.candid.subtype import is_subtype
from cannery.candid.values import FuncRef, Packed, ServiceRef, Some, Variant
from cannery.candid.wire import decode_type, encode_type
from cannery.limits import CANDID_HEADER_CACHE_COUNT_MAX
from cannery.protocol.principal import Principal
from tests.candid.strategies import draw_supertype, draw_value, plain_types, typed_values, types

CAFFEE = Principal(bytes.fromhex("caffee"))
LIST = ct.Rec("List", ct.Env({"List": ct.Opt(ct.record_of({"head": ct.Int(), "tail": ct.Ref("List")}))}))
OPT = ct.Rec("Opt", ct.Env({"Opt": ct.Opt(ct.Ref("Opt"))}))


def _unescape(text: str) -> bytes:
    out = bytearray()
    i = 0
    while i < len(text):
        if text[i] == "\\":
            out.append(int(text[i + 1 : i + 3], 16))
            i += 3
        else:
            out += text[i].encode()
            i += 1
    return bytes(out)


ACCEPTED: list[tuple[str, tuple[ct.Type, ...], tuple[object, ...]]] = [
    (r"DIDL\00\00", (), ()),
    (r"DIDL\80\00\80\00", (), ()),
    (r"DIDL\00\01\7f", (), ()),
    (r"DIDL\00\00", (ct.Null(), ct.Opt(ct.Nat()), ct.Reserved()), (None, None, None)),
    (r"DIDL\00\01\7e\01", (ct.Bool(),), (True,)),
    (r"DIDL\00\01\7d\ff\00", (ct.Nat(),), (127,)),
    (r"DIDL\00\01\7d\ff\7f", (ct.Int(),), (16383,)),
    (r"DIDL\00\01\7c\80\7f", (ct.Int(),), (-128,)),
    (r"DIDL\00\01\77\ff", (ct.Int8(),), (-1,)),
    (r"DIDL\00\01\78\ff\ff\ff\ff\ff\ff\ff\ff", (ct.Nat64(),), (2**64 - 1,)),
    (r"DIDL\00\01\72\00\00\00\00\00\00\e0\bf", (ct.Float64(),), (-0.5,)),
    (r"DIDL\00\01\71\03\e2\98\83", (ct.Text(),), ("☃",)),
    (r"DIDL\00\01\71\86\00Motoko", (ct.Text(),), ("Motoko",)),
    (r"DIDL\00\01\71\06Motoko", (ct.Reserved(),), (None,)),
    (r"DIDL\01\6e\7c\01\00\01\2a", (ct.Opt(ct.Int()),), (42,)),
    (r"DIDL\01\6e\00\01\00\01\01\00", (OPT,), (Some(Some(None)),)),
    (r"DIDL\00\01\7e\01", (ct.Opt(ct.Opt(ct.Bool())),), (Some(True),)),
    (r"DIDL\01\6e\70\01\00\01", (ct.Opt(ct.Null()),), (None,)),
    (r"DIDL\01\6e\7e\01\00\01\01", (ct.Opt(ct.Nat()),), (None,)),
    (r"DIDL\01\6d\7c\01\00\00", (ct.Vec(ct.Int8()),), ([],)),
    (r"DIDL\01\6d\7c\01\00\00", (ct.BLOB,), (b"",)),
    (r"DIDL\01\6d\7b\01\00\02\01\02", (ct.BLOB,), (b"\1\2",)),
    (r"DIDL\01\6d\00\01\00\02\00\00", (ct.Vec(ct.Vec(ct.Opt(ct.Empty()))),), ([[], []],)),
    (r"DIDL\01\6c\02\00\7c\01\7e\01\00\2a\01", (ct.tuple_record(ct.Int(), ct.Bool()),), ((42, True),)),
    (r"DIDL\01\6c\01\01\7c\01\00\2a", (ct.record_of({"_2_": ct.Opt(ct.Int())}),), ({"_2_": None},)),
    (r"DIDL\01\6b\02\00\7f\01\7f\01\00\01", (ct.Opt(ct.variant_of({"_0_": ct.Null()})),), (None,)),
    (
        r"DIDL\02\6e\01\6b\01\00\7e\01\00\01\00\01",
        (ct.Opt(ct.variant_of({"_0_": ct.Int()})),),
        (None,),
    ),
    (
        r"DIDL\01\6b\02\bc\8a\01\71\c5\fe\d2\01\71\01\00\00\04good",
        (ct.variant_of({"Ok": ct.Text(), "Err": ct.Text()}),),
        (Variant("Ok", "good"),),
    ),
    (
        r"DIDL\02\6e\01\6c\02\a0\d2\ac\a8\04\7c\90\ed\da\e7\04\00\01\00\01\01\01\02\00",
        (LIST,),
        ({"head": 1, "tail": {"head": 2, "tail": None}},),
    ),
    (r"DIDL\00\01\68\01\03\ca\ff\ee", (ct.PrincipalType(),), (CAFFEE,)),
    (r"DIDL\01\69\00\01\00\01\03\ca\ff\ee", (ct.Service(),), (ServiceRef(CAFFEE),)),
    (r"DIDL\01\69\00\01\00\01\03\ca\ff\ee", (ct.PrincipalType(),), (CAFFEE,)),
    (r"DIDL\01\6a\00\00\00\01\00\01\01\03\ca\ff\ee\01\61", (ct.Func(),), (FuncRef(CAFFEE, "a"),)),
    (r"DIDL\01\6a\01\71\01\7d\00\01\00\01\01\03\ca\ff\ee\01\61", (ct.Opt(ct.Func()),), (None,)),
    (r"DIDL\01\67\03ABC\02\00\7e\05\00hello\01", (ct.Opt(ct.Empty()), ct.Bool()), (None, True)),
]
REFUSED: list[tuple[str, tuple[ct.Type, ...], str]] = [
    ("", (), "DIDL"),
    (r"DIDL\00\00\00", (), "1 bytes follow"),
    (r"DIDL\00\00", (ct.Nat(),), "argument 0 is missing"),
    (r"DIDL\00\01\7e\02", (ct.Bool(),), "2"),
    (r"DIDL\00\01\7e\02", (), "2"),
    (r"DIDL\00\01\7e", (ct.Bool(),), "ends"),
    (r"DIDL\00\01\7d\80", (ct.Nat(),), "ends"),
    (r"DIDL\00\01\78\00", (ct.Nat64(),), "ends"),
    (r"DIDL\00\01\71\07Motoko", (ct.Text(),), "ends|past the end"),
    (r"DIDL\00\01\71\07Motoko", (), "past the end"),
    (r"DIDL\00\01\71\05Motoko", (ct.Text(),), "1 bytes follow"),
    (r"DIDL\00\01\71\03\e2\28\a1", (ct.Text(),), "UTF-8"),
    (r"DIDL\00\01\71\03\e2\28\a1", (), "UTF-8"),
    (r"DIDL\00\01\6f", (ct.Empty(),), "without values"),
    (r"DIDL\00\01\6f", (), "without values"),
    (r"DIDL\01\6e\7c\01\00\02\2a", (ct.Opt(ct.Int()),), "opt"),
    (r"DIDL\01\6e\7e\01\00\01\02", (ct.Opt(ct.Nat()),), "bool"),
    (r"DIDL\00\01\7e\01", (OPT,), "nested"),
    (r"DIDL\01\6c\01\00\00\01\00", (ct.Opt(ct.tuple_record(ct.Reserved())),), "without values"),
    (r"DIDL\02\6d\01\6c\01\00\01\01\00\01", (ct.Vec(ct.Reserved()),), "past the end"),
    (r"DIDL\01\6b\01\00\7f\01\00\01", (ct.variant_of({"_0_": ct.Null()}),), "1"),
    (r"DIDL\01\6b\02\00\7f\01\7f\01\00\01", (ct.variant_of({"_0_": ct.Null()}),), "not known"),
    (r"DIDL\01\6d\7c\01\00\01\01", (ct.Vec(ct.Int8()),), "argument 0: int is not a subtype of int8"),
    (r"DIDL\01\6d\7e\01\00\80\94\eb\dc\03\00\00\00", (ct.Vec(ct.Bool()),), "past the end"),
    (r"DIDL\00\01\68\00\03\ca\ff\ee", (ct.PrincipalType(),), "opaque"),
    (r"DIDL\00\01\68\01\1e" + r"\00" * 30, (ct.PrincipalType(),), "29"),
    (r"DIDL\00\01\68\01\03\ca\ff\ee", (ct.Service(),), "principal is not a subtype of service"),
    (r"DIDL\00\01\68\01\80\94\eb\dc\03Motoko", (ct.PrincipalType(),), "past the end"),
    (r"DIDL\01\6a\00\00\00\01\00\01\00\03\ca\ff\ee\01\61", (ct.Func(),), "principal|reference"),
    (r"DIDL\01\6a\00\00\00\01\00\01\01\03\ca\ff\ee\01\61", (ct.Func((), (ct.Nat(),)),), "func"),
    (r"DIDL\01\67\00\01\00\80\94\eb\dc\03\00\00", (), "past the end"),
    (r"DIDL\00\01\70", (ct.Null(),), "reserved is not a subtype of null"),
]


@pytest.mark.parametrize(("message", "expected", "values"), ACCEPTED)
def test_known_messages(message: str, expected: tuple[ct.Type, ...], values: tuple[object, ...]) -> None:
    assert decoder(expected)(_unescape(message)) == values
    assert decoder(expected)(_unescape(message)) == values, "the second time the header is known"


@pytest.mark.parametrize(("message", "expected", "reason"), REFUSED)
def test_refused_messages(message: str, expected: tuple[ct.Type, ...], reason: str) -> None:
    for _ in range(2):
        with pytest.raises(CandidError, match=reason):
            decoder(expected)(_unescape(message))


PAIR = ct.record_of({"a": ct.Nat8(), "b": ct.Vec(ct.Text())})
MISFITS: list[tuple[ct.Type, object, str]] = [
    (ct.Nat(), -1, "argument 0: -1 is not a nat"),
    (ct.Nat(), True, "argument 0: True is not a nat"),
    (ct.Nat8(), 256, "argument 0: 256 is not a nat8"),
    (ct.Nat8(), "1", "argument 0: '1' is not a nat8"),
    (ct.Nat64(), 1.0, "argument 0: 1.0 is not a nat64"),
    (ct.Int8(), -129, "argument 0: -129 is not a int8"),
    (ct.Float32(), 1e40, "argument 0: 1e\\+40 is not a float32"),
    (ct.Float64(), False, "argument 0: False is not a float64"),
    (ct.Bool(), 1, "argument 0: 1 is not a bool"),
    (ct.Text(), b"x", "argument 0: b'x' is not a text"),
    (ct.Text(), "\ud800", "argument 0: '\\\\ud800' is not a text"),
    (ct.Null(), 0, "argument 0: 0 is not a null"),
    (ct.Empty(), None, "argument 0: NoneType is not a empty"),
    (ct.PrincipalType(), "aaaaa-aa", "argument 0: 'aaaaa-aa' is not a principal"),
    (ct.BLOB, [1], "argument 0: list is not bytes"),
    (ct.Vec(ct.Text()), "text", "argument 0: 'text' is not a list"),
    (ct.Vec(ct.Nat16()), [1, "x"], "argument 0\\[1\\]: 'x' is not a nat16"),
    (ct.Vec(ct.Nat16()), [1, 70000], "argument 0\\[1\\]: 70000 is not a nat16"),
    (PAIR, {"a": 1}, "argument 0: field 'b' is missing"),
    (PAIR, {"a": 1, "b": [], "c": 1}, "argument 0: field 'c' is not known, fields are a, b"),
    (PAIR, {"a": 1, "b": ["x", 5]}, "argument 0.b\\[1\\]: 5 is not a text"),
    (PAIR, [1], "argument 0: list is not a dict"),
    (ct.tuple_record(ct.Nat(), ct.Nat()), (1,), "argument 0: tuple is not a tuple of 2"),
    (ct.Opt(ct.Opt(ct.Nat())), 3, "argument 0: 3 is not None or Some"),
    (ct.variant_of({"ok": ct.Nat()}), Variant("no"), "argument 0: case 'no' is not known, cases are ok"),
    (ct.variant_of({"ok": ct.Nat()}), Variant("ok", "x"), "argument 0.ok: 'x' is not a nat"),
    (ct.variant_of({"ok": ct.Null()}), Variant("ok", "x"), "argument 0.ok: 'x' is not a null"),
    (ct.variant_of({"ok": ct.Nat()}), "ok", "argument 0: 'ok' is not a Variant"),
    (ct.Func(), "x", "argument 0: 'x' is not a FuncRef"),
    (ct.Service(), "x", "argument 0: 'x' is not a ServiceRef"),
]


@pytest.mark.parametrize(("t", "value", "reason"), MISFITS)
def test_encoders_say_where_a_value_does_not_fit(t: ct.Type, value: object, reason: str) -> None:
    with pytest.raises(CandidError, match=f"^{reason}"):
        encoder((t,))((value,))
    with pytest.raises(CandidError, match=r"^value"):
        value_encoder(t)(value)


def test_encoders_count_their_values() -> None:
    with pytest.raises(CandidError, match="1 values are given for 2 types"):
        encoder((ct.Nat(), ct.Nat()))((1,))
    with pytest.raises(CandidError, match="list or tuple"):
        encoder((ct.Nat(),))("1")


def test_encoders_take_what_is_as_good() -> None:
    assert encoder((ct.Float64(),))((3,)) == encoder((ct.Float64(),))((3.0,))
    assert encoder((ct.BLOB,))((bytearray(b"x"),)) == encoder((ct.BLOB,))((b"x",))
    assert encoder((ct.Vec(ct.Nat()),))(((1, 2),)) == encoder((ct.Vec(ct.Nat()),))(([1, 2],))
    assert encoder((ct.Service(),))((CAFFEE,)) == encoder((ct.Service(),))((ServiceRef(CAFFEE),))
    assert encoder((ct.record_of({"a": ct.Opt(ct.Nat())}),))(({},)) == encoder(
        (ct.record_of({"a": ct.Opt(ct.Nat())}),)
    )(({"a": None},))


@given(typed_values(), typed_values())
def test_messages_round_trip(one: tuple[ct.Type, object], other: tuple[ct.Type, object]) -> None:
    expected, values = (one[0], other[0]), (one[1], other[1])
    message = encoder(expected)(values)
    assert decoder(expected)(message) == values
    assert decoder(expected)(bytearray(message)) == values  # type: ignore[arg-type]  # taken all the same


@given(typed_values())
def test_values_round_trip(typed: tuple[ct.Type, object]) -> None:
    t, value = typed
    assert value_decoder(t)(value_encoder(t)(value)) == value


@given(typed_values())
def test_a_message_begins_with_its_types_and_ends_with_its_value(typed: tuple[ct.Type, object]) -> None:
    t, value = typed
    message, raw = encoder((t,))((value,)), value_encoder(t)(value)
    assert message.endswith(raw)
    wire_types, wire_values = decode_dynamic(message)
    assert encode_type(wire_types[0]) == encode_type(t)
    assert encoder(tuple(wire_types))(wire_values) == message


@given(st.data(), plain_types)
def test_values_are_read_at_every_supertype(data: st.DataObject, t: ct.Type) -> None:
    wider = draw_supertype(data.draw, t)
    value = draw_value(data.draw, t)
    coerced = decoder((wider,))(encoder((t,))((value,)))[0]
    assert value_converter(t, wider)(value_encoder(t)(value)) == coerced
    assert decoder((wider,))(encoder((wider,))((coerced,))) == (coerced,)


@given(st.data(), plain_types)
def test_a_chain_of_compatible_types_reads_old_data(data: st.DataObject, t1: ct.Type) -> None:
    t2 = draw_supertype(data.draw, t1)
    t3 = draw_supertype(data.draw, t2)
    raw = value_encoder(t1)(draw_value(data.draw, t1))
    rewritten = value_encoder(t2)(value_converter(t1, t2)(raw))
    for stored, old in ((raw, t1), (rewritten, t2)):
        value_encoder(t3)(value_converter(old, t3)(stored))


@given(types, typed_values())
def test_coercion_never_fails_between_subtypes(wider: ct.Type, typed: tuple[ct.Type, object]) -> None:
    t, value = typed
    message = encoder((t,))((value,))
    try:
        values = decoder((wider,))(message)
    except CandidError as error:
        # `type t = opt t` is a supertype of every type and yet reads none that is no option: so says the
        # specification's own test, "parsing (true : bool) at fix opt fails".
        if is_subtype(t, wider) and "nested" not in str(error):
            raise
        return
    assert decoder((wider,))(encoder((wider,))(values)) == values


def test_headers_of_another_form_are_read_as_fast() -> None:
    expected = (LIST, ct.Text())
    message = encoder(expected)(({"head": 1, "tail": None}, "x"))
    reordered = _unescape(r"DIDL\02\6c\02\a0\d2\ac\a8\04\7c\90\ed\da\e7\04\01\6e\00\02\01\71\01\01\00\01x")
    assert reordered[4:] != message[4:]
    decode = decoder(expected)
    assert decode(reordered) == decode(message)
    inside = decode.__self__  # type: ignore[attr-defined]  # a look inside
    assert list(inside._foreign.values()) == [inside._fast]


def test_the_cache_of_foreign_headers_is_bounded() -> None:
    decode = decoder((ct.Reserved(),))
    for place in range(3 * CANDID_HEADER_CACHE_COUNT_MAX):
        t = ct.Record((ct.Field(place, None, ct.Nat()),))
        assert decode(encoder((t,))(({t.fields[0].label: 1} if place else (1,),))) == (None,)
    kept = decode.__self__._foreign  # type: ignore[attr-defined]  # a look inside
    assert len(kept) == CANDID_HEADER_CACHE_COUNT_MAX


def test_a_stored_type_reads_into_names() -> None:
    t = ct.record_of({"name": ct.Text(), "age": ct.Nat8()})
    stored = decode_type(encode_type(t))
    raw = value_encoder(t)({"name": "Ann", "age": 3})
    assert value_converter(stored, t)(raw) == {"name": "Ann", "age": 3}
    newer = ct.record_of({"name": ct.Text(), "mail": ct.Opt(ct.Text())})
    assert value_converter(stored, newer)(raw) == {"name": "Ann", "mail": None}


def test_large_variants_round_trip() -> None:
    t = ct.variant_of({f"case{i}": ct.Text() if i % 2 else ct.Nat() for i in range(200)})
    for i in (0, 1, 127, 128, 199):
        value = Variant(f"case{i}", "x" if i % 2 else 7)
        assert decoder((t,))(encoder((t,))((value,))) == (value,)


def test_deep_types_round_trip() -> None:
    t: ct.Type = ct.Nat()
    value: object = 7
    for _ in range(60):
        t, value = ct.tuple_record(ct.Vec(t)), ([value],)
    assert decoder((t,))(encoder((t,))((value,))) == (value,)


def test_packed_elements_stand_for_a_list_of_composite_values() -> None:
    point = ct.tuple_record(ct.Nat8(), ct.Text())
    pair = value_encoder(point)
    points = [(1, "a"), (2, "bb")]
    packed = Packed(2, b"".join(pair(p) for p in points))
    of_points = value_encoder(ct.Vec(point))
    assert of_points(packed) == of_points(points)
    assert encoder((ct.Vec(point), ct.Bool()))((packed, True)) == encoder((ct.Vec(point), ct.Bool()))(
        (points, True)
    )
    for other in (ct.Vec(ct.Nat8()), ct.Vec(ct.Nat32()), ct.Text()):
        with pytest.raises(CandidError):
            value_encoder(other)(packed)
    with pytest.raises(CandidError, match="True is not a text"):
        encoder((ct.Vec(point), ct.Text()))((packed, True))
