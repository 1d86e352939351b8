"""The text format of values: what is printed, what is read, and that both agree."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.candid.did import parse_did
from cannery.candid.errors import CandidError
from cannery.candid.text import format_values, parse_values
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.protocol.principal import Principal
from tests.candid.strategies import typed_values

CAFFEE = Principal(bytes.fromhex("caffee"))


def parse_type(text: str) -> ct.Type:
    return parse_did(f"type it = {text};").type("it")


PRINTED = [
    ("nat", 42, "(42 : nat)"),
    ("nat64", 1234567, "(1_234_567 : nat64)"),
    ("int", -1000, "(-1_000 : int)"),
    ("nat8", 255, "(255 : nat8)"),
    ("float64", 3.0, "(3.0 : float64)"),
    ("float64", 1e22, "(10000000000000000000000.0 : float64)"),
    ("float32", 0.10000000149011612, "(0.1 : float32)"),
    ("float64", math.inf, "(inf : float64)"),
    ("bool", True, "(true)"),
    ("null", None, "(null : null)"),
    ("reserved", None, "(null : reserved)"),
    ("text", 'say "hi"\n\t\\ ☃\u200b', r'("say \"hi\"\n\t\\ ☃\u{200b}")'),
    ("opt nat", None, "(null)"),
    ("opt nat", 3, "(opt (3 : nat))"),
    ("opt text", "a : b", '(opt "a : b")'),
    ("opt opt nat", Some(None), "(opt null)"),
    ("opt opt nat", Some(3), "(opt opt (3 : nat))"),
    ("opt null", Some(None), "(opt (null : null))"),
    ("blob", b"plain 'text'", '(blob "plain \\27text\\27")'),
    ("blob", b"\x00\xff", '(blob "\\00\\ff")'),
    ("vec nat16", [], "(vec {})"),
    ("vec nat16", [1, 2], "(vec { 1 : nat16; 2 : nat16 })"),
    ("vec text", ["a"] * 11, "(vec {" + ' "a";' * 11 + "})"),
    ("record {}", {}, "(record {})"),
    ("record { nat; text }", (1, "x"), '(record { 1 : nat; "x" })'),
    ("record { 5 : nat }", {"_5_": 1}, "(record { 5 = 1 : nat })"),
    ("record { 5097222 : nat }", {"_5097222_": 1}, "(record { 5_097_222 = 1 : nat })"),
    ('record { "to be" : bool }', {"to be": False}, '(record { "to be" = false })'),
    ("record { query : bool }", {"query": False}, '(record { "query" = false })'),
    ("variant { ok; err : text }", Variant("ok"), "(variant { ok })"),
    ("variant { ok; err : text }", Variant("err", "x"), '(variant { err = "x" })'),
    ("principal", CAFFEE, '(principal "w7x7r-cok77-xa")'),
    ("service {}", ServiceRef(CAFFEE), '(service "w7x7r-cok77-xa")'),
    ("func () -> ()", FuncRef(CAFFEE, "m"), '(func "w7x7r-cok77-xa".m)'),
    ("func () -> ()", FuncRef(CAFFEE, "a b"), '(func "w7x7r-cok77-xa"."a b")'),
]


@pytest.mark.parametrize(("type_text", "value", "text"), PRINTED)
def test_printed_values(type_text: str, value: object, text: str) -> None:
    t = parse_type(type_text)
    assert format_values([t], [value]) == text
    assert encoder((t,))(parse_values(text, [t])[1]) == encoder((t,))([value])


def test_long_values_are_broken_into_lines() -> None:
    t = parse_type("vec record { name : text; tags : vec text }")
    value = [{"name": "a name of some length", "tags": ["one", "two"]}, {"name": "b", "tags": []}]
    assert format_values([t, ct.Nat()], [value, 1]) == "\n".join(
        [
            "(",
            "  vec {",
            '    record { name = "a name of some length"; tags = vec { "one"; "two" } };',
            '    record { name = "b"; tags = vec {} };',
            "  },",
            "  1 : nat,",
            ")",
        ]
    )


READ = [
    ('("x", 3 : nat64)', [ct.Text(), ct.Nat64()], ["x", 3]),
    ("()", [], []),
    ("(true, false, null,)", [ct.Bool(), ct.Bool(), ct.Null()], [True, False, None]),
    ("5", [ct.Int()], [5]),
    (
        "(-1.5, 1., 2e3, +7, 0x_f)".replace("0x_f", "0xf_f"),
        [ct.Float64()] * 3 + [ct.Int()] * 2,
        [-1.5, 1.0, 2000.0, 7, 255],
    ),
    ("(0x1.8p1 : float32)", [ct.Float32()], [3.0]),
    ("(1_000 /* a /* nested */ comment */, 2 // rest\n)", [ct.Int(), ct.Int()], [1000, 2]),
    (r'("\u{1f600}\t\"\e2\98\83")', [ct.Text()], ['😀\t"☃']),
    (r'(blob "\00\ffa☃")', [ct.BLOB], [b"\0\xffa\xe2\x98\x83"]),
    ("(opt 3, opt opt null)", [ct.Opt(ct.Int()), ct.Opt(ct.Opt(ct.Null()))], [3, Some(Some(None))]),
    ("(vec { 1 : nat8; 2 : nat8 })", [ct.BLOB], [b"\1\2"]),
    ("(vec {})", [ct.Vec(ct.Empty())], [[]]),
    ("(vec { null; opt 1 })", [ct.Vec(ct.Opt(ct.Int()))], [[None, 1]]),
    ('(record { 1; "a" })', [ct.tuple_record(ct.Int(), ct.Text())], [(1, "a")]),
    (
        "(record { a = 1; 5 = true; null })",
        [ct.record_of({"a": ct.Int(), "_5_": ct.Bool(), "_6_": ct.Null()})],
        [{"_5_": True, "_6_": None, "a": 1}],
    ),
    (
        "(variant { ok }, variant { 3 = 1 })",
        [ct.variant_of({"ok": ct.Null()}), ct.variant_of({"_3_": ct.Int()})],
        [Variant("ok"), Variant("_3_", 1)],
    ),
    (
        "(vec { variant { a }; variant { b = 1 } })",
        [ct.Vec(ct.variant_of({"a": ct.Null(), "b": ct.Int()}))],
        [[Variant("a"), Variant("b", 1)]],
    ),
    (
        '(principal "w7x7r-cok77-xa", func "aaaaa-aa".m)',
        [ct.PrincipalType(), ct.Func()],
        [CAFFEE, FuncRef(Principal(b""), "m")],
    ),
    ("((1), (2 : nat))", [ct.Int(), ct.Nat()], [1, 2]),
]


@pytest.mark.parametrize(("text", "types", "values"), READ)
def test_values_without_types_are_inferred(text: str, types: list[ct.Type], values: list[object]) -> None:
    assert parse_values(text) == (types, values)


FITTED = [
    ("(5)", "opt nat", 5),
    ("(5 : nat)", "int", 5),
    ("(5 : nat)", "opt int", 5),
    ("(5)", "float64", 5.0),
    ("(vec { 1; 2 })", "blob", b"\1\2"),
    ('(blob "\\01")', "vec nat", [1]),
    ("(record { whatever = 0 })", "record {}", {}),
    ("(record {})", "record { a : opt nat; b : null; c : reserved }", {"a": None, "b": None, "c": None}),
    ('(service "aaaaa-aa")', "principal", Principal(b"")),
    ('("anything")', "reserved", None),
    ("(variant { a = 1 })", "variant { a : nat8; b }", Variant("a", 1)),
]


@pytest.mark.parametrize(("text", "type_text", "value"), FITTED)
def test_values_are_fitted_to_types(text: str, type_text: str, value: object) -> None:
    t = parse_type(type_text)
    assert parse_values(text, [t]) == ([t], [value])


def test_arguments_are_like_those_of_a_message() -> None:
    types = [ct.Nat(), ct.Opt(ct.Text())]
    assert parse_values("(1)", types)[1] == [1, None]
    assert parse_values("(1, null, true)", types)[1] == [1, None]
    with pytest.raises(CandidError, match="argument 0 is missing"):
        parse_values("()", types)


REFUSED = [
    ("(", None, "line 1, column 2: expected a value, found the end"),
    ("(1", None, "expected ',' or '\\)'"),
    ("(1) 2", None, "expected the end, found '2'"),
    ("(a)", None, "expected a value, found 'a'"),
    ('("a', None, "not closed"),
    (r'("\x")', None, "escape is unknown"),
    (r'("\u{d800}")', None, "no Unicode scalar value"),
    (r'("\ff")', None, "not Unicode"),
    ("(/* x)", None, "comment is not closed"),
    ("(#)", None, "'#' has no meaning"),
    ("(record { a = 1; a = 2 })", None, "twice"),
    ("(variant {})", None, "expected"),
    ("(vec { 1; true })", None, "different types"),
    ("(1 : nope)", None, "not defined"),
    ("(1e999999999999)", "text", "too large"),
    ("(-1)", "nat", "argument 0: -1 is not a nat"),
    ("(256)", "nat8", "argument 0: 256 is not a nat8"),
    ("(1.5)", "nat8", "argument 0: a float stands where a nat8"),
    ("(vec { 1; -1 })", "vec nat", "argument 0\\[1\\]: -1 is not a nat"),
    ("(record { a = true })", "record { a : text }", "argument 0.a: a bool stands where a text"),
    ("(record {})", "record { a : nat }", "argument 0: field a is missing"),
    ("(variant { c })", "variant { a; b }", "argument 0: case c is not known, cases are a, b"),
    ("(1 : nat8)", "nat", "argument 0: value: nat8 is not a subtype of nat"),
    ("(1 : nat8)", "opt nat", "reads as null"),
    ('(principal "x")', "principal", "not a principal"),
    ('(principal "aaaaa-aa")', "service {}", "a principal stands where a service"),
    ("(" + "1" * 5000 + ")", "nat", "too large"),
    ("(" * 200, None, "nested"),
    ("(" + "opt " * 200 + "1)", None, "nested"),
    ("(" + "vec {" * 200, None, "nested"),
    ("(1 : " + "opt " * 200 + "nat)", None, "nested"),
]


@pytest.mark.parametrize(("text", "type_text", "reason"), REFUSED)
def test_bad_text_is_refused_with_its_place(text: str, type_text: str | None, reason: str) -> None:
    with pytest.raises(CandidError, match=reason):
        parse_values(text, None if type_text is None else [parse_type(type_text)])


def test_only_values_of_the_types_are_printed() -> None:
    with pytest.raises(CandidError, match="is not a nat"):
        format_values([ct.Nat()], ["x"])
    with pytest.raises(CandidError, match="2 values"):
        format_values([ct.Nat()], [1, 2])


@given(typed_values())
def test_text_round_trips(typed: tuple[ct.Type, object]) -> None:
    t, value = typed
    text = format_values([t], [value])
    assert encoder((t,))(parse_values(text, [t])[1]) == encoder((t,))((value,))


@given(st.text(alphabet=st.sampled_from('(){}=;:," \\\n1.ea-_rcodvptinuls/*')))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        types, values = parse_values(text)
    except CandidError:
        return
    assert encoder(tuple(types))(values)


@given(typed_values(), st.data())
def test_mutated_text_is_read_or_refused(typed: tuple[ct.Type, object], data: st.DataObject) -> None:
    t, value = typed
    text = format_values([t], [value])
    place = data.draw(st.integers(0, len(text) - 1))
    changed = text[:place] + data.draw(st.text(max_size=2)) + text[place + 1 :]
    for types in (None, [t]):
        try:
            parse_values(changed, types)
        except CandidError:
            continue
