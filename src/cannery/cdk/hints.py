"""Type hints of methods: parameters and results as Candid types.

A return hint may hold `Pending[T]` beside `T` or alone: the method then may answer later. `-> None` is no
result, `-> Results[tuple[X, Y]]` two, anything else one.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from dataclasses import dataclass

from cannery.candid import types as ct
from cannery.candid.errors import CandidError
from cannery.candid.python import Results, type_of
from cannery.cdk.calls import Pending

# The marker of `Results`, an annotated alias that type checkers take for its content.
_MANY_RESULTS: object = Results.__metadata__[0]


class DeclarationError(TypeError):
    """A canister class is not declared as it must be; the text says where and what to do."""


def enclosing_names() -> dict[str, object]:
    """Return the local names around the class that is being made: `__init_subclass__` calls this directly."""
    frame = sys._getframe(2)
    return {} if frame.f_locals is frame.f_globals else dict(frame.f_locals)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter by name, its hint (None without one) and whether it has a default."""

    name: str
    hint: object
    hinted: bool
    has_default: bool


def method_hints(
    function: Callable[..., object], where: str, namespace: dict[str, object] | None = None
) -> dict[str, object]:
    """Resolve a function's hints; names are looked up in its module, and in `namespace` beside it."""
    try:
        return typing.get_type_hints(function, localns=namespace, include_extras=True)
    except NameError as error:
        raise DeclarationError(f"{where}: a type hint cannot be resolved: {error}") from None
    except TypeError as error:
        raise DeclarationError(f"{where}: a type hint is malformed: {error}") from None


def parameters_of(function: Callable[..., object], hints: dict[str, object], where: str) -> list[Parameter]:
    """List the parameters after `self`; refuse star and keyword-only ones."""
    code = function.__code__
    if code.co_flags & 0x0C or code.co_kwonlyargcount:
        raise DeclarationError(f"{where}: * and ** parameters and keyword-only ones have no Candid form")
    names = code.co_varnames[: code.co_argcount]
    if not names:
        raise DeclarationError(f"{where}: the first parameter is self")
    defaults = len(getattr(function, "__defaults__", None) or ())
    first_default = len(names) - defaults
    return [
        Parameter(name, hints.get(name), name in hints, i >= first_default)
        for i, name in enumerate(names)
        if i > 0
    ]


def candid_type(hint: object, where: str) -> ct.Type:
    """Turn a hint into its Candid type; name the place where it has none."""
    try:
        return type_of(hint)
    except CandidError as error:
        raise DeclarationError(f"{where}: {error}") from None


def split_pending(hint: object, where: str) -> tuple[object, bool, bool]:
    """Take `Pending[T]` out of a return hint: return T, whether a value may come now, whether it may come
    later."""
    if typing.get_origin(hint) is Pending:
        return typing.get_args(hint)[0], False, True
    if hint is Pending:
        raise DeclarationError(f"{where}: write Pending[T] with the type of the later answer")
    if typing.get_origin(hint) not in (typing.Union, types.UnionType):
        return hint, True, False
    members = typing.get_args(hint)
    later = [m for m in members if typing.get_origin(m) is Pending]
    if not later:
        return hint, True, False
    if len(later) > 1:
        raise DeclarationError(f"{where}: Pending stands twice in the return hint")
    now = [m for m in members if m is not later[0]]
    rest = now[0] if len(now) == 1 else typing.Union[tuple(now)]  # noqa: UP007 (members known at run time only)
    rest = None if rest is type(None) else rest
    answer = typing.get_args(later[0])[0]
    if result_types(rest, where) != result_types(answer, where):
        raise DeclarationError(
            f"{where}: Pending[...] in the return hint has another type than the answer beside it"
        )
    return rest, True, True


def result_types(hint: object, where: str) -> tuple[ct.Type, ...]:
    """Turn a return hint without `Pending` into result types."""
    if hint is None or hint is type(None):
        return ()
    if _MANY_RESULTS in getattr(hint, "__metadata__", ()):
        inner = typing.get_args(hint)[0]
        return tuple(candid_type(h, where) for h in typing.get_args(inner))
    return (candid_type(hint, where),)
