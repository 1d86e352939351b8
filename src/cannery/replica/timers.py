"""Durable timers: set, cancelled, due, parked.

A timer is a record of its canister and an entry in the index of due times. A late repeating timer fires
once and goes on from there. While its canister is stopped or frozen, a timer that falls due is parked: out
of the index, so that it costs nothing, and back in when the canister starts or is topped up.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from cannery.errors import Trap
from cannery.limits import TIMER_COUNT_MAX, TIMER_EVERY_NS_MIN
from cannery.replica import keys, records
from cannery.replica.records import AccountRecord, TimerRecord
from cannery.replica.state import MessageOverlay

_TIME_NS_MAX = 2**63 - 1


def set_timer(
    message: MessageOverlay, canister_id: bytes, method: str, due_ns: int, every_ns: int, saved: bytes
) -> int:
    """Set a timer and give its number; raises `Trap` where it cannot be set."""
    account = _account(message, canister_id)
    if account.timers_open >= TIMER_COUNT_MAX:
        raise Trap(f"a canister has at most {TIMER_COUNT_MAX} timers: cancel one first")
    if every_ns < 0 or 0 < every_ns < TIMER_EVERY_NS_MIN or every_ns > _TIME_NS_MAX:
        raise Trap(f"a repeating timer's interval is {TIMER_EVERY_NS_MIN} ns or more, got {every_ns}")
    if not 0 <= due_ns <= _TIME_NS_MAX:
        raise Trap(f"a timer's time is from 0 to {_TIME_NS_MAX} ns since 1970, got {due_ns}")
    number = account.next_number
    account.next_number = number + 1
    account.timers_open += 1
    account.queued_bytes += len(saved)
    _put(message, canister_id, number, TimerRecord(method, due_ns, every_ns, saved))
    message.put(keys.due_key(due_ns, keys.DUE_TIMER, canister_id, number), b"")
    return number


def cancel_timer(message: MessageOverlay, canister_id: bytes, number: int) -> bool:
    """Cancel a timer, its waiting message included; say whether it was there."""
    timer = find_timer(message, canister_id, number)
    if timer is None:
        return False
    _remove(message, canister_id, number, timer)
    return True


def find_timer(message: MessageOverlay, canister_id: bytes, number: int) -> TimerRecord | None:
    """Give a timer by number."""
    if not 0 <= number <= _TIME_NS_MAX:
        return None
    data = message.get(keys.numbered(keys.TIMERS, canister_id, number))
    return None if data is None else records.TIMER.decode(data)


def list_timers(message: MessageOverlay, canister_id: bytes) -> Iterator[tuple[int, TimerRecord]]:
    """Give a canister's timers by number."""
    for key, data in message.scan(*keys.owned_range(keys.TIMERS, canister_id)):
        yield keys.number_of(key), records.TIMER.decode(data)


def drop_timers(message: MessageOverlay, canister_id: bytes) -> None:
    """Remove all timers of a canister: reinstall, uninstall, deletion."""
    for number, timer in list(list_timers(message, canister_id)):
        _remove(message, canister_id, number, timer)


def restore_timer(
    message: MessageOverlay,
    canister_id: bytes,
    number: int,
    method: str,
    due_ns: int,
    every_ns: int,
    saved: bytes,
) -> None:
    """Put a timer back under the number that it had; the canister has none with this number."""
    account = _account(message, canister_id)
    account.next_number = max(account.next_number, number + 1)
    account.timers_open += 1
    account.queued_bytes += len(saved)
    _put(message, canister_id, number, TimerRecord(method, due_ns, every_ns, saved))
    message.put(keys.due_key(due_ns, keys.DUE_TIMER, canister_id, number), b"")


def mark_due(message: MessageOverlay, canister_id: bytes, number: int, fires: bool) -> bool:
    """Handle a timer whose time has come; say whether its message is to be queued.

    The entry in the index is gone or moved on. `fires` False parks it: its canister is stopped or frozen.
    """
    timer = find_timer(message, canister_id, number)
    if timer is None:
        return False
    if not fires:
        _account(message, canister_id).timers_parked += 1
        _put(message, canister_id, number, replace(timer, parked=True))
        return False
    fired = replace(timer, queued=True)
    if timer.every_ns:
        late_ns = message.state.time_ns - timer.due_ns
        due_ns = timer.due_ns + (late_ns // timer.every_ns + 1) * timer.every_ns
        fired = replace(fired, due_ns=due_ns)
        message.put(keys.due_key(due_ns, keys.DUE_TIMER, canister_id, number), b"")
    _put(message, canister_id, number, fired)
    return not timer.queued


def begin_timer(message: MessageOverlay, canister_id: bytes, number: int) -> TimerRecord | None:
    """Take a timer's message off the queue: a one-shot timer is over, a repeating one may be queued again.

    A message that waited while its timer was put back by a snapshot is nobody's: the timer is due by its own
    entry in the index.
    """
    timer = find_timer(message, canister_id, number)
    if timer is None or not timer.queued:
        return None
    if timer.every_ns:
        _put(message, canister_id, number, replace(timer, queued=False))
    else:
        _remove(message, canister_id, number, timer)
    return timer


def park_timer(message: MessageOverlay, canister_id: bytes, number: int) -> None:
    """Take back a timer's waiting message, because its canister is stopped or frozen meanwhile.

    A one-shot timer is parked. A repeating one stands in the index for its next time, or fell due again
    while its message waited, and is parked already.
    """
    timer = find_timer(message, canister_id, number)
    if timer is None or not timer.queued:
        return
    is_one_shot = not timer.every_ns
    if is_one_shot:
        _account(message, canister_id).timers_parked += 1
    _put(message, canister_id, number, replace(timer, queued=False, parked=is_one_shot or timer.parked))


def unpark_timers(message: MessageOverlay, canister_id: bytes) -> None:
    """Put parked timers back into the index: they fire in the next round."""
    account = _account(message, canister_id)
    if not account.timers_parked:
        return
    for number, timer in list(list_timers(message, canister_id)):
        if timer.parked:
            _put(message, canister_id, number, replace(timer, parked=False))
            message.put(keys.due_key(timer.due_ns, keys.DUE_TIMER, canister_id, number), b"")
    account.timers_parked = 0


def _account(message: MessageOverlay, canister_id: bytes) -> AccountRecord:
    account = message.account(canister_id)
    assert account is not None, "timers belong to canisters that are there"
    return account


def _put(message: MessageOverlay, canister_id: bytes, number: int, timer: TimerRecord) -> None:
    message.put(keys.numbered(keys.TIMERS, canister_id, number), records.encode_record(timer))


def _remove(message: MessageOverlay, canister_id: bytes, number: int, timer: TimerRecord) -> None:
    account = _account(message, canister_id)
    account.timers_open -= 1
    account.queued_bytes -= len(timer.saved)
    if timer.parked:
        account.timers_parked -= 1
    message.put(keys.numbered(keys.TIMERS, canister_id, number), None)
    message.put(keys.due_key(timer.due_ns, keys.DUE_TIMER, canister_id, number), None)
