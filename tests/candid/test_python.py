"""Python hints and classes as Candid types and values, in both directions."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
import types as python_types
from pathlib import Path
from typing import Annotated, Any

import pytest
from hypothesis import given

from cannery.candid import types as ct
from cannery.candid.codec import decoder, encoder
from cannery.candid.did import Interface, format_did, parse_did
from cannery.candid.errors import CandidError
from cannery.candid.python import (
    Case,
    FuncRef,
    Principal,
    Results,
    ServiceRef,
    Some,
    Variant,
    bind,
    case,
    empty,
    field,
    float32,
    func_of,
    hints_source,
    int8,
    int64,
    nat,
    nat8,
    nat16,
    nat64,
    record,
    reserved,
    service_of,
    type_of,
    variant,
)
from cannery.candid.text import format_values, parse_values
from cannery.candid.wire import encode_type
from tests.candid.strategies import types

ANN = Principal(b"\1")


@record
class Entry:
    author: Principal
    at_ns: nat64
    text: str
    reply: Entry | None = None
    outcome: Outcome | None = None


@variant
class Outcome(Variant):
    ok: Case[nat64]
    full: Case[None]
    refused: Case[str]
    not_found: Case[None] = case(name="not-found")
    nested: Case[list[Outcome]]


@record
class Odd:
    class_: str = field(name="class")
    five: nat8 = field(name="_5_")
    many: dict[str, nat16] = field(name="to be")


@variant
class Plain:
    a: nat64  # a hint without Case works too, if not for type checkers
    b: None


HINTS: list[tuple[Any, ct.Type]] = [
    (int, ct.Int()),
    (bool, ct.Bool()),
    (str, ct.Text()),
    (float, ct.Float64()),
    (bytes, ct.BLOB),
    (None, ct.Null()),
    (Principal, ct.PrincipalType()),
    (nat, ct.Nat()),
    (int8, ct.Int8()),
    (int64, ct.Int64()),
    (float32, ct.Float32()),
    (reserved, ct.Reserved()),
    (empty, ct.Empty()),
    (nat64 | None, ct.Opt(ct.Nat64())),
    (Some[int | None] | None, ct.Opt(ct.Opt(ct.Int()))),
    (Some[None] | None, ct.Opt(ct.Null())),
    (list[nat16], ct.Vec(ct.Nat16())),
    (tuple[int, str], ct.tuple_record(ct.Int(), ct.Text())),
    (dict[str, nat], ct.Vec(ct.tuple_record(ct.Text(), ct.Nat()), dict)),
    (FuncRef, ct.Func()),
    (ServiceRef, ct.Service()),
    (
        Annotated[FuncRef, func_of((str,), (nat64,), "query")],
        ct.Func((ct.Text(),), (ct.Nat64(),), ("query",)),
    ),
    (Annotated[ServiceRef, service_of({"m": func_of((), ())})], ct.Service((("m", ct.Func()),))),
    (Annotated[int, "a remark", ct.Nat32()], ct.Nat32()),
    (Annotated[str, "a remark"], ct.Text()),
    ("list[int]", ct.Vec(ct.Int())),
]


@pytest.mark.parametrize(("hint", "t"), HINTS)
def test_types_of_hints(hint: Any, t: ct.Type) -> None:
    assert type_of(hint) == t


REFUSED: list[tuple[Any, str]] = [
    (complex, "complex is no hint"),
    (Any, "no hint"),
    (list, "no hint"),
    (set[int], "no hint"),
    (tuple[int, ...], "no hint"),
    (list[nat8], "write bytes"),
    (int | str, "use a @variant"),
    (int | str | None, "use a @variant"),
    (Some[int] | None, "write X | None"),
    (reserved | None, "ambiguous"),
    (dict[list[int], int], "key of a dict"),
    ("Missing", "'Missing'"),
    ("list[", "cannot be read"),
]


@pytest.mark.parametrize(("hint", "reason"), REFUSED)
def test_other_hints_are_refused(hint: Any, reason: str) -> None:
    with pytest.raises(CandidError, match=reason):
        type_of(hint)


def test_the_field_stands_in_the_error() -> None:
    @record
    class Wrong:
        good: int
        bad: complex

    with pytest.raises(CandidError, match=r"Wrong\.bad: complex"):
        type_of(Wrong)


def test_records_are_frozen_dataclasses() -> None:
    entry = Entry(ANN, 1, "x")
    assert dataclasses.replace(entry, text="y") == Entry(ANN, 1, "y", None)
    assert hash(entry) == hash(Entry(ANN, 1, "x"))
    with pytest.raises(dataclasses.FrozenInstanceError):
        entry.text = "y"  # type: ignore[misc]  # that is the point
    assert not hasattr(entry, "__dict__")


def test_records_hold_data_only() -> None:
    with pytest.raises(CandidError, match="__post_init__"):

        @record
        class Checked:
            a: int

            def __post_init__(self) -> None: ...

    with pytest.raises(CandidError, match="inherits"):

        @record
        class More(Entry):
            b: int


def test_variants_are_made_by_their_cases() -> None:
    ok, full = Outcome.ok(3), Outcome.full()
    assert (ok.tag, ok.value, ok.ok) == ("ok", 3, 3)
    assert (full.tag, full.value) == ("full", None)
    assert Outcome.not_found().tag == "not-found"
    assert ok == Outcome.ok(3) != Outcome.ok(4)
    assert hash(ok) == hash(Outcome.ok(3))
    assert repr(ok) == "Outcome.ok(3)"
    assert ok != Variant("ok", 3)
    with pytest.raises(AttributeError, match="this Outcome is 'ok', not 'refused'"):
        _ = ok.refused
    with pytest.raises(AttributeError, match="immutable"):
        ok.value = 4
    with pytest.raises(AttributeError, match="immutable"):
        del ok.tag
    with pytest.raises(CandidError, match="use case\\(name='tag'\\)"):

        @variant
        class Bad(Variant):
            tag: Case[None]  # type: ignore[assignment]  # that is the point


def test_variants_without_case_hints() -> None:
    made = Plain.a(3)  # type: ignore[operator]  # type checkers do not know
    assert (made.tag, made.value) == ("a", 3)
    assert decoder((type_of(Plain),))(encoder((type_of(Plain),))((made,))) == (made,)


ENTRIES = [
    Entry(ANN, 1, "x"),
    Entry(ANN, 2**64 - 1, "☃", Entry(ANN, 2, "", None), Outcome.ok(7)),
    Entry(ANN, 0, "x", None, Outcome.nested([Outcome.full(), Outcome.refused("no"), Outcome.nested([])])),
    Entry(ANN, 0, "x", None, Outcome.not_found()),
]


@pytest.mark.parametrize("entry", ENTRIES)
def test_instances_round_trip(entry: Entry) -> None:
    t = type_of(Entry)
    back = decoder((t,))(encoder((t,))((entry,)))[0]
    assert back == entry
    assert type(back) is Entry
    text = format_values([t], [entry])
    assert parse_values(text, [t])[1] == [entry]
    as_list = type_of(list[Entry])
    assert decoder((as_list,))(encoder((as_list,))(([entry] * 3,))) == ([entry] * 3,)


def test_odd_names_round_trip() -> None:
    t = type_of(Odd)
    value = Odd(class_="c", five=5, many={"a": 1, "b": 2})
    assert decoder((t,))(encoder((t,))((value,))) == (value,)
    plain = ct.record_of(
        {"class": ct.Text(), "_5_": ct.Nat8(), "to be": ct.Vec(ct.tuple_record(ct.Text(), ct.Nat16()))}
    )
    assert encode_type(t) == encode_type(plain)
    assert decoder((plain,))(encoder((t,))((value,)))[0] == {
        "class": "c",
        "_5_": 5,
        "to be": [("a", 1), ("b", 2)],
    }


def test_a_class_takes_no_other() -> None:
    with pytest.raises(CandidError, match="dict is not a Entry"):
        encoder((type_of(Entry),))(({"author": ANN},))
    with pytest.raises(CandidError, match=r"argument 0\.reply\.at_ns: 'x' is not a nat64"):
        encoder((type_of(Entry),))((Entry(ANN, 1, "x", Entry(ANN, "x", "")),))  # type: ignore[arg-type]
    with pytest.raises(CandidError, match="is not a Outcome"):
        encoder((type_of(Outcome),))((Variant("full"),))


def test_a_key_that_stands_twice_is_refused() -> None:
    pairs = ct.Vec(ct.tuple_record(ct.Text(), ct.Nat()))
    message = encoder((pairs,))(([("a", 1), ("a", 2)],))
    with pytest.raises(CandidError, match="twice"):
        decoder((type_of(dict[str, nat]),))(message)


def test_older_and_newer_classes_read_each_other() -> None:
    @record
    class Old:
        text: str
        gone: int

    @record
    class New:
        text: str
        extra: nat64 | None

    old, new = type_of(Old), type_of(New)
    assert decoder((new,))(encoder((old,))((Old("x", 1),))) == (New("x", None),)


def test_interfaces_show_classes_by_name() -> None:
    def sign(
        self: object, ctx: object, text: str, to: Principal | None
    ) -> Results[tuple[nat64, Outcome]]: ...

    def latest(self: object, ctx: object, limit: nat16) -> list[Entry]: ...

    def clear(self: object, ctx: object) -> None: ...

    functions = {
        "sign": bind(sign, 2).func(),
        "latest": bind(latest, 2).func("query"),
        "clear": bind(clear, 2).func(),
    }
    assert (
        format_did(Interface.of(functions))
        == """type Entry = record {
  at_ns : nat64;
  "text" : text;
  author : principal;
  outcome : opt Outcome;
  reply : opt Entry;
};
type Outcome = variant {
  ok : nat64;
  full;
  "not-found";
  nested : vec Outcome;
  refused : text;
};
service : {
  clear : () -> ();
  latest : (limit : nat16) -> (vec Entry) query;
  sign : ("text" : text, to : opt principal) -> (nat64, Outcome);
}
"""
    )


def test_bind_says_which_parameter_is_wrong() -> None:
    def bare(text) -> None: ...  # type: ignore[no-untyped-def]

    def endless(*text: str) -> None: ...

    def silent(text: str): ...  # type: ignore[no-untyped-def]

    def wrong(text: complex) -> None: ...

    for function, reason in [
        (bare, "parameter text has no hint"),
        (endless, "not positional"),
        (silent, "write -> None"),
        (wrong, "parameter text: complex is no hint"),
    ]:
        with pytest.raises(CandidError, match=reason):
            bind(function)


def load(source: str, name: str) -> dict[str, Any]:
    """Run generated source as a module."""
    module = python_types.ModuleType(name)
    sys.modules[name] = module
    try:
        exec(compile(source, name, "exec"), module.__dict__)
    finally:
        del sys.modules[name]
    return module.__dict__


WIDE = """
type Tree = variant { leaf : int; branch : record { left : Tree; val : int; right : Tree } };
type List = opt record { nat; List };
type Page = record { items : vec record { id : nat; class : text }; next : opt Callback; opt2 : opt opt nat };
type Callback = func (Page, opt nat32) -> (Page) query;
type Names = vec text;
type Wide = record { names : Names; raw : blob; list : List; 7 : nat8; "to be" : reserved; self : service { m
: () -> () } }; type Keys = variant { tag; value : nat; "not-found"; str : text }; service : (Names) -> { get
: (Tree, text : Wide) -> (Page, Keys) query; "odd name" : () -> (); class : () -> (); make : (record { inner :
variant { a; b } }) -> () oneway; }
"""


def test_source_of_an_interface_gives_its_types_back() -> None:
    interface = parse_did(WIDE)
    names = load(hints_source(interface), "generated_wide")
    for name in interface.names:
        assert encode_type(type_of(names[name])) == encode_type(interface.type(name)), name
    method = bind(names["Service"].get, 1).func("query")
    assert encode_type(method) == encode_type(interface.methods["get"])
    assert method.arg_names[1] == "text"


def test_source_says_what_has_no_hint() -> None:
    with pytest.raises(CandidError, match="recursive without a record"):
        hints_source(parse_did("type V = vec V;"))


@given(types)
def test_any_interface_has_source_or_no_hints(t: ct.Type) -> None:
    interface = parse_did(format_did(Interface.of({"m": ct.Func((t,), (t,))})))
    try:
        source = hints_source(interface)
    except CandidError:
        return
    names = load(source, "generated_law")
    method = bind(names["Service"].m, 1).func()
    assert encode_type(method) == encode_type(interface.methods["m"])


AUTHOR = """
from __future__ import annotations
from cannery.candid.python import (
    Case, Principal, Results, Some, Variant, case, field, float32, nat, nat64, record, reserved, variant,
)

@variant
class Outcome(Variant):
    ok: Case[nat64]
    full: Case[None]
    refused: Case[str]
    not_found: Case[None] = case(name="not-found")

@record
class Entry:
    author: Principal
    at_ns: nat64
    text: str
    ratio: float32
    reply: Entry | None = None
    class_: str = field(name="class", default="")

def sign(text: str) -> Results[tuple[nat64, Outcome]]:
    entry = Entry(Principal.anonymous(), at_ns=3, text=text, ratio=0.5)
    outcome = Outcome.ok(entry.at_ns)
    if outcome.tag == "ok":
        return outcome.ok + 1, outcome
    return 0, Outcome.full() if entry.reply is None else Outcome.refused(entry.reply.class_)

nested: Some[int | None] | None = Some(None)
"""
MISTAKES = """
bad_1 = Outcome.ok("x")
bad_2 = Outcome.full(3)
bad_3: str = Outcome.ok(3).ok
bad_4 = Entry(3, 3, "x", 0.5)
"""


def run_mypy(tmp_path: Path, source: str) -> str:
    path = tmp_path / "author.py"
    path.write_text(source)
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--no-error-summary",
        "--cache-dir",
        str(tmp_path),
        str(path),
    ]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root, check=False)
    return done.stdout + done.stderr


def test_mypy_understands_authors_and_their_mistakes(tmp_path: Path) -> None:
    lines = run_mypy(tmp_path, AUTHOR + MISTAKES).splitlines()
    first = AUTHOR.count("\n") + 2
    assert [line for line in lines if "author.py" in line and f":{first}" > line.split("author.py")[1]] == []
    found = {int(line.split(":")[1]) for line in lines if "author.py:" in line and "error" in line}
    assert found == {first, first + 1, first + 2, first + 3}, "\n".join(lines)
