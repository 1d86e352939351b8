"""Batches of upgrades on disk: what was asked, the results so far, and the answer when the last one is there.

A batch belongs to its caller and is known by number. Its results stand beside it by the place of their
target; the number of those still missing stands before them. Nothing waits in memory: after a crash the
targets' messages go on where they were. This module upgrades nothing; `upgrade_many` does.
"""

from __future__ import annotations

from enum import IntEnum

import msgspec

from cannery.candid import codec
from cannery.candid.python import type_of
from cannery.errors import Reject
from cannery.limits import UPGRADE_TEXT_SIZE_CHARS_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.upgrade_types import (
    Upgraded,
    UpgradeFailure,
    UpgradeOutcome,
    UpgradeResult,
)
from cannery.replica.records import Origin, RecordDecoder, UpgradeMessage, encode_record
from cannery.replica.state import MessageOverlay, Outcome


class UpgradeBatch(msgspec.Struct, frozen=True, array_like=True):
    """What one call asked for: who is answered, the attached cycles, and what every target gets."""

    origin: Origin
    cycles: int
    module_hash: bytes
    arg: bytes
    force: bool
    only_from: bytes | None
    active_since_ns: int | None
    created_ns: int
    skip_pre_upgrade: bool = False


class UpgradeEnd(IntEnum):
    """What became of a target."""

    UPGRADED = 1
    UNCHANGED = 2
    SKIPPED = 3
    FAILED = 4


class TargetResult(msgspec.Struct, frozen=True, array_like=True):
    """One target's end; `from_hash` is the module that it was on, empty for none.

    `code`, `text` and `error_code` are a reject's; `text` is also the reason why a target was skipped.
    """

    canister_id: bytes
    end: UpgradeEnd
    from_hash: bytes = b""
    code: int = 0
    text: str = ""
    error_code: str | None = None


UPGRADE_BATCH = RecordDecoder(UpgradeBatch, "upgrade batch")
TARGET_RESULT = RecordDecoder(TargetResult, "upgrade result")

_encode = codec.encoder((type_of(list[UpgradeResult]),))


def failed_target(canister_id: bytes, from_hash: bytes | None, reject: Reject) -> TargetResult:
    """Give the end of a target that a reject left as it was."""
    text = reject.message
    if len(text) > UPGRADE_TEXT_SIZE_CHARS_MAX:
        text = text[:UPGRADE_TEXT_SIZE_CHARS_MAX] + "..."
    return TargetResult(
        canister_id, UpgradeEnd.FAILED, from_hash or b"", int(reject.code), text, reject.error_code
    )


def show_result(result: TargetResult) -> UpgradeResult:
    """Give a target's end as callers see it."""
    came_from = result.from_hash or None
    if result.end is UpgradeEnd.UPGRADED:
        outcome = UpgradeOutcome.upgraded(Upgraded(result.from_hash))
    elif result.end is UpgradeEnd.UNCHANGED:
        outcome = UpgradeOutcome.unchanged()
    elif result.end is UpgradeEnd.SKIPPED:
        outcome = UpgradeOutcome.skipped(result.text)
    else:
        outcome = UpgradeOutcome.failed(
            UpgradeFailure(result.code, result.text, came_from, result.error_code)
        )
    return UpgradeResult(Principal(result.canister_id), outcome)


# --- on disk -------------------------------------------------------------------------------------------


def count_batches(message: MessageOverlay, caller: bytes) -> tuple[int, int]:
    """Give how many batches of a caller are open, and the number for the next one."""
    numbers = [
        keys.number_of(key) for key, _ in message.scan(*keys.owned_range(keys.UPGRADE_BATCHES, caller))
    ]
    return len(numbers), numbers[-1] + 1 if numbers else 1


def store_batch(
    message: MessageOverlay,
    caller: bytes,
    number: int,
    batch: UpgradeBatch,
    results: list[TargetResult | None],
) -> None:
    """Store a batch, the results that are there at once, and the number of those that are missing."""
    message.put(keys.numbered(keys.UPGRADE_BATCHES, caller, number), encode_record(batch))
    start = keys.numbered(keys.UPGRADE_RESULTS, caller, number)
    message.put(start, keys.u64(results.count(None)))
    for place, result in enumerate(results):
        if result is not None:
            message.put(start + keys.u64(place), encode_record(result))


def find_batch(message: MessageOverlay, waiting: UpgradeMessage) -> UpgradeBatch:
    """Give the batch that a waiting upgrade belongs to: it is there until its last result."""
    stored = message.get(keys.numbered(keys.UPGRADE_BATCHES, waiting.caller, waiting.batch))
    assert stored is not None, "a batch stays until each target has its result"
    return UPGRADE_BATCH.decode(stored)


def note_result(
    message: MessageOverlay, waiting: UpgradeMessage, batch: UpgradeBatch, result: TargetResult
) -> None:
    """Store a target's result; with the last one the batch goes, and its caller is answered."""
    start = keys.numbered(keys.UPGRADE_RESULTS, waiting.caller, waiting.batch)
    stored = message.get(start)
    assert stored is not None, "a batch stays until each target has its result"
    missing = int.from_bytes(stored, "big") - 1
    message.put(start, keys.u64(missing))
    message.put(start + keys.u64(waiting.place), encode_record(result))
    if missing:
        return
    end = keys.after_prefix(start)
    found = [TARGET_RESULT.decode(data) for key, data in message.scan(start, end) if key != start]
    message.delete_range(start, end)
    message.put(keys.numbered(keys.UPGRADE_BATCHES, waiting.caller, waiting.batch), None)
    reply = _encode(([show_result(result) for result in found],))
    message.answer(batch.origin, Outcome(reply=reply, refund=batch.cycles))
