"""Fleets: an index founds one, keeps its registry of modules and its configuration, and operators look at it.

Who is a member, and when that ends, is decided in `replica.fleets`. Roles and values are read by the contexts
of all members from the node's state, so a change reaches every one of them with its round, those that are
stopped, frozen or not made yet included.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import islice

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import (
    FLEET_CHANGE_COUNT_MAX,
    FLEET_COUNT_MAX,
    FLEET_HOLDER_COUNT_MAX,
    FLEET_LOCAL_COUNT_MAX,
    FLEET_NAME_SIZE_BYTES_MAX,
    FLEET_PAGE_COUNT_MAX,
    FLEET_VALUE_COUNT_MAX,
    FLEET_VALUE_SIZE_BYTES_MAX,
)
from cannery.ports import StoreReader
from cannery.protocol.principal import Principal
from cannery.replica import fleets, keys
from cannery.replica.fleet_records import FLEET_MODULE, FleetModule, FleetRecord
from cannery.replica.fleets_away import share_changes
from cannery.replica.management.access import anyone, operators_or_node
from cannery.replica.management.fleet_types import (
    FleetConfigureArgs,
    FleetConfigureResult,
    FleetInfo,
    FleetMembersArgs,
    FleetModuleArgs,
    FleetRole,
    FleetValue,
)
from cannery.replica.management.fleet_waits import begin_wait
from cannery.replica.management.methods import Method, query_method, status_method, update_method
from cannery.replica.management.request import Change, Pending, Request
from cannery.replica.records import CANISTER, encode_record
from cannery.replica.state import MessageOverlay
from cannery.replica.view import show

# --- who may -------------------------------------------------------------------------------------------


def _indexes(request: Request, _args: object) -> None:
    """Let canisters in that have founded a fleet."""
    canister = request.state.canister(request.caller)
    if canister is None or canister.fleet != request.caller:
        raise _refusal(
            f"{show(request.caller)} is the index of no fleet: a canister becomes one by calling "
            "cannery_fleet_found"
        )


def _member_readers(request: Request, args: FleetMembersArgs) -> None:
    """Let in whom `_fleet_readers` lets in; of a local index's list: itself, its controllers, the index of
    its fleet and operators.
    """
    lister = request.canister(args.fleet.raw)
    if lister.fleet in (b"", args.fleet.raw):
        _fleet_readers(request, args.fleet)
        return
    get = request.reader.get
    if get(keys.owned(keys.FLEET_LOCALS, lister.fleet, args.fleet.raw)) is None:
        raise _refusal(f"Canister {args.fleet} is the index of no fleet, and no local index of one")
    caller = request.caller
    if caller in (args.fleet.raw, lister.fleet) or caller in lister.controllers:
        return
    if not request.state.is_operator(caller):
        raise _refusal(
            f"Only operators, controllers of the local index {args.fleet} and the index of its fleet may "
            f"call {request.method}: you are {show(caller)}"
        )


def _fleet_readers(request: Request, fleet: Principal) -> None:
    """Let in the index, its controllers, and operators."""
    index = request.canister(fleet.raw)
    if fleets.find_fleet(request.reader.get, fleet.raw) is None:
        raise _refusal(f"Canister {fleet} is the index of no fleet")
    caller = request.caller
    if caller != fleet.raw and caller not in index.controllers and not request.state.is_operator(caller):
        raise _refusal(
            f"Only operators and controllers of the index {fleet} may call {request.method}: "
            f"you are {show(caller)}"
        )


# --- founding and the registry -------------------------------------------------------------------------


def _found(change: Change, _args: None) -> None:
    index, message = change.caller, change.message
    canister = change.canister(index)
    if canister.fleet == index:
        return
    if fleets.present_fleet(message.get, canister):
        raise _refusal(
            f"Canister {show(index)} is a member of the fleet of {show(canister.fleet)}, and a member founds "
            "no fleet of its own: let an operator create the new index"
        )
    if sum(1 for _ in message.scan(*keys.space_range(keys.FLEETS))) >= FLEET_COUNT_MAX:
        raise _refusal(f"This node has {FLEET_COUNT_MAX} fleets, as many as it may")
    message.put_canister(index, replace(canister, fleet=index))
    fleets.put_fleet(message, index, FleetRecord(change.request.now_ns))
    if change.account(index).canisters_created:
        _take_in(message, index)


def _take_in(message: MessageOverlay, index: bytes) -> None:
    """Make those members that the index made before it founded its fleet; each is looked at, this once."""
    made = [
        keys.owner_of(key)
        for key, data in message.scan(*keys.space_range(keys.CANISTERS))
        if CANISTER.decode(data).creator == index
    ]
    for canister_id in made:
        fleets.join(message, canister_id, index)


def _module_put(change: Change, args: FleetModuleArgs) -> None:
    _check_name("kind", args.kind)
    if change.message.module(args.module_hash) is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Module {args.module_hash.hex()} is not on this node: an operator adds it with "
            "`cannery module add`",
            "IC0537",
        )
    key = keys.owned(keys.FLEET_MODULES, change.caller, args.module_hash)
    change.message.put_trust(key, encode_record(FleetModule(args.kind, args.version)))
    share_changes(change.message, change.caller)


def _module_remove(change: Change, module_hash: bytes) -> None:
    if not fleets.is_registered(change.message.get, change.caller, module_hash):
        raise _refusal(f"Module {module_hash.hex()} is not in the registry of {show(change.caller)}")
    change.message.put_trust(keys.owned(keys.FLEET_MODULES, change.caller, module_hash), None)
    share_changes(change.message, change.caller)


# --- local indexes -------------------------------------------------------------------------------------


def _appoint(change: Change, canister: Principal) -> None:
    """Let a member be a local index: what it makes on its own subnet belongs to the fleet."""
    fleet, message = change.caller, change.message
    if message.get(keys.owned(keys.FLEET_MEMBERS, fleet, canister.raw)) is None:
        raise _refusal(
            f"Canister {canister} is no member of this fleet that {show(fleet)} made itself, and only such a "
            "one becomes a local index"
        )
    start, end = keys.owned_range(keys.FLEET_LOCALS, fleet)
    key = keys.owned(keys.FLEET_LOCALS, fleet, canister.raw)
    if message.get(key) is None and sum(1 for _ in message.scan(start, end)) >= FLEET_LOCAL_COUNT_MAX:
        raise _refusal(f"A fleet has at most {FLEET_LOCAL_COUNT_MAX} local indexes, former ones included")
    message.put_trust(key, fleets.APPOINTED)
    share_changes(message, fleet)


def _dismiss(change: Change, canister: Principal) -> None:
    key = keys.owned(keys.FLEET_LOCALS, change.caller, canister.raw)
    if change.message.get(key) != fleets.APPOINTED:
        raise _refusal(f"Canister {canister} is no local index of this fleet")
    change.message.put_trust(key, fleets.DISMISSED)
    share_changes(change.message, change.caller)


# --- configuration -------------------------------------------------------------------------------------


def _configure(change: Change, args: FleetConfigureArgs) -> FleetConfigureResult | Pending:
    """Apply a change: roles are given first and then taken away, so that what is in both is taken.

    With members on other subnets the answer waits until these have it, for a while.
    """
    count = len(args.values) + sum(len(role.principals) for role in (*args.roles, *args.remove_roles))
    if count > FLEET_CHANGE_COUNT_MAX:
        raise _refusal(
            f"One change has at most {FLEET_CHANGE_COUNT_MAX} principals and values, this one has {count}: "
            "send it in parts"
        )
    fleet, message = change.caller, change.message
    before = fleets.find_fleet(message.get, fleet)
    assert before is not None, "an index has a fleet"
    holders = before.holders + _give(message, fleet, args.roles) - _take(message, fleet, args.remove_roles)
    values = before.values + sum(_set_value(message, fleet, value) for value in args.values)
    if holders > FLEET_HOLDER_COUNT_MAX:
        raise _refusal(f"The roles of a fleet have at most {FLEET_HOLDER_COUNT_MAX} principals in all")
    if values > FLEET_VALUE_COUNT_MAX:
        raise _refusal(f"A fleet has at most {FLEET_VALUE_COUNT_MAX} named values")
    version = before.config_version + 1
    after = replace(
        before, config_version=version, config_at_ns=change.request.now_ns, holders=holders, values=values
    )
    fleets.put_fleet(message, fleet, after)
    subnets = share_changes(message, fleet)
    return begin_wait(change, fleet, version, subnets) if subnets else FleetConfigureResult(version, [])


def _give(message: MessageOverlay, fleet: bytes, roles: list[FleetRole]) -> int:
    return _change_roles(
        roles, lambda key: message.get(key) is None, lambda key: message.put(key, b""), fleet
    )


def _take(message: MessageOverlay, fleet: bytes, roles: list[FleetRole]) -> int:
    return _change_roles(
        roles, lambda key: message.get(key) is not None, lambda key: message.put(key, None), fleet
    )


def _change_roles(
    roles: list[FleetRole], is_due: Callable[[bytes], bool], apply: Callable[[bytes], None], fleet: bytes
) -> int:
    """Apply a change to the principals for whom it is one; give their number."""
    changed = 0
    for role in roles:
        _check_name("role", role.role)
        for principal in role.principals:
            key = keys.fleet_role_key(fleet, role.role, principal.raw)
            if is_due(key):
                apply(key)
                changed += 1
    return changed


def _set_value(message: MessageOverlay, fleet: bytes, wanted: FleetValue) -> int:
    """Set or remove a value; give by how many the fleet has more now."""
    _check_name("value's name", wanted.name)
    key = keys.owned(keys.FLEET_VALUES, fleet, wanted.name.encode())
    was_there = message.get(key) is not None
    if wanted.value is None:
        message.put(key, None)
        return -1 if was_there else 0
    data = wanted.value.encode()
    if len(data) > FLEET_VALUE_SIZE_BYTES_MAX:
        raise _refusal(
            f"The value {wanted.name!r} has {len(data)} bytes, more than {FLEET_VALUE_SIZE_BYTES_MAX}"
        )
    message.put(key, data)
    return 0 if was_there else 1


def _check_name(what: str, name: str) -> None:
    size_bytes = len(name.encode())
    if not 0 < size_bytes <= FLEET_NAME_SIZE_BYTES_MAX:
        raise _refusal(f"A {what} has 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes, {name!r:.100} has {size_bytes}")


# --- what there is -------------------------------------------------------------------------------------


def _info(request: Request, fleet: Principal) -> FleetInfo:
    reader, raw = request.reader, fleet.raw
    record = fleets.find_fleet(reader.get, raw)
    assert record is not None, "whoever may read has found the fleet"
    return FleetInfo(
        members=record.members,
        config_version=record.config_version,
        config_at_ns=record.config_at_ns,
        modules=_modules(reader, raw),
        roles=_roles(reader, raw),
        values=_values(reader, raw),
    )


def _modules(reader: StoreReader, fleet: bytes) -> list[FleetModuleArgs]:
    head = len(keys.owned(keys.FLEET_MODULES, fleet))
    found: list[FleetModuleArgs] = []
    for key, data in reader.scan(*keys.owned_range(keys.FLEET_MODULES, fleet)):
        module = FLEET_MODULE.decode(data)
        found.append(FleetModuleArgs(key[head:], module.kind, module.version))
    return found


def _roles(reader: StoreReader, fleet: bytes) -> list[FleetRole]:
    head = len(keys.owned(keys.FLEET_ROLES, fleet))
    found: list[FleetRole] = []
    for key, _ in reader.scan(*keys.owned_range(keys.FLEET_ROLES, fleet)):
        end = head + 1 + key[head]
        role, principal = key[head + 1 : end].decode(), Principal(key[end:])
        if not found or found[-1].role != role:
            found.append(FleetRole(role, []))
        found[-1].principals.append(principal)
    return found


def _values(reader: StoreReader, fleet: bytes) -> list[FleetValue]:
    head = len(keys.owned(keys.FLEET_VALUES, fleet))
    stored = reader.scan(*keys.owned_range(keys.FLEET_VALUES, fleet))
    return [FleetValue(key[head:].decode(), data.decode()) for key, data in stored]


def _members(request: Request, args: FleetMembersArgs) -> list[Principal]:
    fleet = args.fleet.raw
    head = len(keys.owned(keys.FLEET_MEMBERS, fleet))
    start, end = keys.owned_range(keys.FLEET_MEMBERS, fleet)
    if args.after is not None:
        start = keys.owned(keys.FLEET_MEMBERS, fleet, args.after.raw) + b"\x00"
    limit = max(1, min(args.limit, FLEET_PAGE_COUNT_MAX))
    return [Principal(key[head:]) for key, _ in islice(request.reader.scan(start, end), limit)]


def _list(request: Request, _args: None) -> list[Principal]:
    found = (keys.owner_of(key) for key, _ in request.reader.scan(*keys.space_range(keys.FLEETS)))
    return [Principal(fleet) for fleet in found if request.state.canister(fleet) is not None]


def _refusal(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, text, "IC0406")


METHODS: tuple[Method, ...] = (
    update_method("cannery_fleet_found", None, None, anyone, _found, from_users=False),
    update_method("cannery_fleet_module_put", FleetModuleArgs, None, _indexes, _module_put, from_users=False),
    update_method("cannery_fleet_module_remove", bytes, None, _indexes, _module_remove, from_users=False),
    update_method("cannery_fleet_appoint", Principal, None, _indexes, _appoint, from_users=False),
    update_method("cannery_fleet_dismiss", Principal, None, _indexes, _dismiss, from_users=False),
    update_method(
        "cannery_fleet_configure",
        FleetConfigureArgs,
        FleetConfigureResult,
        _indexes,
        _configure,
        from_users=False,
    ),
    status_method("cannery_fleet_info", Principal, FleetInfo, _fleet_readers, _info),
    status_method("cannery_fleet_members", FleetMembersArgs, list[Principal], _member_readers, _members),
    query_method("cannery_fleet_list", None, list[Principal], operators_or_node, _list),
)
