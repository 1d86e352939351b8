"""Which fleet a canister belongs to, and what it may read of that fleet.

A fleet is the canisters that one index made; its id is the index's principal. A member is one that was made
by a founded index and has since then run nothing but modules of the fleet's registry, with nobody among its
controllers but the index, operators and other members; membership that ended does not come back. Whether a
member is trusted is decided anew each time it calls (`stamp_of`), since operators, registry and other members
change without it. Docs: docs/adr/0006-fleets-known-to-the-node.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

from msgspec.structs import replace

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.limits import FLEET_NAME_SIZE_BYTES_MAX
from cannery.ports import FleetRelease
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.fleet_records import FLEET, FLEET_MODULE, FleetRecord
from cannery.replica.records import CallMessage, CanisterRecord, encode_record
from cannery.replica.state import MANAGEMENT_ID, MessageOverlay, RoundState
from cannery.replica.view import StateView

Get = Callable[[bytes], bytes | None]

LEFT_METHOD: Final = "fleet_left"
"""A one-way call of the management canister to an index, with the members that are none any more."""

_ENCODE_MEMBERS: Final = encoder((type_of(list[Principal]),))
_NOBODY_WAITS: Final = 0


class KnowsControllers(Protocol):
    """A state in which canisters and operators can be looked up."""

    def canister(self, canister_id: bytes) -> CanisterRecord | None: ...
    def is_operator(self, principal: bytes) -> bool: ...


# --- the rule ----------------------------------------------------------------------------------------------


def are_own(state: KnowsControllers, fleet: bytes, controllers: Sequence[bytes]) -> bool:
    """Say whether nobody outside the fleet and the node's operators is among these controllers."""
    for controller in controllers:
        if controller == fleet:
            continue
        canister = state.canister(controller)
        if (canister is None or canister.fleet != fleet) and not state.is_operator(controller):
            return False
    return True


def is_registered(get: Get, fleet: bytes, module_hash: bytes) -> bool:
    """Say whether a fleet's registry has a module."""
    return get(keys.owned(keys.FLEET_MODULES, fleet, module_hash)) is not None


def stamp_of(view: StateView, canister_id: bytes) -> bytes:
    """Give the fleet that a canister speaks for when it calls now; empty where it speaks for itself alone."""
    canister = view.canister(canister_id)
    if canister is None or not canister.fleet:
        return b""
    fleet, get = canister.fleet, view.reader.get
    if fleet != canister_id and (
        canister.module_hash is None or not is_registered(get, fleet, canister.module_hash)
    ):
        return b""
    return fleet if are_own(view, fleet, canister.controllers) else b""


def stamp_in_round(state: RoundState, canister_id: bytes) -> bytes:
    """Give `stamp_of`, kept until a canister's record or a key that it hangs on changes."""
    try:
        return state.stamps[canister_id]
    except KeyError:
        found = state.stamps[canister_id] = stamp_of(state.view, canister_id)
        return found


# --- members come and go -----------------------------------------------------------------------------------


def find_fleet(get: Get, fleet: bytes) -> FleetRecord | None:
    """Give a fleet's record."""
    data = get(keys.owned(keys.FLEETS, fleet))
    return None if data is None else FLEET.decode(data)


def put_fleet(message: MessageOverlay, fleet: bytes, record: FleetRecord) -> None:
    """Set a fleet's record."""
    message.put(keys.owned(keys.FLEETS, fleet), encode_record(record))


def join_creator(message: MessageOverlay, canister_id: bytes) -> None:
    """Make a new canister a member where a founded index made it, for nobody else to control."""
    canister = message.canister(canister_id)
    assert canister is not None, "whoever made a canister has put its record"
    creator = message.canister(canister.creator)
    if creator is not None and creator.fleet == canister.creator:
        join(message, canister_id, creator.fleet)


def join(message: MessageOverlay, canister_id: bytes, fleet: bytes) -> None:
    """Make a canister a member of a fleet, where its controllers let it."""
    canister, record = message.canister(canister_id), find_fleet(message.get, fleet)
    if canister is None or record is None or not are_own(message, fleet, canister.controllers):
        return
    message.put_canister(canister_id, replace(canister, fleet=fleet))
    message.put(keys.owned(keys.FLEET_MEMBERS, fleet, canister_id), b"")
    put_fleet(message, fleet, replace(record, members=record.members + 1))


def leave(message: MessageOverlay, canister_id: bytes) -> None:
    """End a canister's membership for good, and tell its index; an index goes with its whole fleet."""
    canister = message.canister(canister_id)
    if canister is None or not canister.fleet:
        return
    fleet = canister.fleet
    message.put_canister(canister_id, replace(canister, fleet=b""))
    if fleet == canister_id:
        _dissolve(message, fleet)
        return
    key, record = keys.owned(keys.FLEET_MEMBERS, fleet, canister_id), find_fleet(message.get, fleet)
    if record is not None and message.get(key) is not None:
        message.put(key, None)
        put_fleet(message, fleet, replace(record, members=record.members - 1))
        arg = _ENCODE_MEMBERS(([Principal(canister_id)],))
        message.send(fleet, MANAGEMENT_ID, CallMessage(MANAGEMENT_ID, _NOBODY_WAITS, LEFT_METHOD, arg, 0))


def leave_with_controllers(message: MessageOverlay, canister_id: bytes) -> None:
    """End a membership where somebody outside the fleet is among the controllers that were just set.

    An index stays the index of its fleet: it is not stamped until its controllers are its own again.
    """
    canister = message.canister(canister_id)
    if canister is None or canister.fleet in (b"", canister_id):
        return
    if not are_own(message, canister.fleet, canister.controllers):
        leave(message, canister_id)


def leave_with_module(message: MessageOverlay, canister_id: bytes) -> None:
    """End a membership where the module that was just installed is not in the fleet's registry."""
    canister = message.canister(canister_id)
    if canister is None or canister.module_hash is None or canister.fleet in (b"", canister_id):
        return
    if not is_registered(message.get, canister.fleet, canister.module_hash):
        leave(message, canister_id)


def _dissolve(message: MessageOverlay, fleet: bytes) -> None:
    """Remove what a fleet has; the records of its members are left, and name a fleet that is no more."""
    message.put(keys.owned(keys.FLEETS, fleet), None)
    for space in (keys.FLEET_MODULES, keys.FLEET_MEMBERS, keys.FLEET_ROLES, keys.FLEET_VALUES):
        message.delete_range(*keys.owned_range(space, fleet))


# --- what a canister reads of its fleet --------------------------------------------------------------------


def present_fleet(get: Get, canister: CanisterRecord | None) -> bytes:
    """Give the fleet that a canister belongs to; empty for none, and where its index was deleted."""
    if canister is None or not canister.fleet:
        return b""
    return b"" if get(keys.owned(keys.FLEETS, canister.fleet)) is None else canister.fleet


def has_role(get: Get, canister: CanisterRecord | None, role: str, principal: bytes) -> bool:
    """Say whether a principal has a role in a canister's fleet."""
    fleet = present_fleet(get, canister)
    if not fleet or not 0 < len(role.encode()) <= FLEET_NAME_SIZE_BYTES_MAX:
        return False
    return get(keys.fleet_role_key(fleet, role, principal)) is not None


def value_of(get: Get, canister: CanisterRecord | None, name: str) -> str | None:
    """Give a named value of a canister's fleet."""
    fleet = present_fleet(get, canister)
    data = get(keys.owned(keys.FLEET_VALUES, fleet, name.encode())) if fleet else None
    return None if data is None else data.decode()


def config_version_of(get: Get, canister: CanisterRecord | None) -> int:
    """Give the version of the configuration of a canister's fleet; 0 where it never had one."""
    record = find_fleet(get, canister.fleet) if canister is not None and canister.fleet else None
    return 0 if record is None else record.config_version


def release_of(get: Get, canister: CanisterRecord | None) -> FleetRelease | None:
    """Give kind and version of a canister's module in the registry of its fleet."""
    if canister is None or canister.module_hash is None or not canister.fleet:
        return None
    data = get(keys.owned(keys.FLEET_MODULES, canister.fleet, canister.module_hash))
    if data is None:
        return None
    module = FLEET_MODULE.decode(data)
    return FleetRelease(module.kind, module.version)
