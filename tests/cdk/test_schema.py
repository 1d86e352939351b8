"""Versions of a canister: compatible chains read all old data, others are refused with their paths."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import (
    Canister,
    Case,
    Context,
    Outcome,
    StableCell,
    StableLog,
    StableMap,
    StableSet,
    Variant,
    continuation,
    nat32,
    nat64,
    query,
    record,
    timer,
    update,
    variant,
)
from cannery.candid import types as ct
from cannery.candid.python import type_of
from cannery.candid.wire import encode_type
from cannery.cdk.describe import describe
from cannery.cdk.interface import manifest_of
from cannery.cdk.manifest import CollectionManifest, ModuleManifest, type_number
from cannery.cdk.part import SYSTEM_ATTRIBUTE
from cannery.cdk.program import PythonProgram
from cannery.cdk.schema import (
    Schema,
    SchemaDecodeError,
    SchemaError,
    check_in_flight,
    decode_schema,
    encode_schema,
    plan_schema,
)
from cannery.cdk.stable_values import ValueCodec
from cannery.ports import CallOutcome, EntryKind
from tests.cdk.driver import Driver
from tests.cdk.memory_system import MemoryCanister, MemorySystem

FORMATS = Path(__file__).parent.parent / "formats"


def manifest(cls: type[Canister]) -> ModuleManifest:
    return manifest_of(describe(cls), "m:C")


def planned(*versions: type[Canister]) -> Schema:
    """Plan the schemas of one version after the other."""
    schema: Schema | None = None
    types: dict[bytes, bytes] = {}
    names: tuple[str, ...] = ()
    for version in versions:
        described = manifest(version)
        schema = plan_schema(schema, described, types.get, names)
        types.update(described.numbered_types())
        names = described.field_names
    assert schema is not None
    return schema


def test_slots_are_kept_and_begin_no_other() -> None:
    specs = tuple(CollectionManifest(f"c{i}", "set", "text", b"", (), ()) for i in range(400))
    base = manifest(describe_nothing())
    first = plan_schema(None, msgspec.structs.replace(base, collections=specs[:200]), {}.get)
    second = plan_schema(first, msgspec.structs.replace(base, collections=specs[::2]), {}.get)
    third = plan_schema(second, msgspec.structs.replace(base, collections=specs), {}.get)
    slots = third.slots()
    assert {name: slots[name] for name in first.slots()} == first.slots()
    assert len(set(slots.values())) == 400
    ordered = sorted(slots.values())
    assert not any(b.startswith(a) for a, b in pairwise(ordered))
    assert all(slot[0] != 0xFF and slot[0] != 0 for slot in ordered)
    assert decode_schema(encode_schema(third)) == third


def describe_nothing() -> type[Canister]:
    class Nothing(Canister):
        pass

    return Nothing


@given(st.binary(max_size=50))
def test_junk_is_no_schema(data: bytes) -> None:
    for candidate in (data, b"\x01" + data):
        try:
            decode_schema(candidate)
        except SchemaDecodeError:
            continue


def test_schemas_and_values_equal_the_golden_file() -> None:
    """Records that an earlier version wrote are read, and written the same."""
    golden = json.loads((FORMATS / "schema.json").read_text())
    schema = planned(First)
    assert encode_schema(schema).hex() == golden["schema"]
    assert decode_schema(bytes.fromhex(golden["schema"])) == schema
    codec: ValueCodec[PersonOne] = ValueCodec("people", type_of(PersonOne))
    assert codec.write(PersonOne("Ann", 7)).hex() == golden["value"]
    system = MemorySystem(MemoryCanister(), EntryKind.QUERY)
    assert codec.read(bytes.fromhex(golden["value"]), system) == PersonOne("Ann", 7)


# --- what is refused -------------------------------------------------------------------------------------


@record
class PersonOne:
    name: str
    age: nat64


@record
class PersonTwo:
    name: str
    age: str


@record
class PersonThree:
    name: str
    age: nat64
    email: str | None


@record
class PersonFour:
    name: str
    age: nat64
    email: str


@record
class PersonFive:
    name: str | None
    age: nat64 | None


class First(Canister):
    people = StableMap(str, PersonOne)
    count = StableCell(nat64, 0)


def versions() -> dict[str, tuple[type[Canister], str]]:
    class Changed(Canister):
        people = StableMap(str, PersonTwo)

    class Missing(Canister):
        people = StableMap(str, PersonFour)

    class Lossy(Canister):
        people = StableMap(str, PersonOptText)

    class OtherKey(Canister):
        people = StableMap(nat64, PersonOne)

    class OtherKind(Canister):
        people = StableSet(str)

    class Twice(Canister):
        a = StableMap(str, PersonOne, renamed_from="people")
        b = StableMap(str, PersonOne, renamed_from="people")

    class Both(Canister):
        a = StableMap(str, PersonOne, renamed_from=("people", "count"))

    return {
        "changed": (Changed, r"people: value\.age: .*nat64.*text"),
        "missing": (Missing, r"people: .*email"),
        "lossy": (Lossy, r"people: .*age.*reads as null"),
        "other_key": (OtherKey, "people: its keys are text, the module declares nat64"),
        "other_kind": (OtherKind, "people: it is a map, the module declares a set"),
        "twice": (Twice, "b: 'people' is taken over by two collections"),
        "both": (Both, "a: renamed_from names people, count, which are there side by side"),
    }


@record
class PersonOptText:
    name: str
    age: str | None


@pytest.mark.parametrize("case", ["changed", "missing", "lossy", "other_key", "other_kind", "twice", "both"])
def test_an_incompatible_version_is_refused_with_its_paths(case: str) -> None:
    version, text = versions()[case]
    with pytest.raises(SchemaError, match=text):
        planned(First, version)


def test_counting_may_begin_and_not_end() -> None:
    class Counted(Canister):
        people = StableMap(str, PersonOne, counted=True)

    driver = Driver(writer(First, PersonOne("a", 1)))
    driver.update("write", "x")
    driver = Driver(reader(Counted), driver.canister)
    assert driver.query("size") == 1
    with pytest.raises(SchemaError, match="it is a counted_map, the module declares a map"):
        planned(Counted, First)


def writer(cls: type[Canister], value: Any) -> type[Canister]:  # a value of the collection's type
    class Writer(cls):  # type: ignore[valid-type, misc]
        @update
        def write(self, ctx: Context, key: str) -> None:
            self.people.put(key, value)

    return Writer


def reader(cls: type[Canister]) -> type[Canister]:
    class Reader(cls):  # type: ignore[valid-type, misc]
        @query
        def size(self, ctx: Context) -> nat64:
            return len(self.people)

    return Reader


# --- what is converted -----------------------------------------------------------------------------------


def age_to_text(old: PersonOne) -> PersonTwo:
    return PersonTwo(old.name, str(old.age))


def test_a_function_from_old_to_new_makes_an_incompatible_version_fit() -> None:
    class Second(Canister):
        people = StableMap(str, PersonTwo, convert_from=[age_to_text])

        @query
        def read(self, ctx: Context, key: str) -> PersonTwo:
            return self.people[key]

        @update
        def rewrite(self, ctx: Context, key: str) -> None:
            self.people.put(key, self.people[key])

    driver = Driver(writer(First, PersonOne("Ann", 7)))
    driver.update("write", "x")
    before = dict(driver.canister.state)
    driver = Driver(Second, driver.canister)
    assert driver.canister.state == before
    assert driver.query("read", "x") == PersonTwo("Ann", "7")
    driver.update("rewrite", "x")
    assert driver.query("read", "x") == PersonTwo("Ann", "7")
    assert driver.canister.state != before


def test_a_conversion_comes_before_subtyping_for_its_own_type_alone() -> None:
    def with_email(old: PersonOne) -> PersonThree:
        return PersonThree(old.name, old.age, f"{old.name}@example.org")

    class Third(Canister):
        people = StableMap(str, PersonThree, convert_from=[with_email])

        @query
        def read(self, ctx: Context, key: str) -> PersonThree:
            return self.people[key]

    driver = Driver(writer(First, PersonOne("Ann", 7)))
    driver.update("write", "x")
    assert Driver(Third, driver.canister).query("read", "x") == PersonThree("Ann", 7, "Ann@example.org")


def test_a_conversion_needs_one_hinted_parameter() -> None:
    with pytest.raises(TypeError, match="a conversion has one parameter"):
        StableMap(str, PersonTwo, convert_from=[lambda old: PersonTwo("", "")])


def test_a_conversion_returns_what_its_collection_holds() -> None:
    def unhinted(old: PersonOne):  # type: ignore[no-untyped-def]
        return PersonThree(old.name, old.age, None)

    for function in (age_to_text, unhinted):
        for make in (
            lambda f: StableMap(str, PersonThree, convert_from=[f]),
            lambda f: StableLog(PersonThree, convert_from=[f]),
        ):
            with pytest.raises(TypeError, match=f"{function.__name__}: a conversion's return hint"):
                make(function)


def test_a_collection_keeps_its_data_over_renames_and_absence() -> None:
    class Renamed(Canister):
        persons = StableMap(str, PersonOne, renamed_from="people")

    class Absent(Canister):
        pass

    class Again(Canister):
        humans = StableMap(str, PersonOne, renamed_from=("people", "persons"))

        @query
        def read(self, ctx: Context, key: str) -> PersonOne | None:
            return self.humans.get(key)

    driver = Driver(writer(First, PersonOne("Ann", 7)))
    driver.update("write", "x")
    for version in (Renamed, Absent):
        driver = Driver(version, driver.canister)
    assert Driver(Again, driver.canister).query("read", "x") == PersonOne("Ann", 7)


# --- what is in flight -----------------------------------------------------------------------------------


class Flying(Canister):
    @continuation
    def plain(self, ctx: Context, outcome: Outcome[None]) -> None: ...

    @continuation
    def saving(self, ctx: Context, outcome: Outcome[None], saved: PersonOne) -> None: ...

    @timer
    def tick(self, ctx: Context, saved: nat32) -> None: ...


def saved(hint: object) -> bytes:
    return type_number(type_of(hint)) + b"value"


def fits(
    cls: type[Canister], continuations: list[tuple[str, bytes]], timers: list[tuple[str, bytes]]
) -> None:
    known = {
        type_number(type_of(h)): encode_type(type_of(h)) for h in (PersonOne, PersonTwo, nat32, nat64, str)
    }
    check_in_flight(manifest(cls), continuations, timers, known.get)


def test_calls_in_flight_and_timers_must_be_served() -> None:
    fits(
        Flying,
        [("plain", b""), ("saving", saved(PersonOne)), ("cannery.forward", saved(str))],
        [("tick", saved(nat32))],
    )
    fits(Flying, [("plain", saved(PersonTwo))], [])
    for open_calls, open_timers, text in [
        ([("gone", b"")], [], "the continuation 'gone' is in flight and the module lacks it"),
        ([("saving", b"")], [], "'saving' in flight cannot be read: none was saved"),
        ([("saving", saved(PersonTwo))], [], "'saving' in flight cannot be read: .*age"),
        ([("saving", b"12345678")], [], "is not known"),
        ([], [("gone", b"")], "the timer 'gone' is in flight"),
        ([], [("tick", saved(nat64))], "'tick' in flight cannot be read"),
    ]:
        with pytest.raises(SchemaError, match=text):
            fits(Flying, open_calls, open_timers)


def test_a_saved_value_of_an_older_type_is_read_as_the_new_one() -> None:
    class Later(Canister):
        seen = StableLog(str)

        @continuation
        def saving(self, ctx: Context, outcome: Outcome[None], saved: PersonFive) -> None:
            self.seen.append(repr(saved))

        @query
        def look(self, ctx: Context) -> list[str]:
            return list(self.seen)

    driver = Driver(Later)
    old = type_of(PersonOne)
    driver.canister.types[type_number(old)] = encode_type(old)
    data: ValueCodec[PersonOne] = ValueCodec("old", old)
    driver.activation(
        EntryKind.CONTINUATION,
        "saving",
        outcome=CallOutcome(b"DIDL\0\0"),
        saved=data.write(PersonOne("Ann", 3)),
    )
    assert driver.query("look") == ["PersonFive(name='Ann', age=3)"]


# --- the law: any chain of compatible versions reads all old data --------------------------------------

FIELDS = ("alpha", "beta", "gamma", "delta")
CASES = ("one", "two", "three")


@st.composite
def chains(draw: st.DrawFn) -> list[ct.Type]:
    """Some chain: optional fields come, required ones turn optional, some go and return, cases are added."""
    required = draw(st.lists(st.sampled_from(FIELDS), min_size=1, unique=True))
    fields: dict[str, ct.Type] = {
        name: draw(st.sampled_from([ct.Nat(), ct.Text(), ct.Bool()])) for name in required
    }
    cases = draw(st.integers(1, 2))
    gone: dict[str, ct.Type] = {}
    chain = []
    for _ in range(draw(st.integers(1, 5))):
        kind = ct.variant_of({case: ct.Null() for case in CASES[:cases]})
        chain.append(ct.record_of({**fields, "kind": kind, "list": ct.Vec(ct.Nat())}))
        step = draw(st.sampled_from(["add", "loosen", "widen", "case", "drop"]))
        name = draw(st.sampled_from(FIELDS))
        if step == "add" and name not in fields:
            before = gone.get(name, ct.Text())
            fields[name] = before if isinstance(before, ct.Opt) else ct.Opt(before)
        elif step == "loosen" and name in fields and not isinstance(fields[name], ct.Opt):
            fields[name] = ct.Opt(fields[name])
        elif step == "widen" and fields.get(name) == ct.Nat():
            fields[name] = ct.Int()
        elif step == "case":
            cases = min(cases + 1, len(CASES))
        elif step == "drop" and name in fields and len(fields) > 1:
            gone[name] = fields.pop(name)
    return chain


def value_of(type_: ct.Type, number: int) -> dict[str, object]:
    """Some value of a version's type."""
    assert isinstance(type_, ct.Record)
    made: dict[str, object] = {}
    for field in type_.fields:
        inner = field.type.inner if isinstance(field.type, ct.Opt) else field.type
        by_type = {ct.Nat(): number, ct.Int(): -number, ct.Text(): f"t{number}", ct.Bool(): bool(number % 2)}
        if isinstance(inner, ct.Variant):
            made[field.label] = Variant(inner.fields[number % len(inner.fields)].label)
        elif isinstance(inner, ct.Vec):
            made[field.label] = [number]
        else:
            made[field.label] = by_type[inner]
    return made


@settings(deadline=None)
@given(chains())
def test_any_chain_of_compatible_versions_reads_all_old_data(chain: list[ct.Type]) -> None:
    written: dict[int, dict[str, object]] = {}
    canister = None
    for number, type_ in enumerate(chain):
        hint: Any = Annotated[dict, type_]  # a Candid type as a hint

        class Version(Canister):
            things = StableMap(nat64, hint)
            book = StableLog(hint)

        program = PythonProgram(Version)
        if canister is None:
            canister = MemoryCanister()
        canister.learn(program)
        system = MemorySystem(canister, EntryKind.UPDATE)
        instance = Version()
        instance.__dict__[SYSTEM_ATTRIBUTE] = system
        instance.things.put(number, value_of(type_, number))
        instance.book.append(value_of(type_, number))
        written[number] = value_of(type_, number)
        found = dict(instance.things.items())
        assert list(found) == list(written) == [index for index, _ in instance.book.items()]
        assert list(instance.book) == list(found.values())
        for index, old in written.items():
            assert isinstance(type_, ct.Record)
            for field in type_.fields:
                # A value stays as it was written: a field that a version left out is read by a later one.
                assert found[index][field.label] == old.get(field.label)
        system._keep()


@variant
class Mood(Variant):
    happy: Case[None]


def test_field_names_stand_in_the_manifest() -> None:
    class Named(Canister):
        moods = StableMap(str, Mood)
        people = StableLog(PersonThree)

    assert manifest(Named).field_names == ("age", "email", "happy", "name")
