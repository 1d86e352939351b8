"""Python hints as Candid types.

Candid specification, section "Data"; the table of hints stands in `type_of`. Classes come from `record`; the
way back, from an interface to Python source, is `hints_source`. Nothing here encodes.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, NoReturn, TypeVar

from cannery.candid import types as ct
from cannery.candid.binding import BINDING_ATTRIBUTE
from cannery.candid.errors import CandidError
from cannery.candid.keywords import KEYWORDS
from cannery.candid.python_source import hints_source
from cannery.candid.record import (
    CASES_ATTRIBUTE,
    NAMESPACE_ATTRIBUTE,
    Case,
    case,
    field,
    field_labels,
    record,
    variant,
)
from cannery.candid.values import FuncRef, ServiceRef, Some, Variant
from cannery.limits import CANDID_CODEC_CACHE_COUNT_MAX, CANDID_TYPE_DEPTH_LEVELS_MAX
from cannery.protocol.principal import Principal

__all__ = [
    "Case",
    "FuncOf",
    "FuncRef",
    "Principal",
    "Results",
    "ServiceOf",
    "ServiceRef",
    "Signature",
    "Some",
    "Variant",
    "bind",
    "case",
    "empty",
    "field",
    "float32",
    "func_of",
    "hints_source",
    "int8",
    "int16",
    "int32",
    "int64",
    "nat",
    "nat8",
    "nat16",
    "nat32",
    "nat64",
    "record",
    "reserved",
    "service_of",
    "type_of",
    "variant",
]

T = TypeVar("T")

nat = Annotated[int, ct.Nat()]
nat8 = Annotated[int, ct.Nat8()]
nat16 = Annotated[int, ct.Nat16()]
nat32 = Annotated[int, ct.Nat32()]
nat64 = Annotated[int, ct.Nat64()]
int8 = Annotated[int, ct.Int8()]
int16 = Annotated[int, ct.Int16()]
int32 = Annotated[int, ct.Int32()]
int64 = Annotated[int, ct.Int64()]
float32 = Annotated[float, ct.Float32()]
reserved = Annotated[None, ct.Reserved()]
empty = Annotated[NoReturn, ct.Empty()]


@dataclass(frozen=True, slots=True)
class _ManyResults:
    """Marks a tuple as several results instead of one."""


Results = Annotated[T, _ManyResults()]
"""`-> Results[tuple[X, Y]]` has two results; `-> tuple[X, Y]` has one, a record of two fields."""


@dataclass(frozen=True, slots=True)
class FuncOf:
    """The type of a method in hints; see `func_of`."""

    args: tuple[object, ...]
    results: tuple[object, ...]
    modes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ServiceOf:
    """An interface in hints; see `service_of`."""

    methods: tuple[tuple[str, FuncOf], ...]


def func_of(args: tuple[object, ...], results: tuple[object, ...], *modes: str) -> FuncOf:
    """Say which method a reference refers to: `Annotated[FuncRef, func_of((str,), (nat64,), "query")]`."""
    return FuncOf(args, results, modes)


def service_of(methods: Mapping[str, FuncOf]) -> ServiceOf:
    """Say which interface a reference refers to: `Annotated[ServiceRef, service_of({"get":
    func_of(...)})]`."""
    return ServiceOf(tuple(methods.items()))


@dataclass(frozen=True, slots=True)
class Signature:
    """What a Python function takes and gives in Candid."""

    arg_names: tuple[str, ...]
    args: tuple[ct.Type, ...]
    results: tuple[ct.Type, ...]

    def func(self, *modes: str) -> ct.Func:
        """Return the type of a method with this signature and these modes."""
        return ct.Func(self.args, self.results, modes, self.arg_names)


_PLAIN: dict[object, ct.Type] = {
    None: ct.Null(),
    type(None): ct.Null(),
    bool: ct.Bool(),
    int: ct.Int(),
    float: ct.Float64(),
    str: ct.Text(),
    bytes: ct.BLOB,
    Principal: ct.PrincipalType(),
    FuncRef: ct.Func(),
    ServiceRef: ct.Service(),
    NoReturn: ct.Empty(),
    typing.Never: ct.Empty(),
}


def type_of(hint: object, namespace: Mapping[str, object] | None = None) -> ct.Type:
    """Return the closed Candid type of a Python hint.

    `bool`, `int`, `nat`, `nat8` to `nat64`, `int8` to `int64`, `float` (float64), `float32`, `str` (text),
    `bytes` (blob), `None` (null), `Principal`, `reserved`, `empty`; `X | None` (opt X), `Some[X] | None` (opt
    X where X is nullable itself); `list[X]` (vec X), `tuple[X, Y]` (record { X; Y }), `dict[K, V]` (vec
    record { K; V }); classes of `@record` and `@variant`; `FuncRef`, `ServiceRef`; `Annotated[X, t]` with a
    Candid type `t`. Text is looked up in `namespace`. Raise `CandidError` for anything else.
    """
    if namespace is None:
        try:
            return _type_of(hint)
        except TypeError:
            raise CandidError(f"{hint!r} is no hint for a Candid type") from None
    return _Resolver(None).resolve(hint, namespace, 0)


def bind(
    function: Callable[..., object], skip: int = 0, namespace: Mapping[str, object] | None = None
) -> Signature:
    """Read the hints of a function as the signature of a method.

    The first `skip` parameters (such as `self` and `ctx`) are left out. `-> None` has no results, `->
    Results[tuple[X, Y]]` has two, any other hint is one. Names are looked up in the function's module, and
    before that in `namespace`.
    """
    names = {**getattr(function, "__globals__", {}), **(namespace or {})}
    parameters = list(inspect.signature(function).parameters.values())[skip:]
    hints = inspect.get_annotations(inspect.unwrap(function))
    for parameter in parameters:
        if parameter.kind not in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            raise CandidError(f"{function.__qualname__}: parameter {parameter.name} is not positional")
        if parameter.name not in hints:
            raise CandidError(f"{function.__qualname__}: parameter {parameter.name} has no hint")
    if "return" not in hints:
        raise CandidError(f"{function.__qualname__}: the result has no hint; write -> None for none")
    args = []
    for parameter in parameters:
        where = f"{function.__qualname__}: parameter {parameter.name}"
        args.append(_resolve_at(where, hints[parameter.name], names))
    results = [
        _resolve_at(f"{function.__qualname__}: result", hint, names)
        for hint in _results(hints["return"], names)
    ]
    return Signature(tuple(p.name for p in parameters), tuple(args), tuple(results))


def _resolve_at(where: str, hint: object, names: Mapping[str, object]) -> ct.Type:
    try:
        return _Resolver(None).resolve(hint, names, 0)
    except CandidError as error:
        raise CandidError(f"{where}: {error}") from None


def _results(hint: object, names: Mapping[str, object]) -> tuple[object, ...]:
    hint = _evaluate(hint, names)
    if hint is None or hint is type(None):
        return ()
    if any(isinstance(mark, _ManyResults) for mark in getattr(hint, "__metadata__", ())):
        return typing.get_args(typing.get_args(hint)[0])
    return (hint,)


def _evaluate(hint: object, names: Mapping[str, object]) -> object:
    """Look up hints that are given as text."""
    while isinstance(hint, (str, typing.ForwardRef)):
        text = hint if isinstance(hint, str) else hint.__forward_arg__
        try:
            hint = eval(text, {}, dict(names))
        except (NameError, SyntaxError, TypeError, AttributeError) as error:
            raise CandidError(f"hint {text!r} cannot be read: {error}") from None
    return hint


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def _type_of(hint: object) -> ct.Type:
    return _Resolver(None).resolve(hint, {}, 0)


@lru_cache(maxsize=CANDID_CODEC_CACHE_COUNT_MAX)
def _class_type(cls: type) -> ct.Rec:
    """Return the closed type of a decorated class, with the definitions of all classes it refers to."""
    resolver = _Resolver({})
    name = resolver.class_name(cls)
    resolver.run()
    return ct.Rec(name, ct.Env(resolver.definitions))


class _Resolver:
    """Turns hints into types; inside a class, other classes become references by name."""

    def __init__(self, names: dict[object, str] | None) -> None:
        self.names = names
        self.definitions: dict[str, ct.Type] = {}
        self.todo: list[type] = []

    def class_name(self, cls: type) -> str:
        """Return the name of a class among the definitions, and queue it where it is new."""
        assert self.names is not None
        if cls not in self.names:
            wanted = cls.__name__ + ("_" if cls.__name__ in KEYWORDS else "")
            name, number = wanted, 1
            while name in self.names.values():
                number += 1
                name = f"{wanted}_{number}"
            self.names[cls] = name
            self.todo.append(cls)
        return self.names[cls]

    def run(self) -> None:
        """Define all classes that are queued."""
        assert self.names is not None
        while self.todo:
            cls = self.todo.pop()
            self.definitions[self.names[cls]] = self.class_body(cls)

    def class_body(self, cls: type) -> ct.Type:
        namespace = cls.__dict__[NAMESPACE_ATTRIBUTE]
        hints = inspect.get_annotations(cls)
        fields = []
        for attribute, label in field_labels(cls).items():
            try:
                fields.append(ct.field_of_label(label, self.resolve(hints[attribute], namespace, 0)))
            except CandidError as error:
                raise CandidError(f"{cls.__qualname__}.{attribute}: {error}") from None
        if CASES_ATTRIBUTE in cls.__dict__:
            return ct.Variant(tuple(fields), cls)
        return ct.Record(tuple(fields), cls)

    def resolve(self, hint: object, namespace: Mapping[str, object], depth: int) -> ct.Type:
        """Return the type of one hint."""
        if depth > CANDID_TYPE_DEPTH_LEVELS_MAX:
            raise CandidError(
                "a hint is nested without end: let a recursive type be a @record or @variant class"
            )
        hint = _evaluate(hint, namespace)
        plain = _PLAIN.get(hint) if hint is None or isinstance(hint, type) else None
        if plain is None and hint in (NoReturn, typing.Never):
            plain = ct.Empty()
        if plain is not None:
            return plain
        if isinstance(hint, type) and BINDING_ATTRIBUTE in hint.__dict__ and hint is not Variant:
            return _class_type(hint) if self.names is None else ct.Ref(self.class_name(hint))
        origin, args = typing.get_origin(hint), typing.get_args(hint)
        if origin is Annotated:
            return self.annotated(hint, namespace, depth)
        if origin in (typing.Union, types.UnionType):
            return self.union(args, namespace, depth)
        if origin is Case:
            return self.resolve(args[0], namespace, depth)
        return self.generic(hint, origin, args, namespace, depth)

    def annotated(self, hint: object, namespace: Mapping[str, object], depth: int) -> ct.Type:
        for mark in getattr(hint, "__metadata__", ()):
            if isinstance(mark, typing.get_args(ct.Type)):
                return typing.cast(ct.Type, mark)  # the line above says so
            if isinstance(mark, FuncOf):
                return self.func(mark, namespace, depth)
            if isinstance(mark, ServiceOf):
                methods = tuple((name, self.func(f, namespace, depth)) for name, f in mark.methods)
                return ct.Service(methods)
        return self.resolve(typing.get_args(hint)[0], namespace, depth + 1)

    def func(self, mark: FuncOf, namespace: Mapping[str, object], depth: int) -> ct.Func:
        args = tuple(self.resolve(hint, namespace, depth + 1) for hint in mark.args)
        results = tuple(self.resolve(hint, namespace, depth + 1) for hint in mark.results)
        return ct.Func(args, results, mark.modes)

    def union(self, args: tuple[object, ...], namespace: Mapping[str, object], depth: int) -> ct.Type:
        inner = [arg for arg in args if arg is not type(None)]
        if len(inner) != 1 or len(args) != 2:
            raise CandidError("a union other than X | None is no Candid type: use a @variant class")
        content = _evaluate(inner[0], namespace)
        if typing.get_origin(content) is Some:
            t = self.resolve(typing.get_args(content)[0], namespace, depth + 1)
            if not _is_nullable(t):
                raise CandidError("Some[X] | None is for an X that may be None itself: write X | None")
            return ct.Opt(t)
        t = self.resolve(content, namespace, depth + 1)
        if _is_nullable(t):
            raise CandidError("X | None where X may be None itself is ambiguous: write Some[X] | None")
        return ct.Opt(t)

    def generic(
        self,
        hint: object,
        origin: object,
        args: tuple[object, ...],
        namespace: Mapping[str, object],
        depth: int,
    ) -> ct.Type:
        inner = [self.resolve(arg, namespace, depth + 1) for arg in args if arg is not ...]
        if origin is list and len(inner) == 1:
            if inner[0] == ct.Nat8():
                raise CandidError("list[nat8] is a blob, whose Python form is bytes: write bytes")
            return ct.Vec(inner[0])
        if origin is tuple and inner and ... not in args:
            return ct.tuple_record(*inner)
        if origin is dict and len(inner) == 2:
            if isinstance(inner[0], ct.Vec) and inner[0] != ct.BLOB:
                raise CandidError("a list cannot be the key of a dict")
            return ct.Vec(ct.tuple_record(*inner), dict)
        raise CandidError(f"{_show(hint)} is no hint for a Candid type{_advice(hint, origin)}")


def _is_nullable(t: ct.Type) -> bool:
    return isinstance(t, (ct.Null, ct.Opt, ct.Reserved))


def _advice(hint: object, origin: object) -> str:
    """Say what to write instead of a hint, where that is plain."""
    if hint in (list, dict, tuple) or origin in (list, dict, tuple):
        return ": give the types of its items, as in list[str], tuple[str, nat64] or dict[str, nat64]"
    if hint in (set, frozenset) or origin in (set, frozenset):
        return ": use list[...]"
    if isinstance(hint, type) and hint.__module__ != "builtins":
        return ": decorate the class with @record or @variant"
    return ""


def _show(hint: object) -> str:
    return hint.__qualname__ if isinstance(hint, type) else repr(hint)
