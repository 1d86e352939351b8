"""A canister is deleted: all that it holds goes, and its id is never given again.

IC interface specification, "IC method delete_canister". A stopped canister alone is deleted; who may, and the
one that asks to be deleted as soon as it has stopped, are `creation`'s and `running`'s.
"""

from __future__ import annotations

from cannery.replica import cycles, fleets, keys
from cannery.replica.management.chunks import drop_chunks
from cannery.replica.management.empty import clear_code, reject_waiting
from cannery.replica.management.modules import release_module
from cannery.replica.management.names import forget_names
from cannery.replica.management.snapshot_store import drop_snapshots
from cannery.replica.places import subnet_of
from cannery.replica.state import MessageOverlay


def delete_stopped(message: MessageOverlay, canister_id: bytes, heir: bytes = b"") -> None:
    """Delete a stopped canister; its cycles go to the heir if that is there, and burn otherwise."""
    canister, account = message.canister(canister_id), message.account(canister_id)
    assert canister is not None, "whoever deletes a canister has found it"
    assert account is not None, "a canister has an account"
    release_module(message, canister.module_hash)
    clear_code(message, canister_id, "deleted")
    drop_chunks(message, canister_id)
    drop_snapshots(message, canister_id)
    reject_waiting(message, canister_id, "deleted")
    left = account.cycles
    if heir and message.account(heir) is not None:
        cycles.debit(message, canister_id, left)
        cycles.credit(message, heir, left)
    else:
        cycles.burn(message, canister_id, left)
    message.delete_range(*keys.owned_range(keys.HISTORY, canister_id))
    forget_names(message, canister_id)
    fleets.leave(message, canister_id)
    message.put_canister(canister_id, None)
    message.put_account(canister_id, None)
    message.subnet().canister_count -= 1
    count_created(message, canister.creator, -1)


def created_by(message: MessageOverlay, creator: bytes) -> int:
    """Give how many canisters of this subnet a canister has created, wherever it lives."""
    account = message.account(creator)
    if account is not None:
        return account.canisters_created
    stored = message.get(keys.owned(keys.CREATIONS, creator))
    return 0 if stored is None else int.from_bytes(stored, "big")


def count_created(message: MessageOverlay, creator: bytes, change: int) -> None:
    """Count a canister that was created or has gone, at a creator that is here or on another subnet."""
    account = message.account(creator)
    if account is not None:
        account.canisters_created += change
    elif subnet_of(message.state.view.config, creator) != message.state.view.config.subnet:
        count = created_by(message, creator) + change
        message.put(keys.owned(keys.CREATIONS, creator), keys.u64(count) if count > 0 else None)
