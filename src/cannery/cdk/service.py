"""Typed interfaces of other canisters: `Ledger(principal).deposit(5)` is a `Call` for `ctx.call`.

Candid specification, section "Services". Only what an author wants to call needs to stand in the class.
Nothing is sent here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Concatenate, ParamSpec, TypeVar, overload

from cannery.candid import types as ct
from cannery.candid.codec import encoder
from cannery.cdk.calls import Call, Encode, encode_arguments
from cannery.cdk.hints import (
    DeclarationError,
    candid_type,
    enclosing_names,
    method_hints,
    parameters_of,
    result_types,
)
from cannery.protocol.principal import Principal

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S", bound="Service")

Types = tuple[ct.Type, ...]


class Service:
    """Subclass it and declare methods with `@method`; an instance stands for one canister."""

    _names: dict[str, object]

    def __init_subclass__(cls) -> None:
        cls._names = enclosing_names()

    def __init__(self, canister: Principal) -> None:
        self.canister = canister


@overload
def method(function: Callable[Concatenate[S, P], R], /) -> Callable[Concatenate[S, P], Call[R]]: ...
@overload
def method(
    *, name: str
) -> Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], Call[R]]]: ...
def method(
    function: Callable[Concatenate[S, P], R] | None = None, /, *, name: str | None = None
) -> (
    Callable[Concatenate[S, P], Call[R]]
    | Callable[[Callable[Concatenate[S, P], R]], Callable[Concatenate[S, P], Call[R]]]
):
    """Declare a method of another canister by its type hints.

    The body is `...` and never runs; docs/canisters.md, "Calls", says what type checkers think of that.
    """
    if function is not None:
        return _caller(function, function.__name__)
    return lambda f: _caller(f, name or f.__name__)


def _caller(function: Callable[Concatenate[S, P], R], name: str) -> Callable[Concatenate[S, P], Call[R]]:
    where = function.__qualname__
    parameter_names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
    known: list[tuple[Encode, Types]] = []

    def make_call(self: S, /, *args: P.args, **kwargs: P.kwargs) -> Call[R]:
        if not known:
            # Hints are resolved at the first call, when every class of the module is there.
            types, results = _signature(function, where, type(self)._names)
            known.append((encoder(types), results))
        encode, results = known[0]
        values = list(args)
        for parameter in parameter_names[len(values) :]:
            if parameter not in kwargs:
                raise TypeError(f"{where}: argument {parameter!r} is missing")
            values.append(kwargs[parameter])
        if len(kwargs) + len(args) != len(parameter_names):
            raise TypeError(f"{where} takes {', '.join(parameter_names) or 'nothing'}")
        return Call(self.canister.raw, name, encode_arguments(where, encode, values), results)

    make_call.__name__ = function.__name__
    make_call.__qualname__ = where
    make_call.__doc__ = function.__doc__
    return make_call


def _signature(function: Callable[..., object], where: str, names: dict[str, object]) -> tuple[Types, Types]:
    hints = method_hints(function, where, names)
    types = []
    for parameter in parameters_of(function, hints, where):
        if not parameter.hinted:
            raise DeclarationError(f"{where}: parameter {parameter.name!r} has no type hint")
        types.append(candid_type(parameter.hint, f"{where}, parameter {parameter.name!r}"))
    if "return" not in hints:
        raise DeclarationError(f"{where}: the return hint is missing; write '-> None' for no result")
    return tuple(types), result_types(hints["return"], where)
