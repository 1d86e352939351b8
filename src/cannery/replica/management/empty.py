"""A canister becomes empty: its code and state go, what is open is rejected.

IC interface specification, "IC method uninstall_code" and the rule "Code uninstallation". Reinstallation and
deletion begin in the same way.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.replica import cycles, fleets, keys
from cannery.replica.calls import abandon_calls
from cannery.replica.events import drop_events
from cannery.replica.logs import drop_log
from cannery.replica.management.access import controllers_or_operators
from cannery.replica.management.chunks import drop_chunks
from cannery.replica.management.history import ChangeKind, record_change
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.modules import release_module
from cannery.replica.management.request import Change
from cannery.replica.management.types import VersionedCanisterId
from cannery.replica.management.upgrade_batch import failed_target, find_batch, note_result
from cannery.replica.records import CallMessage, CallOrigin, Lane, UpgradeMessage
from cannery.replica.state import MessageOverlay, Outcome
from cannery.replica.timers import drop_timers
from cannery.replica.view import show


def clear_code(message: MessageOverlay, canister_id: bytes, what: str) -> None:
    """Reject what a canister has open; remove its state, timers, certified data, log and events.

    A local index knows nothing of its children any more: it is none until it is appointed again.
    """
    fleets.dismiss(message, canister_id)
    cycles.settle_storage(message, canister_id)
    abandon_calls(message, canister_id, f"Canister {show(canister_id)} was {what} before it answered")
    drop_timers(message, canister_id)
    drop_log(message, canister_id)
    drop_events(message, canister_id)
    message.put(keys.owned(keys.CERTIFIED, canister_id), None)
    message.delete_range(*keys.owned_range(keys.STABLE, canister_id))
    account = message.account(canister_id)
    assert account is not None, "whoever clears a canister has found it"
    account.memory_bytes = account.key_count = 0


def reject_waiting(message: MessageOverlay, canister_id: bytes, what: str) -> None:
    """Reject the calls, and end the upgrades, that wait at a stopped canister; nothing else can wait there.

    The round's queues are emptied at once, whatever becomes of the overlay: nothing may fail afterwards.
    """
    account = message.account(canister_id)
    assert account is not None, "whoever clears a canister has found it"
    lanes = message.state.scheduler.lanes(canister_id, account)
    text = f"Canister {show(canister_id)} was {what} before it took this call"
    for waiting in lanes.take_all(Lane.CALLS):
        assert isinstance(waiting, CallMessage), "the lane of calls holds calls"
        outcome = Outcome(b"", RejectCode.CANISTER_REJECT, text, None, waiting.cycles)
        message.answer(CallOrigin(waiting.caller, waiting.callback), outcome, canister_id)
    gone = Reject(RejectCode.DESTINATION_INVALID, f"Canister {show(canister_id)} was {what}", "IC0301")
    for waiting in lanes.take_all(Lane.TIMERS):
        assert isinstance(waiting, UpgradeMessage), "the timers of a stopped canister are parked"
        batch = find_batch(message, waiting)
        note_result(message, waiting, batch, failed_target(canister_id, None, gone))
    assert not lanes.waiting, "a canister stops when no other message waits"


def uninstall(change: Change, canister_id: bytes, sender_version: int | None) -> None:
    """Make a canister empty, and note it in its history."""
    canister, message = change.canister(canister_id), change.message
    release_module(message, canister.module_hash)
    clear_code(message, canister_id, "uninstalled")
    drop_chunks(message, canister_id)
    message.put_canister(canister_id, replace(canister, module_hash=None, schema_id=b"", installed_ns=0))
    change.account(canister_id).version += 1
    record_change(change, canister_id, ChangeKind.UNINSTALL, sender_version)


def _uninstall(change: Change, args: VersionedCanisterId) -> None:
    uninstall(change, args.canister_id.raw, args.sender_canister_version)


METHODS: tuple[Method, ...] = (
    update_method("uninstall_code", VersionedCanisterId, None, controllers_or_operators, _uninstall),
)
