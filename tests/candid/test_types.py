"""Types as values: numbers of names, order of fields, equality, labels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from tests.candid.strategies import types


@pytest.mark.parametrize(
    ("name", "number"),
    [("", 0), ("a", 97), ("foo", 5097222), ("bar", 4895187), ("head", 1158359328), ("☃", 11272781)],
)
def test_known_hashes(name: str, number: int) -> None:
    assert ct.field_hash(name) == number


@given(st.text(max_size=12))
def test_hash_is_the_sum_of_the_specification(name: str) -> None:
    raw = name.encode("utf-8", "surrogatepass")
    k = len(raw) - 1
    assert ct.field_hash(name) == sum(byte * 223 ** (k - i) for i, byte in enumerate(raw)) % 2**32


def test_fields_are_sorted_by_number_whatever_their_order() -> None:
    one = ct.record_of({"b": ct.Nat(), "a": ct.Text()})
    other = ct.record_of({"a": ct.Text(), "b": ct.Nat()})
    assert one == other
    assert hash(one) == hash(other)
    assert [f.label for f in one.fields] == ["a", "b"]


def test_numbers_of_fields_are_unique_and_below_2_to_the_32() -> None:
    with pytest.raises(CandidError, match="have number 97"):
        ct.Record((ct.Field.named("a", ct.Nat()), ct.Field(97, None, ct.Nat())))
    with pytest.raises(CandidError, match="2\\^32"):
        ct.Variant((ct.Field(2**32, None, ct.Nat()),))


def test_methods_are_unique_and_modes_are_known() -> None:
    with pytest.raises(CandidError, match="twice"):
        ct.Service((("a", ct.Func()), ("a", ct.Func())))
    with pytest.raises(CandidError, match="modes"):
        ct.Func((), (), ("qerry",))
    with pytest.raises(CandidError, match="oneway"):
        ct.Func((), (ct.Nat(),), ("oneway",))
    assert ct.Func((), (), ("query",)).is_query
    assert not ct.Func().is_query


def test_names_of_arguments_only_document() -> None:
    assert ct.Func((ct.Nat(),), (), (), ("x",)) == ct.Func((ct.Nat(),), (), (), ("y",))


@given(
    st.text(max_size=6)
    | st.sampled_from(["_1_", "_01_", '"_1_"', '""', "_99999999999_", '"', "_4294967296_"])
)
def test_a_label_names_its_field(name: str) -> None:
    field = ct.Field.named(name, ct.Nat())
    assert ct.field_of_label(field.label, ct.Nat()).id == field.id


def test_labels_of_numbers_and_names_are_distinct() -> None:
    assert ct.Field(7, None, ct.Nat()).label != ct.Field.named("_7_", ct.Nat()).label


def test_tuples() -> None:
    assert ct.tuple_record(ct.Nat(), ct.Text()).is_tuple
    assert not ct.record_of({}).is_tuple
    assert not ct.record_of({"_1_": ct.Nat()}).is_tuple


@given(types)
def test_types_are_hashable_values(t: ct.Type) -> None:
    assert hash(t) == hash(ct.map_children(t, lambda inner: inner))
    assert t == ct.map_children(t, lambda inner: inner)


def test_an_undefined_name_is_an_error() -> None:
    with pytest.raises(CandidError, match="not defined"):
        ct.Env({})["x"]
