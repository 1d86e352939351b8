"""`@record` and `@variant`: Python classes whose instances are values of Candid records and variants.

Candid specification, sections "Records" and "Variants". A record is a frozen dataclass with slots: in Python
its fields keep the order of their declaration, on the wire they go by the hash of their names.

A variant is declared by its cases, and made by calling them:

    @variant
    class Outcome(Variant):
        ok: Case[nat64]
        full: Case[None]
        refused: Case[str]

    done = Outcome.ok(3)
    match done.tag:
        case "ok":
            print(done.ok + 1)      # the value of the case that it is, with the type of the hint

Hints are resolved when a type is first asked for (`hints.type_of`), so that classes may refer to themselves
and to later ones; here nothing looks at them.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Generic, TypeVar, dataclass_transform, overload

from cannery.candid.binding import bind_class
from cannery.candid.errors import CandidError
from cannery.candid.values import Variant

T = TypeVar("T")
V = TypeVar("V")

NAMESPACE_ATTRIBUTE = "__candid_namespace__"
"""Class attribute with the names that are visible where a decorated class stands."""
CASES_ATTRIBUTE = "__candid_cases__"
"""Class attribute with the cases of a variant class: attribute to label, in the order of declaration."""
_NAME_KEY = "candid_name"
_SLOT_NAMES = frozenset({"tag", "value"})


@overload
def field(*, name: str | None = None) -> T: ...  # type: ignore[type-var]  # T is what the hint says
@overload
def field(*, name: str | None = None, default: T) -> T: ...
def field(*, name: str | None = None, default: object = dataclasses.MISSING) -> object:
    """Give a field of a record its Candid name, where that is no Python identifier, or a default."""
    metadata = {} if name is None else {_NAME_KEY: name}
    if default is dataclasses.MISSING:
        return dataclasses.field(metadata=metadata)
    return dataclasses.field(default=default, metadata=metadata)


@dataclass_transform(frozen_default=True, field_specifiers=(field, dataclasses.field))
def record(cls: type[T]) -> type[T]:
    """Make a class with annotated fields a Candid record: immutable, compared and hashed by its fields.

    A record holds data only, so `__post_init__` is refused: decoders fill fields without calling the class.
    """
    if cls.__bases__ != (object,):
        raise CandidError(f"record {cls.__qualname__} inherits: write its fields out")
    if "__post_init__" in cls.__dict__:
        raise CandidError(f"record {cls.__qualname__} has __post_init__: check values where they are used")
    made = dataclasses.dataclass(frozen=True, slots=True)(cls)
    fields = dataclasses.fields(made)  # type: ignore[arg-type]  # the line above made it a dataclass
    if any(not f.init for f in fields):
        raise CandidError(f"record {cls.__qualname__} has a field without init=True")
    attributes = {str(f.metadata[_NAME_KEY]): f.name for f in fields if _NAME_KEY in f.metadata}
    bind_class(made, [f.name for f in fields], attributes)
    setattr(made, NAMESPACE_ATTRIBUTE, _namespace_of_caller(made))
    return made


class Case(Generic[T]):
    """A case of a variant class, as a hint (`ok: Case[nat64]`) and as what `Outcome.ok` is.

    On the class it makes instances; on an instance it is the value, or `AttributeError` for another case.
    """

    __slots__ = ("label",)

    def __init__(self, label: str) -> None:
        self.label = label

    @overload
    def __get__(self: Case[None], instance: None, owner: type[V]) -> Callable[[], V]: ...
    @overload
    def __get__(self, instance: None, owner: type[V]) -> Callable[[T], V]: ...
    @overload
    def __get__(self, instance: object, owner: type[V]) -> T: ...
    def __get__(self, instance: object, owner: type[object]) -> object:
        if instance is None:
            label = self.label

            def make(value: object = None) -> object:
                made: Callable[[str, object], object] = owner
                return made(label, value)

            return make
        assert isinstance(instance, Variant)
        if instance.tag != self.label:
            raise AttributeError(f"this {owner.__name__} is {instance.tag!r}, not {self.label!r}")
        return instance.value


def case(*, name: str) -> Case[T]:
    """Give a case of a variant its Candid name, where that is no Python identifier."""
    return Case(name)


def variant(cls: type[T]) -> type[T]:
    """Make a class with annotated cases a Candid variant; let it inherit from `Variant`.

    A case is hinted `Case[X]`, with `Case[None]` for one without value. A plain hint `X` works as well, and
    type checkers then do not know how to call it.
    """
    cases = {}
    for attribute in inspect.get_annotations(cls):
        if attribute in _SLOT_NAMES:
            raise CandidError(
                f"variant {cls.__qualname__} calls a case {attribute!r}: use case(name={attribute!r})"
            )
        given = cls.__dict__.get(attribute)
        cases[attribute] = given.label if isinstance(given, Case) else attribute
    body = {k: v for k, v in cls.__dict__.items() if k not in ("__dict__", "__weakref__")}
    body |= {attribute: Case[object](label) for attribute, label in cases.items()}
    body |= {"__slots__": (), CASES_ATTRIBUTE: cases}
    parents = cls.__bases__ if issubclass(cls, Variant) else (Variant,)
    made = type(cls.__name__, parents, body)
    made.__qualname__ = cls.__qualname__
    bind_class(made, ("tag", "value"), {label: attribute for attribute, label in cases.items()})
    setattr(made, NAMESPACE_ATTRIBUTE, _namespace_of_caller(made))
    return made


def field_labels(cls: type) -> dict[str, str]:
    """Return the label of each attribute of a record or variant class, in the order of declaration."""
    cases = cls.__dict__.get(CASES_ATTRIBUTE)
    if isinstance(cases, dict):
        return dict(cases)
    return {f.name: str(f.metadata.get(_NAME_KEY, f.name)) for f in dataclasses.fields(cls)}


def _namespace_of_caller(cls: type) -> dict[str, object]:
    """Return the names that the decorated class can refer to: those of its module, or of its function so
    far."""
    frame = inspect.currentframe()
    outer = frame.f_back.f_back if frame is not None and frame.f_back is not None else None
    if outer is None:
        return {}
    if outer.f_locals is outer.f_globals:
        return outer.f_globals
    return {**outer.f_globals, **outer.f_locals, cls.__name__: cls}
