"""The subtype relation: the rules of the specification one by one, and its laws."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.did import parse_did
from cannery.candid.subtype import explain_loss, explain_subtype, is_subtype
from tests.candid.strategies import PRIMITIVES, draw_supertype, plain_types, types

DEFINITIONS = """
type Vec = vec Vec;
type EmptyRecord = record { EmptyRecord };
type EmptyVariant = variant { 0 : EmptyVariant };
type OptRecord = record { opt OptRecord };
type Loop = service { m : () -> (Loop) };
type List = opt record { head : nat; tail : List };
type IntList = opt record { head : int; tail : IntList };
"""


def parse(text: str) -> ct.Type:
    return parse_did(f"{DEFINITIONS} type it = {text};").type("it")


HOLDS = [
    ("nat", "int"),
    ("empty", "nat"),
    ("empty", "EmptyRecord"),
    ("vec record {}", "reserved"),
    ("null", "opt text"),
    ("reserved", "opt text"),
    ("nat", "opt nat"),
    ("nat", "opt int"),
    ("nat", "opt text"),
    ("opt nat", "opt text"),
    ("opt opt nat", "opt nat"),
    ("vec nat", "vec int"),
    ("record { a : nat; b : text }", "record { a : int }"),
    ("record {}", "record { a : opt nat; b : null; c : reserved }"),
    ("variant { a }", "variant { a; b }"),
    ("variant { a : nat; b }", "opt variant { a : nat }"),
    ("variant {}", "variant { a }"),
    ("func (text) -> ()", "func (text, nat) -> ()"),
    ("func (text, opt nat) -> ()", "func (text) -> ()"),
    ("func (int) -> (nat)", "func (nat) -> (int)"),
    ("func () -> (nat, text)", "func () -> (nat)"),
    ("func () -> (nat)", "func () -> (nat, opt text)"),
    ("service { m : () -> (); n : () -> () }", "service { m : () -> () }"),
    ("service { m : () -> () }", "principal"),
    ("Loop", "principal"),
    ("Loop", "service { m : () -> (service {}) }"),
    ("vec Vec", "Vec"),
    ("Vec", "vec vec Vec"),
    ("EmptyRecord", "record { EmptyRecord }"),
    ("EmptyRecord", "OptRecord"),
    ("EmptyVariant", "variant { 0 : EmptyVariant; 1 }"),
    ("List", "IntList"),
]
FAILS = [
    ("int", "nat", "value: int is not a subtype of nat"),
    ("nat8", "nat", "value: nat8 is not a subtype of nat"),
    ("null", "nat", "value: null is not"),
    ("reserved", "null", "value: reserved is not"),
    ("opt nat", "nat", "value: opt is not"),
    ("principal", "service {}", "value: principal is not a subtype of service"),
    ("vec int", "vec nat", "value[]: int is not a subtype of nat"),
    (
        "record { author : text }",
        "record { author : principal }",
        "value.author: text is not a subtype of principal",
    ),
    ("record {}", "record { a : nat }", "value: field a is missing, and nat is not optional"),
    ("record { 7 : text }", "record { 7 : nat }", "value._7_: text"),
    ("variant { a; b }", "variant { a }", "value: case b is not known"),
    ("variant { a : text }", "variant { a : nat }", "value.a: text"),
    ("func (nat) -> ()", "func () -> ()", "value: argument 0 is missing, and nat is not optional"),
    ("func (nat) -> ()", "func (int) -> ()", "value argument 0: int is not a subtype of nat"),
    ("func () -> ()", "func () -> (nat)", "value: result 0 is missing"),
    ("func () -> (int)", "func () -> (nat)", "value result 0: int"),
    ("func () -> () query", "func () -> ()", "value: mode query is not update"),
    ("func () -> () query", "func () -> () composite_query", "value: mode query is not composite_query"),
    ("service {}", "service { m : () -> () }", "value: method 'm' is missing"),
    ("service { m : (nat) -> () }", "service { m : (text) -> () }", "value method 'm' argument 0: text"),
    ("Vec", "empty", "value: vec is not a subtype of empty"),
    ("vec vec vec nat", "Vec", "value[][][]: nat is not a subtype of vec"),
]


@pytest.mark.parametrize(("sub", "sup"), HOLDS)
def test_holds(sub: str, sup: str) -> None:
    assert explain_subtype(parse(sub), parse(sup)) == []
    assert is_subtype(parse(sub), parse(sup))


@pytest.mark.parametrize(("sub", "sup", "reason"), FAILS)
def test_fails_with_a_path(sub: str, sup: str, reason: str) -> None:
    lines = explain_subtype(parse(sub), parse(sup))
    assert len(lines) == 1
    assert lines[0].startswith(reason)
    assert not is_subtype(parse(sub), parse(sup))


def test_every_difference_is_listed() -> None:
    lines = explain_subtype(
        parse("record { a : nat; b : vec text }"), parse("record { a : text; b : vec nat; c : nat }")
    )
    assert sorted(lines) == [
        "value.a: nat is not a subtype of text",
        "value.b[]: text is not a subtype of nat",
        "value: field c is missing, and nat is not optional",
    ]


def test_primitive_types_are_no_subtypes_of_each_other() -> None:
    related = {(ct.Nat, ct.Int)}
    for a in PRIMITIVES:
        for b in PRIMITIVES:
            expected = a == b or b == ct.Reserved() or (type(a), type(b)) in related
            assert is_subtype(a, b) == expected, (a, b)


def test_loss_is_told_where_the_rules_allow_it() -> None:
    old, new = parse("record { a : opt nat; b : opt nat }"), parse("record { a : opt text; b : opt int }")
    assert is_subtype(old, new)
    assert explain_loss(old, new) == ["value.a: reads as null (value.a?: nat is not a subtype of text)"]
    assert explain_loss(old, old) == []
    assert explain_loss(parse("List"), parse("IntList")) == []


@given(types)
def test_reflexive(t: ct.Type) -> None:
    assert is_subtype(t, t)
    assert explain_loss(t, t) == []


@given(types)
def test_bottom_top_and_option(t: ct.Type) -> None:
    assert is_subtype(ct.Empty(), t)
    assert is_subtype(t, ct.Reserved())
    assert is_subtype(t, ct.Opt(ct.Empty()))


@given(st.data())
def test_widening_gives_a_supertype_and_widening_is_transitive(data: st.DataObject) -> None:
    t1 = data.draw(plain_types)
    t2 = draw_supertype(data.draw, t1)
    t3 = draw_supertype(data.draw, t2)
    assert explain_subtype(t1, t2) == []
    assert explain_subtype(t2, t3) == []
    assert explain_subtype(t1, t3) == []


@given(types, types, types)
def test_transitive(a: ct.Type, b: ct.Type, c: ct.Type) -> None:
    if is_subtype(a, b) and is_subtype(b, c):
        assert is_subtype(a, c)
