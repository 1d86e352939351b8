"""Code comes into a canister: installed, installed anew, upgraded.

IC interface specification, "IC method install_code". All of it happens on one message's overlay: the old
module's hook, the plan of stable state, the check of what is in flight, the new module's hook and health
query commit together or leave no trace. Nothing is stopped or drained for an upgrade, as calls in flight name
their continuations.
"""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from cannery.cdk.schema import SchemaError, check_in_flight, decode_schema, plan_schema
from cannery.errors import Reject, RejectCode
from cannery.limits import UPGRADE_HOOK_WORK_COUNT, UPGRADE_WORK_COUNT
from cannery.ports import EntryKind
from cannery.protocol.principal import Principal
from cannery.replica import cycles, fleets, keys
from cannery.replica.calls import list_callbacks
from cannery.replica.hooks import run_hook
from cannery.replica.management.access import check_controller, controllers, creators
from cannery.replica.management.chunks import join_chunks
from cannery.replica.management.creation import check_place, create, fund
from cannery.replica.management.empty import clear_code
from cannery.replica.management.history import ChangeKind, record_change
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.modules import (
    bring_module,
    hold_module,
    read_manifest,
    release_module,
    store_schema,
)
from cannery.replica.management.request import Change, Request
from cannery.replica.management.types import (
    CanisterIdRecord,
    CreateInstalledArgs,
    InstallChunkedCodeArgs,
    InstallCodeArgs,
    InstallMode,
)
from cannery.replica.records import SCHEMA, CanisterRecord, ModuleRecord
from cannery.replica.targets import replaced
from cannery.replica.timers import list_timers
from cannery.replica.view import show

_NO_ARGUMENT: Final = b""


def deploy(
    change: Change,
    canister_id: bytes,
    mode: InstallMode,
    module_hash: bytes,
    module: ModuleRecord,
    arg: bytes,
    sender_version: int | None,
) -> None:
    """Bring a module that the node has into a canister; where it raises `Reject`, drop the overlay."""
    canister = change.canister(canister_id)
    if canister.replaced_by:
        raise replaced(canister_id, canister)
    if mode.tag == "upgrade":
        _upgrade(change, canister_id, canister, mode, module_hash, module, arg)
        kind = ChangeKind.UPGRADE
    elif mode.tag == "reinstall":
        clear_code(change.message, canister_id, "reinstalled")
        _install(change, canister_id, module_hash, module, arg)
        kind = ChangeKind.REINSTALL
    elif canister.module_hash is not None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(canister_id)} is not empty: upgrade keeps its state, reinstall drops it",
            "IC0514",
        )
    else:
        _install(change, canister_id, module_hash, module, arg)
        kind = ChangeKind.INSTALL
    _check_frozen(change, canister_id)
    record_change(change, canister_id, kind, sender_version, module_hash=module_hash)


def _install(
    change: Change, canister_id: bytes, module_hash: bytes, module: ModuleRecord, arg: bytes
) -> None:
    """Start a module on empty state."""
    _change_module(change, canister_id, module_hash, module.schema_id)
    if "init" in module.hooks:
        _run(change, canister_id, EntryKind.INIT, module_hash, module.schema_id, arg)


def _upgrade(
    change: Change,
    canister_id: bytes,
    canister: CanisterRecord,
    mode: InstallMode,
    module_hash: bytes,
    module: ModuleRecord,
    arg: bytes,
) -> None:
    """Put a new module on the state that is there."""
    old_hash, message = canister.module_hash, change.message
    if old_hash is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(canister_id)} is empty: use mode install",
            "IC0537",
        )
    message.state.events.work += UPGRADE_WORK_COUNT
    flags = mode.upgrade
    old = message.module(old_hash)
    if old is not None and "pre_upgrade" in old.hooks and not (flags is not None and flags.skip_pre_upgrade):
        _run(change, canister_id, EntryKind.PRE_UPGRADE, old_hash, canister.schema_id, _NO_ARGUMENT)
    if module_hash != old_hash:
        _check_in_flight(change, canister_id, module_hash)
    planned = _plan(change, canister.schema_id, module_hash)
    _change_module(change, canister_id, module_hash, planned)
    if "post_upgrade" in module.hooks:
        _run(change, canister_id, EntryKind.POST_UPGRADE, module_hash, planned, arg)
    if "health" in module.hooks:
        _run(change, canister_id, EntryKind.HEALTH, module_hash, planned, _NO_ARGUMENT)


def _change_module(change: Change, canister_id: bytes, module_hash: bytes, schema: bytes) -> None:
    message = change.message
    canister = change.canister(canister_id)
    if canister.module_hash != module_hash:
        release_module(message, canister.module_hash)
        hold_module(message, module_hash)
    changed = replace(canister, module_hash=module_hash, schema_id=schema, installed_ns=change.request.now_ns)
    message.put_canister(canister_id, changed)
    fleets.leave_with_module(message, canister_id)
    change.account(canister_id).version += 1


def _run(
    change: Change, canister_id: bytes, kind: EntryKind, module_hash: bytes, schema: bytes, arg: bytes
) -> None:
    if kind is not EntryKind.INIT:
        # It may take as long as a hook may, and whoever waits for the round waits for it.
        change.message.state.events.work += UPGRADE_HOOK_WORK_COUNT
    run_hook(change.message, canister_id, kind, module_hash, schema, arg, change.caller)


def _check_in_flight(change: Change, canister_id: bytes, module_hash: bytes) -> None:
    """Refuse a module that cannot go on with what is open: continuations by name, saved values, timers."""
    message, account = change.message, change.account(canister_id)
    if not account.calls_open and not account.timers_open:
        return
    continuations = [
        (callback.continuation, callback.saved)
        for _, callback in list_callbacks(message, canister_id)
        if callback.continuation is not None
    ]
    timers = [(timer.method, timer.saved) for _, timer in list_timers(message, canister_id)]
    try:
        check_in_flight(read_manifest(message, module_hash), continuations, timers, message.type_bytes)
    except SchemaError as error:
        raise _unfit(canister_id, error) from None


def _plan(change: Change, old_schema: bytes, module_hash: bytes) -> bytes:
    """Plan the stable state of a canister under a new module and give the schema's id.

    A plan depends on the two alone, so it is kept: an upgrade of a fleet plans once.
    """
    message = change.message
    key = keys.hashed(keys.SCHEMAS, old_schema + module_hash)
    known = message.get(key)
    if known is not None:
        return known
    stored = message.get(keys.hashed(keys.SCHEMAS, old_schema))
    old = None if stored is None else decode_schema(SCHEMA.decode(stored).description)
    try:
        planned = plan_schema(old, read_manifest(message, module_hash), message.type_bytes)
    except SchemaError as error:
        raise Reject(RejectCode.CANISTER_ERROR, f"The upgrade is refused: {error}", "IC0504") from None
    number = store_schema(message, planned)
    message.put(key, number)
    return number


def _check_frozen(change: Change, canister_id: bytes) -> None:
    canister, account = change.canister(canister_id), change.account(canister_id)
    priced_from_ns = change.message.state.subnet.priced_from_ns
    if cycles.is_frozen(change.request.config, canister, account, change.request.now_ns, priced_from_ns):
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"Canister {show(canister_id)} would be out of cycles after the installation: top it up",
            "IC0207",
        )


def _unfit(canister_id: bytes, error: SchemaError) -> Reject:
    return Reject(
        RejectCode.CANISTER_ERROR,
        f"The upgrade of canister {show(canister_id)} is refused: {error}. Keep these methods in the new "
        "module, or wait until nothing is in flight",
        "IC0504",
    )


# --- methods -------------------------------------------------------------------------------------------


def _install_code(change: Change, args: InstallCodeArgs) -> None:
    module_hash, module = bring_module(change, args.wasm_module)
    canister_id = args.canister_id.raw
    deploy(change, canister_id, args.mode, module_hash, module, args.arg, args.sender_canister_version)


def _may_install_chunked(request: Request, args: InstallChunkedCodeArgs) -> None:
    check_controller(request, args.target_canister.raw)
    if args.store_canister is not None and request.caller != args.store_canister.raw:
        check_controller(request, args.store_canister.raw)


def _install_chunked(change: Change, args: InstallChunkedCodeArgs) -> None:
    module_hash, message = args.wasm_module_hash, change.message
    module = message.module(module_hash)
    if module is None:
        store = args.target_canister if args.store_canister is None else args.store_canister
        data = join_chunks(message, store.raw, args.chunk_hashes_list, module_hash)
        module_hash, module = bring_module(change, data)
    target = args.target_canister.raw
    deploy(change, target, args.mode, module_hash, module, args.arg, args.sender_canister_version)


def _create_installed(change: Change, args: CreateInstalledArgs) -> CanisterIdRecord:
    check_place(change, args.subnet)
    module = change.message.module(args.module_hash)
    if module is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Module {args.module_hash.hex()} is not on this node: an operator adds it: `cannery module add`",
            "IC0537",
        )
    canister_id = create(change, None, None, args.controllers)
    fund(change, canister_id)
    deploy(change, canister_id, InstallMode.install(), args.module_hash, module, args.arg, None)
    return CanisterIdRecord(Principal(canister_id))


METHODS: tuple[Method, ...] = (
    update_method("install_code", InstallCodeArgs, None, controllers, _install_code),
    update_method(
        "install_chunked_code", InstallChunkedCodeArgs, None, _may_install_chunked, _install_chunked
    ),
    update_method(
        "cannery_create_installed", CreateInstalledArgs, CanisterIdRecord, creators, _create_installed
    ),
)
