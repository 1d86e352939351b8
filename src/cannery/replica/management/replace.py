"""A canister moves to a new id, with all that it holds, and the old id points there.

`cannery_replace` makes a new canister with the controllers, settings and fleet of an old one, copies its
stable state, timers and certified data, moves its cycles, upgrades the module there with its hooks, and
empties the old one: all of it in one message, or nothing. Calls and queries to the old id are then rejected
with `CNRY0301` and the new id (`targets.require_canister`). Calls in flight belong to an id and cannot move,
so a canister that has any is refused. The copy costs time in its round, hence the bounds of snapshots.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import SNAPSHOT_KEY_COUNT_MAX, SNAPSHOT_SIZE_BYTES_MAX
from cannery.protocol.principal import Principal
from cannery.replica import cycles, fleets, keys
from cannery.replica.management.access import canisters_or_operators, check_controller
from cannery.replica.management.creation import create, fund
from cannery.replica.management.empty import uninstall
from cannery.replica.management.install import deploy
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.modules import hold_module
from cannery.replica.management.request import Change, Request
from cannery.replica.management.types import CanisterIdRecord, InstallMode, ReplaceArgs
from cannery.replica.records import CanisterRecord, CanisterStatus, TimerRecord
from cannery.replica.targets import replaced
from cannery.replica.timers import list_timers, restore_timer
from cannery.replica.view import show


def _may_replace(request: Request, args: ReplaceArgs) -> None:
    """Let controllers in; over HTTP those who are operators, as a canister is made."""
    canisters_or_operators(request, args)
    check_controller(request, args.canister_id.raw)


def _replace(change: Change, args: ReplaceArgs) -> CanisterIdRecord:
    old_id = args.canister_id.raw
    old, module_hash = _checked(change, args)
    new_id = _create(change, old_id, old)
    message = change.message
    cycles.settle_storage(message, old_id)
    _move_cycles(change, old_id, new_id)
    _copy_state(change, old_id, new_id)
    hold_module(message, module_hash)
    made = replace(change.canister(new_id), module_hash=module_hash, schema_id=old.schema_id)
    message.put_canister(new_id, made)
    _join(change, old, new_id)
    module = message.module(args.module_hash)
    assert module is not None, "it was looked at"
    deploy(change, new_id, InstallMode.upgrade(None), args.module_hash, module, args.arg, None)
    uninstall(change, old_id, None)
    fleets.leave(message, old_id)
    message.put_canister(old_id, replace(change.canister(old_id), replaced_by=new_id))
    return CanisterIdRecord(Principal(new_id))


def _checked(change: Change, args: ReplaceArgs) -> tuple[CanisterRecord, bytes]:
    """Look at the old canister and the module; raises `Reject` where it cannot be replaced."""
    old_id = args.canister_id.raw
    old, account = change.canister(old_id), change.account(old_id)
    if old.replaced_by:
        raise replaced(old_id, old)
    if old.module_hash is None:
        raise _refused(args, "is empty: there is nothing to move", "IC0537")
    if args.expected is not None and args.expected != old.module_hash:
        raise _refused(args, f"runs module {old.module_hash.hex()}, not the expected one", "IC0504")
    if change.message.module(args.module_hash) is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Module {args.module_hash[:64].hex()} is not on this node: an operator adds it: "
            "`cannery module add`",
            "IC0537",
        )
    if old.fleet == old_id:
        raise _refused(args, "is the index of a fleet, which is known by its id: upgrade it", "IC0504")
    if fleets.is_local(change.message.get, old.fleet, old_id):
        raise _refused(args, "is a local index, which its children know by its id: upgrade it", "IC0504")
    open_count = account.calls_open + account.contexts_open
    if open_count:
        what = f"has {open_count} calls in flight, which cannot move: stop it first"
        raise _refused(args, what, "IC0510")
    if account.memory_bytes > SNAPSHOT_SIZE_BYTES_MAX:
        raise _too_large(old_id, f"{account.memory_bytes} bytes")
    return old, old.module_hash


def _create(change: Change, old_id: bytes, old: CanisterRecord) -> bytes:
    """Make the new canister with what the old one is told to be; one that controls itself goes on so."""
    new_id = create(change, None, None, [Principal(raw) for raw in old.controllers])
    fund(change, new_id)
    status = CanisterStatus.RUNNING if old.status is CanisterStatus.RUNNING else CanisterStatus.STOPPED
    holders = tuple(new_id if raw == old_id else raw for raw in old.controllers)
    made = replace(change.canister(new_id), controllers=holders, settings=old.settings, status=status)
    change.message.put_canister(new_id, made)
    return new_id


def _move_cycles(change: Change, old_id: bytes, new_id: bytes) -> None:
    before, after = change.account(old_id), change.account(new_id)
    after.cycles += before.cycles
    before.cycles = 0
    after.alarm_cycles, after.alarm_told = before.alarm_cycles, before.alarm_told
    before.alarm_cycles, before.alarm_told = 0, False
    after.next_number, after.active_ns = before.next_number, before.active_ns


def _copy_state(change: Change, old_id: bytes, new_id: bytes) -> None:
    """Copy stable state, certified data and timers; raises `Reject` past the bound on keys."""
    message, after = change.message, change.account(new_id)
    start, end = keys.owned_range(keys.STABLE, old_id)
    prefix, skipped = keys.owned(keys.STABLE, new_id), len(start)
    count = size_bytes = 0
    for key, value in message.scan(start, end):
        message.put(prefix + key[skipped:], value)
        count += 1
        size_bytes += len(key) - skipped + len(value)
        if count > SNAPSHOT_KEY_COUNT_MAX:
            raise _too_large(old_id, f"more than {SNAPSHOT_KEY_COUNT_MAX} keys")
    after.memory_bytes, after.key_count = size_bytes, count
    certified = message.get(keys.owned(keys.CERTIFIED, old_id))
    if certified is not None:
        message.put(keys.owned(keys.CERTIFIED, new_id), certified)
    for number, timer in list(list_timers(message, old_id)):
        due_ns = _due_again_ns(timer, change.request.now_ns)
        restore_timer(message, new_id, number, timer.method, due_ns, timer.every_ns, timer.saved)
    message.state.note_work(count, size_bytes)


def _due_again_ns(timer: TimerRecord, now_ns: int) -> int:
    """Give when a timer is due at the new id: at once, in its rhythm, where its message waits at the old."""
    if timer.queued and timer.every_ns:
        return min(timer.due_ns - timer.every_ns, now_ns)
    return timer.due_ns


def _join(change: Change, old: CanisterRecord, new_id: bytes) -> None:
    """Make the new canister a member where the old one is: by its creation it is, where its index asked."""
    if change.canister(new_id).fleet != old.fleet and old.fleet:
        fleets.join(change.message, new_id, old.fleet)


def _too_large(canister_id: bytes, what: str) -> Reject:
    return Reject(
        RejectCode.CANISTER_REJECT,
        f"Canister {show(canister_id)} has {what} of stable state: at most {SNAPSHOT_SIZE_BYTES_MAX} bytes "
        f"and {SNAPSHOT_KEY_COUNT_MAX} keys are copied in one message",
        "IC0406",
    )


def _refused(args: ReplaceArgs, what: str, error_code: str) -> Reject:
    text = f"Canister {show(args.canister_id.raw)} {what}"
    return Reject(RejectCode.CANISTER_ERROR, text, error_code)


METHODS: tuple[Method, ...] = (
    update_method("cannery_replace", ReplaceArgs, CanisterIdRecord, _may_replace, _replace),
)
