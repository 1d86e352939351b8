"""What commands print: safe on a terminal, valid as JSON."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.cli.output import bar, columns, complain, format_size, format_time, printable, to_json
from cannery.protocol.principal import MANAGEMENT

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(),
    st.binary(),
    st.just(MANAGEMENT),
    st.just(FuncRef(MANAGEMENT, "m")),
    st.just(ServiceRef(MANAGEMENT)),
)
values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner),
        st.tuples(inner),
        st.dictionaries(st.text(), inner),
        inner.map(Some),
        st.builds(Variant, st.text(), inner),
    ),
    max_leaves=10,
)


@given(values)
def test_every_candid_value_is_json(value: object) -> None:
    text = json.dumps(to_json(value), allow_nan=False)
    assert json.loads(text) == to_json(value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2**53, 2**53),
        (2**53 + 1, str(2**53 + 1)),
        (b"\x01\xff", "01ff"),
        (MANAGEMENT, "aaaaa-aa"),
        (Variant("ok", 3), {"ok": 3}),
        (Some(None), [None]),
        ((1, "x"), [1, "x"]),
        ({"a": b""}, {"a": ""}),
    ],
)
def test_how_values_look_in_json(value: object, expected: object) -> None:
    assert to_json(value) == expected


@given(st.text())
def test_foreign_text_cannot_move_the_cursor(text: str) -> None:
    shown = printable(text)
    assert all(char.isprintable() or char == "\t" for char in shown)


def test_a_line_end_inside_a_message_is_shown() -> None:
    assert printable("a\nb\x1b[2J") == "a\\nb\\x1b[2J"


def test_a_complaint_is_one_bounded_line(capsys: pytest.CaptureFixture[str]) -> None:
    complain("two:\nlines\nmore \x1b[2J" + "x" * 1_000_000)
    error = capsys.readouterr().err
    assert error.startswith("cannery: two: lines; more \\x1b[2Jxxx")
    assert error.count("\n") == 1
    assert len(error) < 2_100


def test_columns_align() -> None:
    assert list(columns([("a", "long", "x"), ("bbb", "s", "")])) == ["a    long  x", "bbb  s"]
    assert list(columns([])) == []


def test_times_and_sizes() -> None:
    assert format_time(1_800_000_000_000_000_000) == "2027-01-15 08:00:00Z"
    assert [format_size(size) for size in (0, 1023, 1024, 5 * 1024**2, 3 * 1024**4)] == [
        "0 B",
        "1023 B",
        "1.0 KB",
        "5.0 MB",
        "3072.0 GB",
    ]


@pytest.mark.parametrize(
    ("done", "in_all", "expected"),
    [
        (0, 10, "[....................]   0%"),
        (5, 10, "[##########..........]  50%"),
        (10, 10, "[####################] 100%"),
        (0, 0, "[####################] 100%"),
        (11, 10, "[####################] 100%"),
    ],
)
def test_a_bar_shows_how_much_is_done(done: int, in_all: int, expected: str) -> None:
    assert bar(done, in_all) == expected
