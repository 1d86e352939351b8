"""What an author subclasses and decorates: `Canister`, and the roles of its methods.

IC interface specification, "Entry points". A decorator only notes the role on the function; `describe` reads
the notes once per class. Nothing here runs a method.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeVar, overload

from cannery.cdk.hints import enclosing_names

if TYPE_CHECKING:
    from cannery.cdk.guards import Guard

Role = Literal[
    "query",
    "composite_query",
    "update",
    "oneway",
    "init",
    "pre_upgrade",
    "post_upgrade",
    "health",
    "inspect_message",
    "continuation",
    "timer",
]

NAMESPACE_ATTRIBUTE = "__cannery_namespace__"
ROLE_ATTRIBUTE = "__cannery_role__"

Method = TypeVar("Method", bound=Callable[..., object])


@dataclass(frozen=True, slots=True)
class RoleNote:
    """The role of a method, the Candid name where it is not the Python name, and who may call it."""

    role: Role
    name: str | None = None
    only: Guard | None = None


class Canister:
    """A durable, isolated object: subclass it, declare collections, decorate methods.

    A fresh instance serves each message; only collections last. So there is no `__init__` and no attribute to
    set.
    """

    def __init_subclass__(cls) -> None:
        setattr(cls, NAMESPACE_ATTRIBUTE, enclosing_names())

    def __setattr__(self, name: str, value: object) -> None:
        if hasattr(type(self), name):
            raise AttributeError(
                f"{name!r} is not assigned to: change a collection by its methods (put, append, set)"
            )
        raise AttributeError(
            f"{name!r} would be lost after this message: declare a collection, as in "
            f"`{name} = StableCell(nat64, 0)`"
        )

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{name!r} stays: clear a collection by its methods")


def role_of(value: object) -> RoleNote | None:
    """Return the role that a decorator noted on a function."""
    note = getattr(value, ROLE_ATTRIBUTE, None)
    return note if isinstance(note, RoleNote) else None


def _note(method: Method, role: Role, name: str | None, only: Guard | None = None) -> Method:
    if role_of(method) is not None:
        raise TypeError(f"{method.__name__} has two roles: a method is decorated once")
    if not hasattr(method, "__code__"):
        raise TypeError(f"@{role} decorates a method, not {type(method).__name__}")
    setattr(method, ROLE_ATTRIBUTE, RoleNote(role, name, only))
    return method


@overload
def query(method: Method, /) -> Method: ...
@overload
def query(*, name: str | None = None, only: Guard | None = None) -> Callable[[Method], Method]: ...
def query(
    method: Method | None = None, /, *, name: str | None = None, only: Guard | None = None
) -> Method | Callable[[Method], Method]:
    """Make a method a query: it reads the last committed state and is answered at once.

    `only`: who may call it, a rule out of `guards`.
    """
    if method is not None:
        return _note(method, "query", None)
    return lambda m: _note(m, "query", name, only)


@overload
def composite_query(method: Method, /) -> Method: ...
@overload
def composite_query(*, name: str | None = None, only: Guard | None = None) -> Callable[[Method], Method]: ...
def composite_query(
    method: Method | None = None, /, *, name: str | None = None, only: Guard | None = None
) -> Method | Callable[[Method], Method]:
    """Make a method a query that may ask other canisters' queries through `ctx.query`.

    `only`: who may call it, a rule out of `guards`.
    """
    if method is not None:
        return _note(method, "composite_query", None)
    return lambda m: _note(m, "composite_query", name, only)


@overload
def update(method: Method, /) -> Method: ...
@overload
def update(
    *, name: str | None = None, oneway: bool = False, only: Guard | None = None
) -> Callable[[Method], Method]: ...
def update(
    method: Method | None = None,
    /,
    *,
    name: str | None = None,
    oneway: bool = False,
    only: Guard | None = None,
) -> Method | Callable[[Method], Method]:
    """Make a method an update: it changes state and is answered when its round is durable.

    `only`: who may call it, a rule out of `guards`.
    """
    if method is not None:
        return _note(method, "update", None)
    return lambda m: _note(m, "oneway" if oneway else "update", name, only)


def init(method: Method) -> Method:
    """Run a method once, at installation; its arguments are the install argument."""
    return _note(method, "init", None)


def pre_upgrade(method: Method) -> Method:
    """Run a method of the old version before an upgrade."""
    return _note(method, "pre_upgrade", None)


def post_upgrade(method: Method) -> Method:
    """Run a method of the new version after an upgrade; its arguments are the upgrade's argument."""
    return _note(method, "post_upgrade", None)


def health(method: Method) -> Method:
    """Ask a method, after an upgrade, whether all is well; False or an exception undoes the upgrade."""
    return _note(method, "health", None)


def inspect_message(method: Method) -> Method:
    """Ask a method whether to let a call from outside in: it returns True to accept, before anything is
    charged."""
    return _note(method, "inspect_message", None)


def continuation(method: Method) -> Method:
    """Make a method the continuation of calls: `(self, ctx, outcome: Outcome[T])`, or with `saved: S` behind.

    It is not in the interface and refuses every call from outside.
    """
    return _note(method, "continuation", None)


def timer(method: Method) -> Method:
    """Make a method what timers run: `(self, ctx)` or `(self, ctx, saved: S)`. It is not in the interface."""
    return _note(method, "timer", None)
