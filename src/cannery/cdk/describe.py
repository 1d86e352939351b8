"""Read a canister class once: its methods, hooks, continuations, timers and collections, with clear errors.

Everything else (running, building, the interface text) works on the `Description` made here. No method runs.
"""

from __future__ import annotations

import inspect
import typing
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise

from cannery import limits
from cannery.candid import types as ct
from cannery.cdk.calls import Outcome, RawOutcome
from cannery.cdk.component import Component, Uses, bind_component, components_of
from cannery.cdk.context import Context
from cannery.cdk.declare import NAMESPACE_ATTRIBUTE, Canister, RoleNote, role_of
from cannery.cdk.entries import ContinuationEntry, MethodEntry, TimerEntry
from cannery.cdk.guards import Refuse, bind_guard, check_guard
from cannery.cdk.hints import (
    DeclarationError,
    Parameter,
    candid_type,
    method_hints,
    parameters_of,
    result_types,
    split_pending,
)
from cannery.cdk.manifest import HookName
from cannery.cdk.part import CollectionSpec, InternalHandler, Part
from cannery.cdk.stable_values import ValueCodec
from cannery.cdk.waiter import Continued

HOOKS: tuple[HookName, ...] = ("init", "pre_upgrade", "post_upgrade", "health", "inspect_message")

_MUTABLE = (list, dict, set, bytearray, deque, Counter, OrderedDict)


@dataclass(frozen=True, slots=True)
class Description:
    """A canister class and its components, taken apart; every mapping is in the order of the names.

    `continuation_of` and `timer_of` lead from the author's functions to their entries.
    """

    cls: type[Canister]
    methods: dict[str, MethodEntry]
    hooks: dict[str, MethodEntry]
    continuations: dict[str, ContinuationEntry]
    timers: dict[str, TimerEntry]
    collections: tuple[CollectionSpec, ...]
    internal_continuations: dict[str, InternalHandler]
    internal_timers: dict[str, InternalHandler]
    continuation_of: dict[object, ContinuationEntry]
    timer_of: dict[object, TimerEntry]

    @property
    def inspects(self) -> bool:
        """Whether calls from outside are looked at before they are let in: by a hook, or by guards."""
        guarded = any(m.refuse is not None and m.role != "composite_query" for m in self.methods.values())
        return guarded or "inspect_message" in self.hooks


@dataclass(frozen=True, slots=True)
class _Found:
    """A decorated method or a part, and the class it stands in: the canister's, or a component's."""

    owner: type
    component: type[Component] | None
    attribute: str
    value: typing.Any  # attributes of a class are of any type

    @property
    def where(self) -> str:
        return f"{self.owner.__name__}.{self.attribute}"

    @property
    def inner_name(self) -> str:
        """The name of a continuation or timer."""
        return self.attribute if self.component is None else f"{self.component.prefix}.{self.attribute}"

    def bound(self, function: Callable[..., object]) -> Callable[..., object]:
        """Make a function of the component's one of the canister's."""
        component = self.component
        if component is None:
            return function
        return lambda root, *args: function(bind_component(root, component), *args)


def describe(cls: type[Canister]) -> Description:
    """Describe a canister class; raise DeclarationError for what is not as it must be."""
    if not (isinstance(cls, type) and issubclass(cls, Canister)) or cls is Canister:
        raise DeclarationError(f"{cls!r} is no subclass of Canister")
    roles: list[tuple[_Found, RoleNote]] = []
    parts: list[_Found] = []
    _gather(cls, None, roles, parts)
    for component in components_of(cls):
        _gather(component, component, roles, parts)
    return _assemble(cls, roles, parts)


def _gather(
    owner: type,
    component: type[Component] | None,
    roles: list[tuple[_Found, RoleNote]],
    parts: list[_Found],
) -> None:
    _refuse_init(owner)
    for attribute, value in _attributes(owner):
        found = _Found(owner, component, attribute, value)
        note = role_of(value)
        if note is not None:
            roles.append((found, note))
        elif isinstance(value, Part):
            parts.append(found)
        elif not isinstance(value, Component | Uses):
            _check_attribute(owner, attribute, value)


def _assemble(cls: type[Canister], roles: list[tuple[_Found, RoleNote]], parts: list[_Found]) -> Description:
    methods: dict[str, MethodEntry] = {}
    hooks: dict[str, MethodEntry] = {}
    continuations: dict[str, ContinuationEntry] = {}
    timers: dict[str, TimerEntry] = {}
    for found, note in roles:
        if note.role == "continuation":
            continuations[found.inner_name] = _continuation_entry(found)
        elif note.role == "timer":
            timers[found.inner_name] = _timer_entry(found)
        elif note.role in HOOKS:
            if found.component is not None:
                raise DeclarationError(f"{found.where}: a component has no @{note.role}: the canister has it")
            if note.role in hooks:
                raise DeclarationError(f"{found.where}: the class has two @{note.role} methods")
            hooks[note.role] = _hook_entry(note, found)
        else:
            name = note.name or found.attribute
            if name in methods:
                raise DeclarationError(
                    f"{found.where}: the class has two methods with the Candid name {name!r}"
                )
            methods[name] = _method_entry(name, note, found, cls)
    return Description(
        cls,
        dict(sorted(methods.items())),
        hooks,
        continuations,
        timers,
        _collections(cls, parts),
        {h.name: h for part in parts for h in _handlers(part, part.value.continuations(part.owner))},
        {h.name: h for part in parts for h in _handlers(part, part.value.timers(part.owner))},
        {entry.source: entry for entry in continuations.values()},
        {entry.source: entry for entry in timers.values()},
    )


def _collections(cls: type[Canister], parts: list[_Found]) -> tuple[CollectionSpec, ...]:
    found = sorted((spec for part in parts for spec in part.value.collections()), key=lambda spec: spec.name)
    for before, after in pairwise(found):
        if before.name == after.name:
            raise DeclarationError(f"{cls.__name__}: two collections have the name {after.name!r}")
    return tuple(found)


def _handlers(part: _Found, handlers: tuple[InternalHandler, ...]) -> Iterator[InternalHandler]:
    for handler in handlers:
        yield handler if part.component is None else replace(handler, run=part.bound(handler.run))


def _attributes(cls: type) -> Iterator[tuple[str, typing.Any]]:  # attributes of a class are of any type
    names = sorted(
        {name for base in cls.__mro__ if base not in (object, Canister, Component) for name in vars(base)}
    )
    for name in names:
        if not (name.startswith("__") and name.endswith("__")):
            yield name, inspect.getattr_static(cls, name)


def _refuse_init(cls: type) -> None:
    for base in cls.__mro__:
        if base in (object, Canister, Component):
            continue
        for name in ("__init__", "__new__", "__setattr__", "__getattr__", "__getattribute__", "__slots__"):
            if name in vars(base):
                advice = (
                    "use @init for what happens at installation" if name == "__init__" else "leave it out"
                )
                raise DeclarationError(
                    f"{base.__name__}.{name}: a fresh instance serves each message; {advice}"
                )


def _check_attribute(cls: type, attribute: str, value: object) -> None:
    if isinstance(value, _MUTABLE):
        raise DeclarationError(
            f"{cls.__name__}.{attribute}: a {type(value).__name__} on the class would be shared and lost: "
            "declare a stable collection, or a tuple, frozenset or MappingProxyType for what never changes"
        )


def _after_ctx(found: _Found) -> tuple[list[Parameter], dict[str, object]]:
    function, where = found.value, found.where
    hints = method_hints(function, where, getattr(found.owner, NAMESPACE_ATTRIBUTE))
    parameters = parameters_of(function, hints, where)
    if not parameters or not (
        parameters[0].hint is Context or (parameters[0].name == "ctx" and not parameters[0].hinted)
    ):
        raise DeclarationError(f"{where}: the parameter after self is 'ctx: Context'")
    return parameters[1:], hints


def _argument_types(parameters: list[Parameter], where: str) -> tuple[ct.Type, ...]:
    types = []
    for parameter in parameters:
        if not parameter.hinted:
            raise DeclarationError(f"{where}: parameter {parameter.name!r} has no type hint")
        if parameter.has_default:
            raise DeclarationError(
                f"{where}: parameter {parameter.name!r} has a default, which Candid does not know: "
                "declare it as 'T | None' and decide in the method"
            )
        types.append(candid_type(parameter.hint, f"{where}, parameter {parameter.name!r}"))
    return tuple(types)


def _return_hint(hints: dict[str, object], where: str) -> object:
    if "return" not in hints:
        raise DeclarationError(f"{where}: the return hint is missing; write '-> None' for no result")
    hint = hints["return"]
    return None if hint is type(None) else hint


def _guard_of(name: str, note: RoleNote, found: _Found, cls: type[Canister]) -> Refuse | None:
    """Bind a method's guard to the places where its cells may be: its own class, then the canister's."""
    guard, component = note.only, found.component
    if guard is None:
        return None
    try:
        check_guard(guard)
    except TypeError as error:
        raise DeclarationError(f"{found.where}: only={error}") from None
    places: dict[type, Callable[[object], object]] = {}
    if component is not None:
        places[component] = lambda root: bind_component(root, component)
    places[cls] = lambda root: root
    return bind_guard(guard, name, found.where, places)


def _method_entry(name: str, note: RoleNote, found: _Found, cls: type[Canister]) -> MethodEntry:
    function, where = found.value, found.where
    parameters, hints = _after_ctx(found)
    answer, now, later = split_pending(_return_hint(hints, where), where)
    if later and note.role != "update":
        raise DeclarationError(f"{where}: a {note.role} cannot answer later")
    results = result_types(answer, where)
    if note.role == "oneway" and results:
        raise DeclarationError(f"{where}: a oneway method has no result; write '-> None'")
    if not name or len(name.encode()) > limits.METHOD_NAME_SIZE_BYTES_MAX:
        raise DeclarationError(f"{where}: the Candid name is empty or longer than the limit")
    return MethodEntry(
        name=name,
        role=note.role,
        function=found.bound(function),
        arg_names=tuple(p.name for p in parameters),
        args=_argument_types(parameters, where),
        results=results,
        now=now,
        later=later,
        doc=inspect.cleandoc(function.__doc__ or ""),
        refuse=_guard_of(name, note, found, cls),
    )


def _hook_entry(note: RoleNote, found: _Found) -> MethodEntry:
    function, where = found.value, found.where
    parameters, hints = _after_ctx(found)
    if parameters and note.role not in ("init", "post_upgrade"):
        raise DeclarationError(f"{where}: @{note.role} takes no arguments")
    hint = _return_hint(hints, where)
    allowed: dict[str, tuple[object, ...]] = {"health": (None, bool), "inspect_message": (bool,)}
    if hint not in allowed.get(note.role, (None,)):
        raise DeclarationError(f"{where}: @{note.role} returns {_spell(allowed.get(note.role, (None,)))}")
    return MethodEntry(
        name=note.role,
        role=note.role,
        function=found.bound(function),
        arg_names=tuple(p.name for p in parameters),
        args=_argument_types(parameters, where),
        results=(),
        now=True,
        later=False,
        doc=inspect.cleandoc(function.__doc__ or ""),
    )


def _spell(hints: tuple[object, ...]) -> str:
    return " or ".join("None" if hint is None else getattr(hint, "__name__", repr(hint)) for hint in hints)


def _continuation_entry(found: _Found) -> ContinuationEntry:
    where = found.where
    parameters, hints = _after_ctx(found)
    if len(parameters) not in (1, 2):
        raise DeclarationError(
            f"{where}: a continuation takes (self, ctx, outcome: Outcome[T]), or saved: S behind"
        )
    answer, now, later = _continuation_answer(hints, where)
    outcome = parameters[0].hint
    if outcome is RawOutcome:
        outcome_types = None
    elif typing.get_origin(outcome) is Outcome:
        outcome_types = result_types(typing.get_args(outcome)[0], where)
    else:
        raise DeclarationError(
            f"{where}: the parameter {parameters[0].name!r} is an Outcome[T] with the type that the "
            "callee returns, or a RawOutcome"
        )
    return ContinuationEntry(
        name=found.inner_name,
        function=found.bound(found.value),
        source=found.value,
        outcome=outcome_types,
        saved=_saved_codec(parameters[1:], where),
        results=result_types(answer, where),
        now=now,
        later=later,
    )


def _continuation_answer(hints: dict[str, object], where: str) -> tuple[object, bool, bool]:
    """Split a continuation's return hint; one that leaves the answer to a waiter has none of its own."""
    hint = _return_hint(hints, where)
    is_for_waiter = Continued in (hint, *typing.get_args(hint))
    return (None, False, hint is not Continued) if is_for_waiter else split_pending(hint, where)


def _timer_entry(found: _Found) -> TimerEntry:
    where = found.where
    parameters, hints = _after_ctx(found)
    if len(parameters) > 1:
        raise DeclarationError(f"{where}: a timer method takes (self, ctx) or (self, ctx, saved: S)")
    if _return_hint(hints, where) is not None:
        raise DeclarationError(f"{where}: nobody waits for a timer; write '-> None'")
    function = found.value
    return TimerEntry(found.inner_name, found.bound(function), function, _saved_codec(parameters, where))


def _saved_codec(parameters: list[Parameter], where: str) -> ValueCodec[object] | None:
    if not parameters:
        return None
    return ValueCodec(f"{where}, saved value", _argument_types(parameters, where)[0])
