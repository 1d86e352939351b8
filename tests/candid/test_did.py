"""Interface files: what is read, what is printed, and which interface can replace another."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.did import Interface, format_did, interface_subtype, parse_did
from cannery.candid.errors import CandidError
from cannery.candid.wire import encode_type
from tests.candid.strategies import types

GUESTBOOK = """// A page of the book.
type Entry = record {
  author : principal;
  at_ns : nat64;
  "text" : text;
  reply : opt Entry;
};
type Result = variant { ok : nat64; full; refused : text };
// A book for guests.
service : (owner : principal, opt nat32) -> {
  // Read the last entries.
  // At most 100 of them.
  latest : (limit : nat32) -> (vec Entry) query;
  sign : (text) -> (Result);
}
"""


def test_an_interface_is_read() -> None:
    book = parse_did(GUESTBOOK)
    assert book.names == ("Entry", "Result")
    assert list(book.methods) == ["latest", "sign"]
    latest = book.methods["latest"]
    assert latest.is_query
    assert latest.arg_names == ("limit",)
    assert latest.results == (ct.Vec(book.type("Entry")),)
    assert book.init_args == (ct.PrincipalType(), ct.Opt(ct.Nat32()))
    assert book.init_arg_names == ("owner", None)
    assert book.docs["latest"] == ("Read the last entries.", "At most 100 of them.")
    assert book.docs["type Entry"] == ("A page of the book.",)


def test_an_interface_is_printed_as_it_is_usual() -> None:
    printed = format_did(parse_did(GUESTBOOK))
    assert (
        printed
        == """// A page of the book.
type Entry = record {
  at_ns : nat64;
  "text" : text;
  author : principal;
  reply : opt Entry;
};
type Result = variant { ok : nat64; full; refused : text };
// A book for guests.
service : (owner : principal, opt nat32) -> {
  // Read the last entries.
  // At most 100 of them.
  latest : (limit : nat32) -> (vec Entry) query;
  sign : (text) -> (Result);
}
"""
    )
    assert format_did(parse_did(printed)) == printed


READ = [
    ("", {}),
    ("service : {}", {}),
    ("service name : {}", {}),
    ("service : {};", {}),
    ("service : () -> {}", {}),
    ("type S = service { f : () -> () }; service : S", {"f": ct.Func()}),
    ("type F = func (nat) -> () query; service : { f : F; }", {"f": ct.Func((ct.Nat(),), (), ("query",))}),
    ("service : { f : () -> () oneway; }", {"f": ct.Func((), (), ("oneway",))}),
    ("service : { f : () -> () composite_query }", {"f": ct.Func((), (), ("composite_query",))}),
    ('service : { "f g" : (blob) -> () }', {"f g": ct.Func((ct.BLOB,))}),
    (
        "service : { f : (record { nat; 5 : text; bool; 0x10 : int }) -> () }",
        {
            "f": ct.Func(
                (ct.record_of({"_0_": ct.Nat(), "_5_": ct.Text(), "_6_": ct.Bool(), "_16_": ct.Int()}),)
            )
        },
    ),
    (
        'service : { f : (variant { 3; a; "b c" : nat }) -> () }',
        {"f": ct.Func((ct.variant_of({"_3_": ct.Null(), "a": ct.Null(), "b c": ct.Nat()}),))},
    ),
    (
        "service : { f : (record { text : text; nat : nat }) -> () }",
        {"f": ct.Func((ct.record_of({"text": ct.Text(), "nat": ct.Nat()}),))},
    ),
    ("/* a /* b */ c */ service : { // x\n f : () -> () }", {"f": ct.Func()}),
]


@pytest.mark.parametrize(("text", "methods"), READ)
def test_methods_are_read(text: str, methods: dict[str, ct.Func]) -> None:
    interface = parse_did(text)
    assert interface.methods == methods
    assert parse_did(format_did(interface)).methods == methods


REFUSED = [
    ('import "x.did";', "imports are not supported"),
    ("type A = B; type B = A;", "nothing but itself"),
    ("type A = A;", "nothing but itself"),
    ("type A = Missing;", "type 'Missing' is not defined"),
    ("type A = nat; type A = nat;", "line 1, column 20: the type is defined twice"),
    ("type nat = int;", "no keyword"),
    ("type A = nat service : {}", "expected ';'"),
    ("service : {} x", "expected"),
    ("service : { f : () }", "expected '->'"),
    ("service : { f : nat }", "not defined|no func"),
    ("type N = nat; service : { f : N }", "no func"),
    ("type N = nat; service : N", "no service"),
    ("service : { f : () -> (); f : () -> () }", "twice"),
    ("service : { f : () -> (nat) oneway }", "oneway"),
    ("service : { f : () -> () query query }", "each once"),
    ("service : { f : (a : nat, a : nat) -> () }", "twice among the arguments"),
    ("type A = record { a : nat; a : text };", "have number 97"),
    ("type A = record { a : nat; 97 : text };", "have number 97"),
    ("type A = record { 4294967296 : nat };", "below 2\\^32"),
    ("type A = variant { nat : ", "line 1, column 26: expected a type, found the end"),
    ("type A = " + "opt " * 200 + "nat;", "nested"),
    ("type A = ?;", "no meaning"),
]


@pytest.mark.parametrize(("text", "reason"), REFUSED)
def test_bad_files_are_refused_with_their_place(text: str, reason: str) -> None:
    with pytest.raises(CandidError, match=reason):
        parse_did(text)


def test_comments_document_only_what_stands_right_below() -> None:
    text = "// far away\n\n// near\ntype A = nat; // behind\ntype B = nat;\nservice : {}"
    assert parse_did(text).docs == {"type A": ("near",)}


def test_interfaces_of_types_keep_names_apart() -> None:
    one = ct.Rec("Item", ct.Env({"Item": ct.record_of({"a": ct.Nat()})}))
    same = ct.Rec("Item", ct.Env({"Item": ct.record_of({"a": ct.Nat()}), "More": ct.Nat()}))
    other = ct.Rec("Item", ct.Env({"Item": ct.record_of({"b": ct.Opt(ct.Ref("Item"))})}))
    made = Interface.of(
        {"f": ct.Func((one, same), (other,)), "g": ct.Func((ct.Vec(other),))}, docs={"g": "Say g.\n\nTwice."}
    )
    assert (
        format_did(made)
        == """type Item = record { a : nat };
type Item_2 = record { b : opt Item_2 };
service : {
  f : (Item, Item) -> (Item_2);
  // Say g.
  //
  // Twice.
  g : (vec Item_2) -> ();
}
"""
    )


@given(types, types, st.sampled_from([(), ("query",)]))
def test_files_round_trip(one: ct.Type, other: ct.Type, modes: tuple[str, ...]) -> None:
    func = ct.Func((one, other), (one,), modes)
    interface = Interface.of({"m": func, "a method": func}, (other,))
    printed = format_did(interface)
    again = parse_did(printed)
    assert format_did(again) == printed
    assert encode_type(again.methods["m"]) == encode_type(func)
    assert [encode_type(t) for t in again.init_args] == [encode_type(other)]
    assert interface_subtype(again, interface) == []


@given(st.text(alphabet=st.sampled_from('typeservicrd={};:()->, opt natxfuq\n/*"')))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        parse_did("type A = " + text)
    except CandidError:
        return


@given(types, st.data())
def test_mutated_files_are_read_or_refused(t: ct.Type, data: st.DataObject) -> None:
    text = format_did(Interface.of({"m": ct.Func((t,))}))
    place = data.draw(st.integers(0, len(text) - 1))
    try:
        interface = parse_did(text[:place] + data.draw(st.text(max_size=2)) + text[place + 1 :])
    except CandidError:
        return
    assert parse_did(format_did(interface)).methods == interface.methods


def test_upgrades_are_checked() -> None:
    old = parse_did("service : { get : () -> (record { a : nat }) query; put : (nat) -> () }")
    new = parse_did(
        "service : { get : () -> (record { a : nat; b : nat }) query; put : (int) -> (); more : () -> () }"
    )
    assert interface_subtype(new, old) == []
    assert interface_subtype(old, new) == [
        "method 'more' is missing",
        "method 'get' result 0: field b is missing, and nat is not optional",
        "method 'put' argument 0: int is not a subtype of nat",
    ]
