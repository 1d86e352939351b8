"""Calls from outside: admission before they are ordered, induction in their round.

IC interface specification, "Request: Call", "Canister inspect_message". What becomes of a call stands in
`request_status`.
"""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from cannery.errors import Reject, RejectCode
from cannery.limits import METHOD_NAME_SIZE_CHARS_MAX
from cannery.ports import EntryKind, Programs, StoreReader, Watch
from cannery.replica import keys
from cannery.replica.block import Ingress
from cannery.replica.cycles import message_fee
from cannery.replica.management.dispatch import admit_management
from cannery.replica.overlay import CachedReader
from cannery.replica.reads import ReadActivation
from cannery.replica.records import IngressMessage, IngressOrigin, Lane, RequestStatus
from cannery.replica.request_status import find_status, rejected, settle_ingress
from cannery.replica.run import run_watched
from cannery.replica.state import MANAGEMENT_ID, Outcome, RoundState
from cannery.replica.targets import (
    require_canister,
    require_cycles,
    require_module,
    require_running,
    update_kind,
)
from cannery.replica.view import Known, StateView, show


class Admitted(msgspec.Struct, frozen=True):
    """The call may be ordered in a block."""


class Duplicate(msgspec.Struct, frozen=True):
    """The call was ordered before; this is how far it has come."""

    status: RequestStatus


@dataclass(frozen=True, slots=True)
class Refused:
    """The call is not ordered; its sender is told at once."""

    reject: Reject


def admit(
    reader: StoreReader,
    ingress: Ingress,
    programs: Programs,
    watch: Watch | None,
    now_ns: int,
    known: Known | None = None,
) -> Refused | Duplicate | Admitted:
    """Decide, on the last durable state, whether a call is ordered in a block; runs `inspect_message`."""
    cached = CachedReader(reader)
    cached.multi_get(
        [
            keys.CONFIG_KEY,
            keys.request_key(ingress.expiry_ns, ingress.request_id),
            keys.owned(keys.CANISTERS, ingress.canister_id),
            keys.owned(keys.ACCOUNTS, ingress.canister_id),
        ]
    )
    view = StateView(cached, programs, known)
    status = find_status(cached, ingress.expiry_ns, ingress.request_id)
    if status is not None:
        return Duplicate(status)
    try:
        if ingress.canister_id == MANAGEMENT_ID:
            admit_management(view, ingress.sender, ingress.method, ingress.arg)
        else:
            _admit_to_canister(view, ingress, now_ns, watch)
    except Reject as reject:
        cached.check()
        return Refused(reject.with_traceback(None))
    cached.check()
    return Admitted()


def _admit_to_canister(view: StateView, ingress: Ingress, now_ns: int, watch: Watch | None) -> None:
    canister_id = ingress.canister_id
    canister = require_canister(view, canister_id)
    require_running(canister_id, canister)
    module = require_module(view, canister_id, canister)
    check_argument(view, ingress.method, ingress.arg)
    update_kind(canister_id, module, ingress.method)
    account = view.account(canister_id)
    assert account is not None, "each canister has an account"
    fee = message_fee(view.config.prices, len(ingress.arg), is_ingress=True)
    require_cycles(view, canister_id, canister, account, now_ns, fee)
    if "inspect_message" in module.hooks:
        _inspect(view, ingress, now_ns, watch)


def check_argument(view: StateView, method: str, arg: bytes) -> None:
    """Raise `Reject` where a method's name or an argument is too long."""
    if len(method) > METHOD_NAME_SIZE_CHARS_MAX:
        text = f"a method name has at most {METHOD_NAME_SIZE_CHARS_MAX} characters"
        raise Reject(RejectCode.DESTINATION_INVALID, text)
    size_bytes_max = view.config.argument_size_bytes_max
    if len(arg) > size_bytes_max:
        raise Reject(
            RejectCode.SYS_FATAL, f"an argument has at most {size_bytes_max} bytes, this one has {len(arg)}"
        )


def _inspect(view: StateView, ingress: Ingress, now_ns: int, watch: Watch | None) -> None:
    canister = require_canister(view, ingress.canister_id)
    assert canister.module_hash is not None, "the caller has seen the module"
    activation = ReadActivation(
        view, ingress.canister_id, EntryKind.INSPECT, ingress.method, ingress.arg, ingress.sender, now_ns
    )
    program = view.program(canister.module_hash)
    failure = run_watched(program, activation, ingress.request_id, view.config.query_cpu_ns_max, watch)
    if failure is not None:
        raise Reject(RejectCode(failure.code), failure.text, failure.error_code)
    if activation.rejection is not None:
        code, text = activation.rejection
        raise Reject(RejectCode(code), text, "IC0516")
    if not activation.accepted:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Canister {show(ingress.canister_id)} rejected the message: its inspect_message did not accept "
            f"'{ingress.method}' from this sender",
            "IC0516",
        )


# --- in a round --------------------------------------------------------------------------------------------


def induct_ingress(state: RoundState, ingress: Ingress) -> None:
    """Let a call of the block wait at its canister; a duplicate is left out, one that finds no room is
    rejected.
    """
    key = keys.request_key(ingress.expiry_ns, ingress.request_id)
    if ingress.request_id in state.accepted or state.layer.get(key) is not None:
        state.events.duplicates += 1
        return
    state.events.ingress += 1
    receiver = ingress.canister_id
    state.accepted[ingress.request_id] = ingress
    origin = IngressOrigin(ingress.request_id, ingress.sender, ingress.expiry_ns, receiver)
    try:
        if receiver != MANAGEMENT_ID:
            require_running(receiver, require_canister(state.view, receiver))
    except Reject as reject:
        settle_ingress(state, origin, rejected(reject))
        return
    account = state.queue_account(receiver)
    assert account is not None, "each canister has an account"
    if not state.scheduler.has_room(receiver, account, Lane.INGRESS, len(ingress.arg)):
        text = f"Canister {show(receiver)} has a full queue: try again later"
        settle_ingress(state, origin, Outcome(b"", RejectCode.SYS_TRANSIENT, text, "IC0516"))
        return
    waiting = IngressMessage(
        ingress.request_id, ingress.sender, ingress.method, ingress.arg, ingress.expiry_ns
    )
    state.scheduler.enqueue(receiver, account, Lane.INGRESS, waiting)
