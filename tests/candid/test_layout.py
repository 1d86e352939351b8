"""The printer: what fits stands on one line, what does not is broken at every separator."""

from __future__ import annotations

from cannery.candid.layout import HARD_LINE, enclose, join, render


def test_a_group_stands_on_one_line_if_it_fits_with_what_follows() -> None:
    doc = join(enclose("{", ["aa", "bb"], ";", "}", space=" "), ";")
    assert render(doc, 11) == "{ aa; bb };"
    assert render(doc, 10) == "{\n  aa;\n  bb;\n};"


def test_the_separator_before_a_line_end_must_fit_too() -> None:
    inner = enclose("[", ["aaaa"], "", "]", space=" ")
    outer = enclose("{", [inner, "b" * 20], ";", "}", space=" ")
    assert render(outer, 24) == "{\n  [ aaaa ];\n  " + "b" * 20 + ";\n}"
    last = enclose("{", ["b" * 20, inner], ";", "}", space=" ")
    assert render(last, 11).endswith("  [ aaaa ];\n}")
    assert render(last, 10).endswith("  [\n    aaaa\n  ];\n}")


def test_brackets_without_items_stay_together() -> None:
    assert render(enclose("(", [], ",", ")"), 1) == "()"


def test_a_line_end_breaks_every_group_around_it() -> None:
    doc = enclose("{", [enclose("[", [join("a", HARD_LINE, "b")], ",", "]")], ";", "}", space=" ")
    assert render(doc, 80) == "{\n  [\n    a\n    b,\n  ];\n}"
