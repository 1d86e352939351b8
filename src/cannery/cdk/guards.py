"""Guards: rules about who may call a method, given as `only=` to its decorator.

    @update(only=same_fleet | owner("profile"))
    def rename(self, ctx: Context, name: str) -> None: ...

A guard is asked before the argument is decoded. Who may not gets a reject that names the rule; a signed call
is refused before it is ordered in a block, so that it costs the canister nothing. `docs/canisters.md`, "Who
may call".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from inspect import getattr_static

from cannery.candid import types as ct
from cannery.cdk.hints import DeclarationError
from cannery.cdk.stable_cell import StableCell
from cannery.limits import FLEET_NAME_SIZE_BYTES_MAX
from cannery.ports import System
from cannery.protocol.principal import Principal

ReadCell = Callable[[str], object]
NewInstance = Callable[[System], object]
Refuse = Callable[[System, NewInstance], str | None]
"""Says why the caller may not call a method; None where it may. An instance is made where a cell is read."""

_OWNER_FIELD = "owner"


@dataclass(frozen=True, slots=True)
class Guard:
    """A rule: whom it lets in, in words, and the test. `cells` are the cells that it reads."""

    whom: str
    allows: Callable[[System, ReadCell], bool]
    cells: tuple[str, ...] = ()

    def __or__(self, other: Guard) -> Guard:
        return any_of(self, other)


def _is_of_same_fleet(system: System, _read: ReadCell) -> bool:
    fleet = system.caller_fleet
    return fleet != b"" and fleet == system.fleet


def _is_index(system: System, read: ReadCell) -> bool:
    return system.caller == system.caller_fleet and _is_of_same_fleet(system, read)


same_fleet = Guard("canisters of the same fleet", _is_of_same_fleet)
"""Lets in members of this canister's fleet and its index, as stamped by the node."""

index = Guard("the index of the fleet", _is_index)
"""Lets in the index of this canister's fleet, while only its own and operators control it."""

controller = Guard("controllers of the canister", lambda system, _read: system.is_controller(system.caller))
"""Lets in whoever may change this canister's code and settings."""

operator = Guard("operators of the node", lambda system, _read: system.is_operator(system.caller))
"""Lets in the operators of the node."""

itself = Guard("the canister itself", lambda system, _read: system.caller == system.canister_id)
"""Lets in this canister's own calls."""


def role(name: str) -> Guard:
    """Let in whom the index of the fleet gave this role."""
    if not 0 < len(name.encode()) <= FLEET_NAME_SIZE_BYTES_MAX:
        raise TypeError(f"a role's name has 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes, not {name!r:.100}")
    return Guard(
        f"principals with the role {name!r} in the fleet",
        lambda system, _read: system.fleet_role(name, system.caller),
    )


def owner(cell: str) -> Guard:
    """Let in the principal that a cell of the canister holds: its value, or the field `owner` of its value.

    Nobody is let in while the cell holds None or the anonymous principal.
    """

    def is_owner(system: System, read: ReadCell) -> bool:
        value = read(cell)
        found = value if isinstance(value, Principal) else getattr(value, _OWNER_FIELD, None)
        return isinstance(found, Principal) and not found.is_anonymous and system.caller == found.raw

    return Guard(f"the owner that {cell!r} names", is_owner, (cell,))


def any_of(*guards: Guard) -> Guard:
    """Let in whom one of these rules lets in."""
    if not guards:
        raise TypeError("any_of takes at least one rule, such as same_fleet")
    for guard in guards:
        check_guard(guard)
    return Guard(
        " or ".join(guard.whom for guard in guards),
        lambda system, read: any(guard.allows(system, read) for guard in guards),
        tuple(cell for guard in guards for cell in guard.cells),
    )


def check_guard(value: object) -> None:
    """Raise TypeError for what is no guard."""
    if not isinstance(value, Guard):
        raise TypeError(
            f"{value!r:.100} is no rule of who may call: write same_fleet, index, controller, operator, "
            'itself, role("name"), owner("cell"), or several joined by |'
        )


def bind_guard(
    guard: Guard, method: str, where: str, places: Mapping[type, Callable[[object], object]]
) -> Refuse:
    """Make the function that refuses callers of a method; raise DeclarationError for a missing cell.

    `places` are the classes in which cells are looked for, in order, and how to get from the canister's
    instance to theirs.
    """
    homes = {cell: _home_of(cell, where, places) for cell in guard.cells}

    def refuse(system: System, new_instance: NewInstance) -> str | None:
        if guard.allows(system, lambda cell: getattr(homes[cell](new_instance(system)), cell).get()):
            return None
        return f"{method} is for {guard.whom}: {Principal(system.caller)} may not call it"

    return refuse


def _home_of(
    cell: str, where: str, places: Mapping[type, Callable[[object], object]]
) -> Callable[[object], object]:
    for cls, find in places.items():
        declared = getattr_static(cls, cell, None)
        if isinstance(declared, StableCell):
            _check_owner_type(declared, cell, where)
            return find
    names = " or ".join(cls.__name__ for cls in places)
    raise DeclarationError(f"{where}: owner({cell!r}) names no StableCell of {names}")


def _check_owner_type(declared: StableCell[object], cell: str, where: str) -> None:
    type_ = _opened(declared.collections()[0].value, None)
    env = None
    if isinstance(type_, ct.Rec):
        env = type_.env
        type_ = _opened(env[type_.name], env)
    if isinstance(type_, ct.Record):
        type_ = next((_opened(f.type, env) for f in type_.fields if f.name == _OWNER_FIELD), None)
    if not isinstance(type_, ct.PrincipalType):
        raise DeclarationError(
            f"{where}: owner({cell!r}) needs a cell of a Principal, or of a record with a field 'owner' that "
            "is one"
        )


def _opened(type_: ct.Type | None, env: ct.Env | None) -> ct.Type | None:
    """Give what a type stands for, without a name and without `opt`."""
    while True:
        if isinstance(type_, ct.Opt):
            type_ = type_.inner
        elif isinstance(type_, ct.Ref) and env is not None:
            type_ = env[type_.name]
        else:
            return type_
