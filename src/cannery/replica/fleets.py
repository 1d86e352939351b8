"""Which fleet a canister belongs to, and what it may read of that fleet.

A fleet is the canisters that one index made; its id is the index's principal. A member is one that was made
by a founded index and has since then run nothing but modules of the fleet's registry, with nobody among its
controllers but the index, operators and other members; membership that ended does not come back. Whether a
member is trusted is decided anew each time it calls (`stamp_of`), since operators, registry and other members
change without it. A *local index* is a member that the index has appointed: what it makes on its own subnet
joins the index's fleet. Docs: docs/adr/0006-fleets-known-to-the-node.md, 0010-indexes-of-indexes.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from msgspec.structs import replace

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.errors import Reject, RejectCode
from cannery.limits import FLEET_NAME_SIZE_BYTES_MAX
from cannery.ports import FleetRelease
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.fleet_records import FLEET, FLEET_MODULE, FleetRecord
from cannery.replica.places import subnet_of
from cannery.replica.records import CallMessage, CanisterRecord, NoticeKind, encode_record
from cannery.replica.state import MANAGEMENT_ID, MessageOverlay, RoundState
from cannery.replica.view import StateView

Get = Callable[[bytes], bytes | None]

LEFT_METHOD: Final = "fleet_left"
"""A one-way call of the management canister to an index, with the members that are none any more."""

APPOINTED: Final = b"\x01"
DISMISSED: Final = b"\x00"
"""What stands under a local index in `FLEET_LOCALS`; one that was dismissed keeps its list of members."""

_ENCODE_MEMBERS: Final = encoder((type_of(list[Principal]),))
_NOBODY_WAITS: Final = 0


class KnowsControllers(Protocol):
    """A state in which canisters and operators can be looked up."""

    def canister(self, canister_id: bytes) -> CanisterRecord | None: ...
    def is_operator(self, principal: bytes) -> bool: ...


# --- the rule ----------------------------------------------------------------------------------------------


def are_own(state: KnowsControllers, get: Get, fleet: bytes, controllers: Sequence[bytes]) -> bool:
    """Say whether nobody outside the fleet and the node's operators is among these controllers.

    Members of other subnets are not known here, but for the local indexes.
    """
    for controller in controllers:
        if controller == fleet:
            continue
        canister = state.canister(controller)
        if canister is not None and canister.fleet == fleet:
            continue
        if not state.is_operator(controller) and not is_local(get, fleet, controller):
            return False
    return True


def is_local(get: Get, fleet: bytes, canister_id: bytes) -> bool:
    """Say whether a canister is appointed as a local index of a fleet."""
    return bool(fleet) and get(keys.owned(keys.FLEET_LOCALS, fleet, canister_id)) == APPOINTED


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
    return fleet if are_own(view, get, fleet, canister.controllers) else b""


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
    """Make a new canister a member where a founded index made it, or a local index of this subnet, for nobody
    else to control; raises `Reject` where it is not known whether the local index still is one.
    """
    canister = message.canister(canister_id)
    assert canister is not None, "whoever made a canister has put its record"
    creator = message.canister(canister.creator)
    if creator is not None and creator.fleet == canister.creator:
        join(message, canister_id, creator.fleet)
    elif creator is not None and is_local(message.get, creator.fleet, canister.creator):
        _join_local(message, canister_id, creator.fleet, canister.creator)
    elif creator is None and _is_away(message, canister.creator):
        join(message, canister_id, canister.creator)


def _join_local(message: MessageOverlay, canister_id: bytes, fleet: bytes, local: bytes) -> None:
    record = find_fleet(message.get, fleet)
    if record is not None and record.is_stale:
        text = "This subnet has not heard the index of the fleet since it started: try again in a moment"
        raise Reject(RejectCode.SYS_TRANSIENT, text, "CNRY0302")
    if stamp_in_round(message.state, local) == fleet:
        join(message, canister_id, fleet, local)


def _is_away(message: MessageOverlay, fleet: bytes) -> bool:
    """Say whether a fleet's index is on another subnet, and this one has its registry and configuration."""
    config = message.state.view.config
    return subnet_of(config, fleet) != config.subnet and find_fleet(message.get, fleet) is not None


def _tell_home(
    message: MessageOverlay, kind: NoticeKind, fleet: bytes, member: bytes, local: bytes = b""
) -> None:
    """Tell the subnet of a fleet's index who has come or gone."""
    config = message.state.view.config
    home = subnet_of(config, fleet)
    if home != config.subnet:
        message.tell(home, kind, msgspec.msgpack.encode((fleet, member, 0, local)))


def join(message: MessageOverlay, canister_id: bytes, fleet: bytes, local: bytes = b"") -> None:
    """Make a canister a member of a fleet, where its controllers let it; what a local index made is listed
    under that one.
    """
    canister, record = message.canister(canister_id), find_fleet(message.get, fleet)
    if canister is None or record is None:
        return
    if not are_own(message, message.get, fleet, canister.controllers):
        return
    message.put_canister(canister_id, replace(canister, fleet=fleet))
    message.put(keys.owned(keys.FLEET_MEMBERS, local or fleet, canister_id), b"")
    put_fleet(message, fleet, replace(record, members=record.members + 1))
    _tell_home(message, NoticeKind.FLEET_JOINED, fleet, canister_id, local)


def listed_under(get: Get, canister_id: bytes, canister: CanisterRecord) -> bytes:
    """Give the index that has a member in its list: that of the fleet, or the local one that made it; empty
    where none has.
    """
    for lister in (canister.fleet, canister.creator):
        if get(keys.owned(keys.FLEET_MEMBERS, lister, canister_id)) is not None:
            return lister
    return b""


def leave(message: MessageOverlay, canister_id: bytes) -> None:
    """End a canister's membership for good, and tell whoever lists it; an index goes with its whole fleet."""
    canister = message.canister(canister_id)
    if canister is None or not canister.fleet:
        return
    fleet = canister.fleet
    lister = listed_under(message.get, canister_id, canister)
    dismiss(message, canister_id)
    message.put_canister(canister_id, replace(canister, fleet=b""))
    if fleet == canister_id:
        _dissolve(message, fleet)
        return
    record = find_fleet(message.get, fleet)
    if record is not None and lister:
        message.put(keys.owned(keys.FLEET_MEMBERS, lister, canister_id), None)
        put_fleet(message, fleet, replace(record, members=record.members - 1))
        local = b"" if lister == fleet else lister
        _tell_home(message, NoticeKind.FLEET_LEFT, fleet, canister_id, local)
        arg = _ENCODE_MEMBERS(([Principal(canister_id)],))
        message.send(lister, MANAGEMENT_ID, CallMessage(MANAGEMENT_ID, _NOBODY_WAITS, LEFT_METHOD, arg, 0))


def dismiss(message: MessageOverlay, canister_id: bytes) -> None:
    """End a canister's appointment as a local index, if it has one: it was emptied, or is no member any more.

    Its children stay members. The fleet's home passes it on to all subnets.
    """
    canister = message.canister(canister_id)
    if canister is None or not is_local(message.get, canister.fleet, canister_id):
        return
    message.put_trust(keys.owned(keys.FLEET_LOCALS, canister.fleet, canister_id), DISMISSED)
    config = message.state.view.config
    if subnet_of(config, canister.fleet) != config.subnet:
        _tell_home(message, NoticeKind.FLEET_DISMISSED, canister.fleet, canister_id)
    else:
        for key, _ in list(message.scan(*keys.owned_range(keys.FLEETS_AWAY, canister.fleet))):
            data = msgspec.msgpack.encode((canister.fleet, canister_id, 0, b""))
            message.tell(int.from_bytes(key[-8:], "big"), NoticeKind.FLEET_DISMISSED, data)


def leave_with_controllers(message: MessageOverlay, canister_id: bytes) -> None:
    """End a membership where somebody outside the fleet is among the controllers that were just set.

    An index stays the index of its fleet: it is not stamped until its controllers are its own again.
    """
    canister = message.canister(canister_id)
    if canister is None or canister.fleet in (b"", canister_id):
        return
    if not are_own(message, message.get, canister.fleet, canister.controllers):
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
    for key, _ in list(message.scan(*keys.owned_range(keys.FLEETS_AWAY, fleet))):
        message.put(key, None)
        message.tell(int.from_bytes(key[-8:], "big"), NoticeKind.FLEET_GONE, fleet)
    drop_fleet(message, fleet)


def drop_fleet(message: MessageOverlay, fleet: bytes) -> None:
    """Remove what this subnet has of a fleet."""
    message.put(keys.owned(keys.FLEETS, fleet), None)
    head = len(keys.owned(keys.FLEET_LOCALS, fleet))
    for key, _ in list(message.scan(*keys.owned_range(keys.FLEET_LOCALS, fleet))):
        message.delete_range(*keys.owned_range(keys.FLEET_MEMBERS, key[head:]))
    for space in (
        keys.FLEET_MODULES,
        keys.FLEET_MEMBERS,
        keys.FLEET_ROLES,
        keys.FLEET_VALUES,
        keys.FLEET_LOCALS,
    ):
        message.delete_range(*keys.owned_range(space, fleet))


# --- what a canister reads of its fleet --------------------------------------------------------------------


def present_fleet(get: Get, canister: CanisterRecord | None) -> bytes:
    """Give the fleet that a canister belongs to; empty for none, and where its index was deleted."""
    if canister is None or not canister.fleet:
        return b""
    return b"" if get(keys.owned(keys.FLEETS, canister.fleet)) is None else canister.fleet


def has_role(get: Get, canister: CanisterRecord | None, role: str, principal: bytes) -> bool:
    """Say whether a principal has a role in a canister's fleet; nobody has while its home is not heard."""
    record = find_fleet(get, canister.fleet) if canister is not None and canister.fleet else None
    fleet = b"" if canister is None or record is None or record.is_stale else canister.fleet
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
