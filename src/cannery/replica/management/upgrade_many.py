"""Many canisters are upgraded by one call, each in a message of its own.

`cannery_upgrade_many` lets an upgrade wait in each target's queue and is answered when the last one has
run. Each target commits whole or stays byte for byte as it was, whatever becomes of the others. Who
controls a target is asked when the call comes in, and again when its turn comes.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import UPGRADE_ARG_SIZE_BYTES_MAX, UPGRADE_BATCH_COUNT_MAX, UPGRADE_TARGET_COUNT_MAX
from cannery.replica import keys
from cannery.replica.management.access import canisters_or_operators, check_controller
from cannery.replica.management.compare import interface_difference
from cannery.replica.management.install import deploy
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.request import Change, Pending, Request
from cannery.replica.management.types import InstallMode, UpgradeFlags
from cannery.replica.management.upgrade_batch import (
    TargetResult,
    UpgradeBatch,
    UpgradeEnd,
    count_batches,
    failed_target,
    show_result,
    store_batch,
)
from cannery.replica.management.upgrade_types import UpgradeManyArgs, UpgradeResult
from cannery.replica.records import CanisterRecord, IngressOrigin, UpgradeMessage
from cannery.replica.state import MessageOverlay
from cannery.replica.targets import replaced
from cannery.replica.view import show

_METHOD = "cannery_upgrade_many"
_UPGRADE = InstallMode.upgrade(None)
_WITHOUT_PRE_UPGRADE = InstallMode.upgrade(UpgradeFlags(skip_pre_upgrade=True))


def upgrade_target(
    message: MessageOverlay, canister_id: bytes, caller: bytes, batch: UpgradeBatch
) -> TargetResult:
    """Upgrade one target of a batch; where it raises `Reject`, drop the overlay."""
    state, module = message.state, message.module(batch.module_hash)
    from_user = isinstance(batch.origin, IngressOrigin)
    request = Request(_METHOD, caller, from_user, state.time_ns, state.view.config, message, message.layer)
    canister = request.canister(canister_id)
    check_controller(request, canister_id)
    if canister.replaced_by:
        raise replaced(canister_id, canister)
    old_hash = canister.module_hash
    if old_hash is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(canister_id)} is empty: install a module in it first",
            "IC0537",
        )
    if old_hash == batch.module_hash:
        return TargetResult(canister_id, UpgradeEnd.UNCHANGED, old_hash)
    reason = _skips(request, canister_id, canister, batch)
    if reason is not None:
        return TargetResult(canister_id, UpgradeEnd.SKIPPED, old_hash, text=reason)
    if not batch.force:
        _check_interface(message, canister_id, old_hash, batch.module_hash)
    assert module is not None, "modules stay on the node"
    change = Change(request, message, batch.origin, 0)
    mode = _WITHOUT_PRE_UPGRADE if batch.skip_pre_upgrade else _UPGRADE
    deploy(change, canister_id, mode, batch.module_hash, module, batch.arg, None)
    return TargetResult(canister_id, UpgradeEnd.UPGRADED, old_hash)


def _skips(request: Request, canister_id: bytes, canister: CanisterRecord, batch: UpgradeBatch) -> str | None:
    """Say why a canister is left out, if it is."""
    found = canister.module_hash
    if batch.only_from is not None and found is not None and found != batch.only_from:
        return f"it runs module {found.hex()}, and only those on {batch.only_from.hex()} are upgraded"
    since_ns = batch.active_since_ns
    if since_ns is not None and request.account(canister_id).active_ns < since_ns:
        return f"it has run nothing since {since_ns} ns"
    return None


def _check_interface(message: MessageOverlay, canister_id: bytes, old_hash: bytes, new_hash: bytes) -> None:
    """Refuse a module whose interface cannot stand for the running one's; each pair is compared once.

    What was found is kept in the round, whatever becomes of this upgrade: it depends on the two alone.
    """
    layer, key = message.state.layer, keys.hashed(keys.SCHEMAS, old_hash + new_hash)
    known = layer.get(key)
    if known is None:
        known = (interface_difference(message, old_hash, new_hash) or "").encode()
        layer.put(key, known)
    if known:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"The upgrade of canister {show(canister_id)} is refused: the new interface cannot replace the "
            f"running one: {known.decode()}. Keep what clients call, or use force",
            "IC0504",
        )


# --- the method ----------------------------------------------------------------------------------------


def _upgrade_many(change: Change, args: UpgradeManyArgs) -> list[UpgradeResult] | Pending:
    message, caller = change.message, change.caller
    targets = [target.raw for target in args.targets]
    number = _checked_number(change, args, targets)
    # One look into the store for all of them.
    message.state.reader.multi_get(
        [keys.owned(space, target) for target in targets for space in (keys.CANISTERS, keys.ACCOUNTS)]
    )
    results = [_refusal(change, target) for target in targets]
    message.state.note_work(len(targets), 0)
    if None not in results:
        return [show_result(result) for result in results if result is not None]
    batch = UpgradeBatch(
        change.origin,
        change.accept(),
        args.module_hash,
        args.arg,
        args.force,
        args.only_from,
        args.active_since_ns,
        change.request.now_ns,
        bool(args.skip_pre_upgrade),
    )
    store_batch(message, caller, number, batch, results)
    for place, (target, result) in enumerate(zip(targets, results, strict=True)):
        if result is None:
            message.wait_for_upgrade(target, UpgradeMessage(caller, number, place))
    return Pending()


def _checked_number(change: Change, args: UpgradeManyArgs, targets: list[bytes]) -> int:
    """Check what a call asks as a whole and give its batch's number; raises `Reject`."""
    if len(targets) > UPGRADE_TARGET_COUNT_MAX:
        raise _refused(f"one call upgrades at most {UPGRADE_TARGET_COUNT_MAX} canisters, got {len(targets)}")
    seen: set[bytes] = set()
    for target in targets:
        if target in seen:
            raise _refused(f"canister {show(target)} is named twice: name each one once")
        seen.add(target)
    if len(args.arg) > UPGRADE_ARG_SIZE_BYTES_MAX:
        raise _refused(f"arg has at most {UPGRADE_ARG_SIZE_BYTES_MAX} bytes here, got {len(args.arg)}")
    if change.message.module(args.module_hash) is None:
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Module {args.module_hash[:64].hex()} is not on this node: an operator adds it: "
            "`cannery module add`",
            "IC0537",
        )
    count, number = count_batches(change.message, change.caller)
    if count >= UPGRADE_BATCH_COUNT_MAX:
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"{count} batches of {show(change.caller)} are under way, as many as may be: wait for an answer",
        )
    return number


def _refusal(change: Change, target: bytes) -> TargetResult | None:
    """Give the end of a target that the caller may not upgrade, or that is not there."""
    try:
        check_controller(change.request, target)
    except Reject as reject:
        return failed_target(target, None, reject)
    return None


def _refused(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, text, "IC0406")


METHODS: tuple[Method, ...] = (
    update_method(_METHOD, UpgradeManyArgs, list[UpgradeResult], canisters_or_operators, _upgrade_many),
)
