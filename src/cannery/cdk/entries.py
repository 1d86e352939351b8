"""Entries of a described canister class: what a name leads to. Values only; `describe` makes them, `program`
runs them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cannery.candid import types as ct
from cannery.cdk.declare import Role
from cannery.cdk.guards import Refuse
from cannery.cdk.stable_values import ValueCodec


@dataclass(frozen=True, slots=True)
class MethodEntry:
    """A method of the interface, or a hook. `now` and `later`: whether it may answer at once, or by a pending
    call. `refuse`: its guard, if it has one."""

    name: str
    role: Role
    function: Callable[..., object]
    arg_names: tuple[str, ...]
    args: tuple[ct.Type, ...]
    results: tuple[ct.Type, ...]
    now: bool
    later: bool
    doc: str
    refuse: Refuse | None = None


@dataclass(frozen=True, slots=True)
class ContinuationEntry:
    """A continuation: the types of the reply it reads (None for raw bytes), its saved value, what it
    answers. `function` takes the canister; `source` is what the author wrote, perhaps in a component."""

    name: str
    function: Callable[..., object]
    source: Callable[..., object]
    outcome: tuple[ct.Type, ...] | None
    saved: ValueCodec[object] | None
    results: tuple[ct.Type, ...]
    now: bool
    later: bool


@dataclass(frozen=True, slots=True)
class TimerEntry:
    """A method that timers run, and its saved value; `source` as in `ContinuationEntry`."""

    name: str
    function: Callable[..., object]
    source: Callable[..., object]
    saved: ValueCodec[object] | None
