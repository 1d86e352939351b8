"""Canister classes that are not declared as they must be are refused with the place and what to do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    StableCell,
    StableMap,
    continuation,
    health,
    init,
    inspect_message,
    nat64,
    pre_upgrade,
    query,
    timer,
    update,
)
from cannery.cdk.describe import describe
from cannery.cdk.hints import DeclarationError


def no_hint() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context, x) -> nat64:  # type: ignore[no-untyped-def]
            return 0

    return A


def no_return() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context):  # type: ignore[no-untyped-def]
            return 0

    return A


def no_ctx() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, x: nat64) -> nat64:
            return 0

    return A


def bad_type() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context, x: complex) -> nat64:
            return 0

    return A


def unknown_name() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context, x: Unknown) -> nat64:  # type: ignore[name-defined]  # noqa: F821
            return 0

    return A


def default() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context, x: nat64 = 3) -> nat64:
            return 0

    return A


def stars() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context, *x: nat64) -> nat64:
            return 0

    return A


def same_name() -> type[Canister]:
    class A(Canister):
        @query(name="n")
        def m(self, ctx: Context) -> nat64:
            return 0

        @query
        def n(self, ctx: Context) -> nat64:
            return 0

    return A


def two_inits() -> type[Canister]:
    class A(Canister):
        @init
        def a(self, ctx: Context) -> None: ...

        @init
        def b(self, ctx: Context) -> None: ...

    return A


def mutable_attribute() -> type[Canister]:
    class A(Canister):
        cache: dict[str, str] = {}  # noqa: RUF012

    return A


def own_init() -> type[Canister]:
    class A(Canister):
        def __init__(self) -> None: ...

    return A


def query_later() -> type[Canister]:
    class A(Canister):
        @query
        def m(self, ctx: Context) -> Pending[nat64]:
            raise NotImplementedError

    return A


def other_later() -> type[Canister]:
    class A(Canister):
        @update
        def m(self, ctx: Context) -> nat64 | Pending[str]:
            return 0

    return A


def bare_pending() -> type[Canister]:
    class A(Canister):
        @update
        def m(self, ctx: Context) -> Pending:  # type: ignore[type-arg]
            raise NotImplementedError

    return A


def oneway_result() -> type[Canister]:
    class A(Canister):
        @update(oneway=True)
        def m(self, ctx: Context) -> nat64:
            return 0

    return A


def continuation_shape() -> type[Canister]:
    class A(Canister):
        @continuation
        def c(self, ctx: Context) -> None: ...

    return A


def continuation_outcome() -> type[Canister]:
    class A(Canister):
        @continuation
        def c(self, ctx: Context, outcome: nat64) -> None: ...

    return A


def timer_shape() -> type[Canister]:
    class A(Canister):
        @timer
        def t(self, ctx: Context, a: nat64, b: nat64) -> None: ...

    return A


def timer_result() -> type[Canister]:
    class A(Canister):
        @timer
        def t(self, ctx: Context) -> nat64:  # type: ignore[type-var]
            return 0

    return A


def hook_arguments() -> type[Canister]:
    class A(Canister):
        @pre_upgrade
        def p(self, ctx: Context, a: nat64) -> None: ...

    return A


def health_result() -> type[Canister]:
    class A(Canister):
        @health
        def h(self, ctx: Context) -> nat64:
            return 0

    return A


def inspect_result() -> type[Canister]:
    class A(Canister):
        @inspect_message
        def i(self, ctx: Context) -> None: ...

    return A


CASES: list[tuple[Callable[[], type[Canister]], str]] = [
    (no_hint, r"A\.m: parameter 'x' has no type hint"),
    (no_return, r"A\.m: the return hint is missing; write '-> None' for no result"),
    (no_ctx, r"A\.m: the parameter after self is 'ctx: Context'"),
    (bad_type, r"A\.m, parameter 'x': .*complex"),
    (unknown_name, r"A\.m: a type hint cannot be resolved: name 'Unknown'"),
    (default, r"A\.m: parameter 'x' has a default"),
    (stars, r"A\.m: \* and \*\* parameters"),
    (same_name, r"A\.n: the class has two methods with the Candid name 'n'"),
    (two_inits, r"A\.b: the class has two @init methods"),
    (mutable_attribute, r"A\.cache: a dict on the class would be shared and lost"),
    (own_init, r"A\.__init__: a fresh instance serves each message; use @init"),
    (query_later, r"A\.m: a query cannot answer later"),
    (other_later, r"A\.m: Pending\[\.\.\.\] in the return hint has another type"),
    (bare_pending, r"A\.m: write Pending\[T\]"),
    (oneway_result, r"A\.m: a oneway method has no result"),
    (continuation_shape, r"A\.c: a continuation takes \(self, ctx, outcome"),
    (continuation_outcome, r"A\.c: the parameter 'outcome' is an Outcome\[T\]"),
    (timer_shape, r"A\.t: a timer method takes"),
    (timer_result, r"A\.t: nobody waits for a timer"),
    (hook_arguments, r"A\.p: @pre_upgrade takes no arguments"),
    (health_result, r"A\.h: @health returns None or bool"),
    (inspect_result, r"A\.i: @inspect_message returns bool"),
]


@pytest.mark.parametrize(("make", "text"), CASES, ids=[make.__name__ for make, _ in CASES])
def test_a_wrong_declaration_is_refused_with_its_place(make: Callable[[], type[Canister]], text: str) -> None:
    with pytest.raises(DeclarationError, match=text):
        describe(make())


def test_a_class_that_is_no_canister_is_refused() -> None:
    for wrong in (int, Canister, 3):
        with pytest.raises(DeclarationError, match="no subclass of Canister"):
            describe(wrong)  # type: ignore[arg-type]


def test_a_method_is_decorated_once() -> None:
    with pytest.raises(TypeError, match="m has two roles"):

        class A(Canister):
            @query
            @update
            def m(self, ctx: Context) -> None: ...


def test_what_never_changes_may_stand_on_the_class() -> None:
    class A(Canister):
        LIMIT = 3
        NAMES = ("a", "b")
        KINDS = frozenset({1})

        def plain(self) -> int:
            return self.LIMIT

    assert describe(A).methods == {}


def test_methods_and_collections_are_inherited() -> None:
    class Counting(Canister):
        count = StableCell(nat64, 0)

        @update
        def add(self, ctx: Context) -> nat64:
            self.count.value += 1
            return self.count.get()

    class Named(Counting):
        names = StableMap(str, nat64)

        @continuation
        def c(self, ctx: Context, outcome: Outcome[None]) -> None: ...

    description = describe(Named)
    assert list(description.methods) == ["add"]
    assert [c.name for c in description.collections] == ["count", "names"]
    assert list(description.continuations) == ["c"]
