"""A component: a piece of a canister, written like one, that a canister has as an attribute.

It brings its collections, methods, continuations and timers to the canister: methods under their own names,
everything else behind the component's prefix. Components may have components; one that needs another of the
same canister declares it with `Uses`. A component class stands once in a canister.
"""

from __future__ import annotations

from collections.abc import Iterator
from inspect import getattr_static
from typing import Generic, Self, TypeVar, overload

from cannery.cdk.declare import NAMESPACE_ATTRIBUTE, Canister
from cannery.cdk.hints import DeclarationError, enclosing_names
from cannery.cdk.part import SYSTEM_ATTRIBUTE, Part

ROOT_ATTRIBUTE = "_cannery_root"

C = TypeVar("C", bound="Component")


class Component:
    """Subclass it with a prefix, `class Directory(Component, prefix="fleet.directory")`, and write it like a
    canister; hooks are the canister's own.
    """

    prefix: str = ""

    def __init_subclass__(cls, *, prefix: str) -> None:
        cls.prefix = prefix
        setattr(cls, NAMESPACE_ATTRIBUTE, enclosing_names())
        for value in vars(cls).values():
            if isinstance(value, Part):
                value.put_under(prefix)

    def __set_name__(self, owner: type, name: str) -> None:
        self.__dict__["attribute"] = name

    @overload
    def __get__(self, instance: None, owner: type) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type) -> Self: ...
    def __get__(self, instance: object | None, owner: type) -> Self:
        if instance is None:
            return self
        found = instance.__dict__[self.__dict__["attribute"]] = bind_component(instance, type(self))
        return found

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} would be lost after this message: declare a collection")


class Uses(Generic[C]):
    """Declare that a component works with another of the same canister: `directory = Uses(Directory)`."""

    def __init__(self, component: type[C]) -> None:
        self.component = component
        self._attribute = ""

    def __set_name__(self, owner: type, name: str) -> None:
        self._attribute = name

    @overload
    def __get__(self, instance: None, owner: type) -> Uses[C]: ...
    @overload
    def __get__(self, instance: object, owner: type) -> C: ...
    def __get__(self, instance: object | None, owner: type) -> Uses[C] | C:
        if instance is None:
            return self
        found = instance.__dict__[self._attribute] = bind_component(instance, self.component)
        return found


def bind_component(instance: object, cls: type[C]) -> C:
    """Give the component of this class for the canister (or component) `instance`, the same one throughout an
    activation.
    """
    root = instance.__dict__.get(ROOT_ATTRIBUTE, instance)
    key = f"component {cls.prefix}"
    found = root.__dict__.get(key)
    if found is None:
        found = cls.__new__(cls)
        found.__dict__[SYSTEM_ATTRIBUTE] = root.__dict__[SYSTEM_ATTRIBUTE]
        found.__dict__[ROOT_ATTRIBUTE] = root
        root.__dict__[key] = found
    assert isinstance(found, cls), (
        "a prefix belongs to one class of a canister: `components_of` has seen to it"
    )
    return found


def let_go(instance: object) -> None:
    """Take a canister and its components apart after an activation: they know each other, and would wait for
    the garbage collector, which queries by the thousand would keep busy.
    """
    attributes = instance.__dict__
    for value in attributes.values():
        if isinstance(value, Component):
            value.__dict__.clear()
    attributes.clear()


def canister_of(component: Component) -> object:
    """Return the canister that has a component: where a component needs something of its author, it asks the
    canister by a `Protocol` (`isinstance`, runtime checkable).
    """
    root: object = component.__dict__[ROOT_ATTRIBUTE]
    return root


def siblings_of(component: Component) -> tuple[Component, ...]:
    """Return all components of the same canister: one tells those that want to hear, by a `Protocol`."""
    root = canister_of(component)
    assert isinstance(root, Canister), "components are of canisters"
    return tuple(bind_component(root, each) for each in components_of(type(root)))


def components_of(cls: type[Canister]) -> tuple[type[Component], ...]:
    """List the component classes of a canister class, outer ones first; raise DeclarationError where one
    stands twice or a used one is missing.
    """
    found: dict[str, type[Component]] = {}
    used: list[tuple[type, type[Component]]] = []
    todo: list[type] = [cls]
    while todo:
        owner = todo.pop(0)
        for value in _values(owner):
            if isinstance(value, Uses):
                used.append((owner, value.component))
            elif isinstance(value, Component):
                component = type(value)
                if component.prefix in found:
                    raise DeclarationError(
                        f"{cls.__name__}: two components have the prefix {component.prefix!r}"
                    )
                found[component.prefix] = component
                todo.append(component)
    for owner, component in used:
        if found.get(component.prefix) is not component:
            raise DeclarationError(f"{owner.__name__} uses {component.__name__}, which {cls.__name__} lacks")
    return tuple(found.values())


def _values(cls: type) -> Iterator[object]:
    names = {name for base in cls.__mro__ if base not in (object, Canister, Component) for name in vars(base)}
    for name in sorted(names):
        yield getattr_static(cls, name)
