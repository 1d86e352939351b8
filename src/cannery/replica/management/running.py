"""Canisters are stopped and started.

IC interface specification, "IC method stop_canister" and "IC method start_canister". Whoever stops waits in a
record until nothing is open at the canister, or until the deadline; `cannery_stop_canister` with `force`
turns what is open into rejects.
"""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from msgspec.structs import replace

from cannery.errors import Reject, RejectCode
from cannery.limits import STOP_DEADLINE_NS, STOP_WAITER_COUNT_MAX
from cannery.replica import cycles, keys
from cannery.replica.calls import abandon_calls, in_flight
from cannery.replica.management.access import controllers_or_operators
from cannery.replica.management.deletion import delete_stopped
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.request import Change, Pending
from cannery.replica.management.types import CanisterIdRecord, DeleteArgs, StopArgs
from cannery.replica.records import CanisterStatus, Origin, RecordDecoder, encode_record
from cannery.replica.state import MessageOverlay, Outcome
from cannery.replica.timers import unpark_timers
from cannery.replica.view import show


class StopWaiter(msgspec.Struct, frozen=True, array_like=True):
    """Somebody who waits until a canister has stopped: who is answered, by when, their attached cycles.

    With an `heir` the canister is then deleted, and its cycles are the heir's; an empty one: they burn.
    """

    origin: Origin
    deadline_ns: int
    cycles: int
    heir: bytes | None = None


STOP_WAITER = RecordDecoder(StopWaiter, "stop")

_EMPTY_REPLY = b"DIDL\x00\x00"


def settle_stop(message: MessageOverlay, canister_id: bytes) -> None:
    """Make a stopping canister stopped where nothing is open at it any more, and answer who waits."""
    canister, account = message.canister(canister_id), message.account(canister_id)
    if (
        canister is None
        or account is None
        or canister.status is not CanisterStatus.STOPPING
        or in_flight(message, canister_id)
    ):
        return
    message.put_canister(canister_id, replace(canister, status=CanisterStatus.STOPPED))
    account.version += 1
    heirs: list[bytes] = []
    for number, waiter in _waiters(message, canister_id):
        _forget(message, canister_id, number, waiter)
        message.answer(waiter.origin, Outcome(_EMPTY_REPLY, refund=waiter.cycles))
        heirs += [] if waiter.heir is None else [waiter.heir]
    if heirs:
        delete_stopped(message, canister_id, heirs[0])


def expire_stops(message: MessageOverlay, canister_id: bytes, number: int) -> None:
    """Answer one who waited in vain; the canister goes on stopping."""
    stored = message.get(keys.numbered(keys.STOPS, canister_id, number))
    if stored is None:
        return
    waiter = STOP_WAITER.decode(stored)
    _forget(message, canister_id, number, waiter)
    text = (
        f"Canister {show(canister_id)} has not stopped within {STOP_DEADLINE_NS // 1_000_000_000} s: "
        "calls are still in flight. It goes on stopping; ask again, or force it with cannery_stop_canister"
    )
    _reject(message, waiter, RejectCode.SYS_TRANSIENT, text, "IC0206")


def _stop(change: Change, canister_id: bytes, heir: bytes | None = None) -> Pending | None:
    message = change.message
    canister, account = change.canister(canister_id), change.account(canister_id)
    account.version += 1
    if canister.status is CanisterStatus.STOPPED:
        return None
    if canister.status is CanisterStatus.RUNNING:
        message.put_canister(canister_id, replace(canister, status=CanisterStatus.STOPPING))
    if not in_flight(message, canister_id):
        settle_stop(message, canister_id)
        return None
    if sum(1 for _ in _waiters(message, canister_id)) >= STOP_WAITER_COUNT_MAX:
        raise Reject(
            RejectCode.SYS_TRANSIENT,
            f"{STOP_WAITER_COUNT_MAX} callers wait for canister {show(canister_id)} to stop already",
            "IC0206",
        )
    number = account.next_number
    account.next_number += 1
    waiter = StopWaiter(change.origin, change.request.now_ns + STOP_DEADLINE_NS, change.cycles, heir)
    message.put(keys.numbered(keys.STOPS, canister_id, number), encode_record(waiter))
    message.put(keys.due_key(waiter.deadline_ns, keys.DUE_STOP, canister_id, number), b"")
    return Pending()


def _waiters(message: MessageOverlay, canister_id: bytes) -> Iterator[tuple[int, StopWaiter]]:
    stored = list(message.scan(*keys.owned_range(keys.STOPS, canister_id)))
    return ((keys.number_of(key), STOP_WAITER.decode(data)) for key, data in stored)


def _forget(message: MessageOverlay, canister_id: bytes, number: int, waiter: StopWaiter) -> None:
    message.put(keys.numbered(keys.STOPS, canister_id, number), None)
    message.put(keys.due_key(waiter.deadline_ns, keys.DUE_STOP, canister_id, number), None)


def _reject(
    message: MessageOverlay, waiter: StopWaiter, code: RejectCode, text: str, error_code: str
) -> None:
    message.answer(waiter.origin, Outcome(b"", code, text, error_code, waiter.cycles))


# --- methods -------------------------------------------------------------------------------------------


def _stop_canister(change: Change, args: CanisterIdRecord) -> Pending | None:
    return _stop(change, args.canister_id.raw)


def _cannery_stop(change: Change, args: StopArgs) -> Pending | None:
    canister_id = args.canister_id.raw
    if args.force:
        cycles.settle_storage(change.message, canister_id)
        abandon_calls(
            change.message, canister_id, f"Canister {args.canister_id} was stopped before it answered"
        )
    return _stop(change, canister_id)


def _delete_soon(change: Change, args: DeleteArgs) -> Pending | None:
    """Turn what a canister has open into rejects, and delete it as soon as it has come to rest; a canister
    that controls itself can ask this of itself.
    """
    canister_id, message = args.canister_id.raw, change.message
    heir = b"" if args.cycles_to is None else args.cycles_to.raw
    if heir and (heir == canister_id or message.account(heir) is None):
        raise Reject(
            RejectCode.CANISTER_ERROR,
            f"Canister {show(heir)} cannot get the cycles: it is not on this subnet, or it is deleted itself",
            "IC0301",
        )
    change.canister(canister_id)
    cycles.settle_storage(message, canister_id)
    abandon_calls(message, canister_id, f"Canister {args.canister_id} was deleted before it answered")
    pending = _stop(change, canister_id, heir)
    if pending is None and message.canister(canister_id) is not None:
        delete_stopped(message, canister_id, heir)
    return pending


def _start_canister(change: Change, args: CanisterIdRecord) -> None:
    canister_id, message = args.canister_id.raw, change.message
    canister = change.canister(canister_id)
    change.account(canister_id).version += 1
    if canister.status is CanisterStatus.RUNNING:
        return
    message.put_canister(canister_id, replace(canister, status=CanisterStatus.RUNNING))
    for number, waiter in _waiters(message, canister_id):
        _forget(message, canister_id, number, waiter)
        text = f"Canister {args.canister_id} was started again while it was stopping"
        _reject(message, waiter, RejectCode.CANISTER_ERROR, text, "IC0511")
    unpark_timers(message, canister_id)


METHODS: tuple[Method, ...] = (
    update_method("start_canister", CanisterIdRecord, None, controllers_or_operators, _start_canister),
    update_method("stop_canister", CanisterIdRecord, None, controllers_or_operators, _stop_canister),
    update_method("cannery_stop_canister", StopArgs, None, controllers_or_operators, _cannery_stop),
    update_method("cannery_delete_canister", DeleteArgs, None, controllers_or_operators, _delete_soon),
)
