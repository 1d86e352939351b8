"""The turn of an upgrade that waited at its target: it commits whole, or its result says why not.

The result is stored with the upgrade, or without it where nothing of it is kept; the last one of a batch
answers its caller. What an upgrade is stands in `management.upgrade_many`.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode, Trap
from cannery.replica.calls import commit
from cannery.replica.management.upgrade_batch import failed_target, find_batch, note_result
from cannery.replica.management.upgrade_many import upgrade_target
from cannery.replica.records import UpgradeMessage
from cannery.replica.state import MessageOverlay, RoundState


def run_upgrade(state: RoundState, canister_id: bytes, waiting: UpgradeMessage) -> None:
    """Upgrade a canister as its batch asks, and note what became of it."""
    message = MessageOverlay(state)
    batch = find_batch(message, waiting)
    try:
        try:
            result = upgrade_target(message, canister_id, waiting.caller, batch)
        except Trap as trap:
            raise Reject(RejectCode.CANISTER_ERROR, str(trap), "IC0503") from trap
    except Reject as reject:
        state.events.rejects += 1
        message = MessageOverlay(state)
        canister = message.canister(canister_id)
        was = None if canister is None else canister.module_hash
        result = failed_target(canister_id, was, reject)
    note_result(message, waiting, batch, result)
    commit(message)
