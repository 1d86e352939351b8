"""One turn: a waiting message is run, committed or dropped, and whoever waits for it is answered.

Each message runs on its own overlay. What a trap must not take back (a refund, the end of a call in flight,
the charge) is booked on the round before or after. IC interface specification, "Rules for message
execution".
"""

from __future__ import annotations

from dataclasses import dataclass

from msgspec.structs import replace

from cannery.errors import Reject, RejectCode, Trap
from cannery.ports import CallOutcome, EntryKind
from cannery.replica import calls
from cannery.replica.activation import Activation
from cannery.replica.block import PriceSchedule, message_identity
from cannery.replica.cycles import (
    charge,
    credit_account,
    is_frozen,
    message_fee,
    response_cost,
    settle_account,
    thaw,
    work_cost,
)
from cannery.replica.fans import begin_fan, settle_fans, split
from cannery.replica.logs import append_lines
from cannery.replica.management.dispatch import (
    ManagementCall,
    Pending,
    Rejected,
    execute_management,
    settle_stop,
)
from cannery.replica.outcalls import run_transform
from cannery.replica.records import (
    AccountRecord,
    AnsweredMessage,
    Callback,
    CallContext,
    CallMessage,
    CallOrigin,
    CanisterRecord,
    CanisterStatus,
    IngressMessage,
    IngressOrigin,
    Message,
    NoOrigin,
    Origin,
    ResponseMessage,
    TimerMessage,
)
from cannery.replica.request_status import rejected
from cannery.replica.run import Failure
from cannery.replica.state import MANAGEMENT_ID, MessageOverlay, Outcome, RoundState
from cannery.replica.targets import (
    require_attached,
    require_canister,
    require_cycles,
    require_module,
    require_running,
    update_kind,
)
from cannery.replica.timers import begin_timer, park_timer
from cannery.replica.upgrades import run_upgrade
from cannery.replica.view import show


def run_turn(state: RoundState, receiver: bytes, message: Message) -> None:
    """Run one waiting message of a receiver to its end."""
    if isinstance(message, ResponseMessage):
        _run_response(state, receiver, message)
    elif isinstance(message, TimerMessage):
        _run_timer(state, receiver, message.timer)
    elif isinstance(message, IngressMessage):
        origin = IngressOrigin(message.request_id, message.sender, message.expiry_ns, receiver)
        if message.expiry_ns < state.time_ns:
            text = "Ingress message timed out waiting to start executing: send it again"
            calls.answer_now(state, origin, Outcome(b"", RejectCode.SYS_TRANSIENT, text, "IC0515"), receiver)
        else:
            _run_call(state, receiver, origin, message.sender, message.method, message.arg, 0)
    elif isinstance(message, CallMessage):
        call_origin = CallOrigin(message.caller, message.callback, message.fleet)
        _run_call(state, receiver, call_origin, message.caller, message.method, message.arg, message.cycles)
    elif isinstance(message, AnsweredMessage):
        run_transform(state, receiver, message)
    else:
        run_upgrade(state, receiver, message)
    canister = state.view.canister(receiver)
    if canister is not None and canister.status is CanisterStatus.STOPPING:
        state.settling[receiver] = None
    if state.settling:
        settle_stopping(state)
    if state.fan_answers:
        settle_fans(state)


def settle_stopping(state: RoundState) -> None:
    """Let canisters that are stopping come to rest where nothing of theirs is open any more."""
    touched, state.settling = state.settling, {}
    for canister_id in touched:
        message = MessageOverlay(state)
        canister = message.canister(canister_id)
        if canister is None or canister.status is not CanisterStatus.STOPPING:
            continue
        if calls.in_flight(message, canister_id) == 0:
            settle_stop(message, canister_id)
            calls.commit(message)


# --- calls -------------------------------------------------------------------------------------------------


def _run_call(
    state: RoundState, receiver: bytes, origin: Origin, caller: bytes, method: str, arg: bytes, cycles: int
) -> None:
    try:
        if receiver == MANAGEMENT_ID:
            _run_management(state, ManagementCall(caller, method, arg, cycles, origin))
        else:
            _run_method(state, receiver, origin, caller, method, arg, cycles)
    except Reject as reject:
        state.events.rejects += 1
        calls.answer_now(state, origin, rejected(reject, cycles), receiver)


def _run_method(
    state: RoundState, canister_id: bytes, origin: Origin, caller: bytes, method: str, arg: bytes, cycles: int
) -> None:
    view = state.view
    canister = require_canister(view, canister_id)
    require_running(canister_id, canister)
    if isinstance(origin, CallOrigin):
        require_attached(canister_id, canister, caller, cycles)
    module = require_module(view, canister_id, canister)
    kind = update_kind(canister_id, module, method)
    _settle(state, canister_id)
    message = MessageOverlay(state)
    account = _own_account(message, canister_id)
    identity = origin.request_id if isinstance(origin, IngressOrigin) else None
    fee = message_fee(view.config.prices, len(arg), is_ingress=identity is not None)
    require_cycles(view, canister_id, canister, account, state.time_ns, fee)
    activation = Activation(
        message,
        account,
        canister_id,
        canister.schema_id,
        EntryKind.UPDATE,
        method,
        arg,
        caller,
        ordinal=state.runner.ordinal + 1,
        caller_fleet=calls.origin_fleet(origin),
        fee=fee,
        payer=caller if identity is None else None,
        waits=True,
        writes=kind is EntryKind.UPDATE,
        cycles_attached=cycles,
    )
    failure = _run_activation(state, canister, activation, identity)
    if failure is not None:
        calls.answer_now(state, origin, _failed(failure, cycles), canister_id)
        return
    context = CallContext(origin, method, state.time_ns, cycles)
    calls.conclude(message, activation, account, context, 0, 0)
    _commit(state, message, activation)


def _run_management(state: RoundState, call: ManagementCall) -> None:
    parts = split(state, call)
    if parts is not None:
        begin_fan(state, call, parts)
        return
    message = MessageOverlay(state)
    try:
        result = execute_management(message, call)
    except Trap as trap:
        raise Reject(RejectCode.CANISTER_ERROR, str(trap), "IC0503") from trap
    if isinstance(result, Rejected):
        raise Reject(RejectCode(result.code), result.text, result.error_code)
    if not isinstance(result, Pending):
        message.answer(call.origin, Outcome(reply=result.data, refund=result.refund))
    for canister_id in message.touched_canisters():
        state.settling[canister_id] = None
    calls.commit(message)


# --- continuations -----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Resumed:
    """A response that meets its call: the callback, and the context it belongs to, one call fewer open."""

    canister_id: bytes
    number: int
    callback: Callback
    context: CallContext
    outcome: CallOutcome


def _run_response(state: RoundState, canister_id: bytes, response: ResponseMessage) -> None:
    """Book a response, then run its continuation. The booking stays whatever the continuation does."""
    booking = MessageOverlay(state)
    callback = calls.find_callback(booking, canister_id, response.callback)
    account = booking.account(canister_id)
    canister = booking.canister(canister_id)
    if callback is None or account is None or canister is None:
        credit_account(state, canister_id, response.cycles_refunded)
        return
    calls.forget_callback(booking, account, canister_id, response.callback, callback)
    account.cycles += response.cycles_refunded
    thaw(booking, canister_id)
    context = calls.find_context(booking, canister_id, callback.context)
    assert context is not None, "a call in flight belongs to a context"
    calls.commit(booking)
    size_bytes = len(response.reply) + len(response.reject_message)
    charge(state, canister_id, response_cost(state.view.config.prices, size_bytes))
    outcome = CallOutcome(
        response.reply,
        response.reject_code,
        response.reject_message,
        response.cycles_refunded,
        response.error_code,
    )
    context = replace(context, calls_open=context.calls_open - 1)
    resumed = _Resumed(canister_id, response.callback, callback, context, outcome)
    failure = None
    if callback.continuation is not None:
        failure = _run_continuation(state, canister, resumed, callback.continuation)
        if failure is None:
            return
    ending = MessageOverlay(state)
    calls.conclude_without(
        ending, canister_id, resumed.callback.context, context, response.callback, _reason(failure)
    )
    calls.commit(ending)


def _run_continuation(
    state: RoundState, canister: CanisterRecord, resumed: _Resumed, name: str
) -> Failure | None:
    canister_id, context = resumed.canister_id, resumed.context
    _settle(state, canister_id)
    message = MessageOverlay(state)
    account = _own_account(message, canister_id)
    activation = Activation(
        message,
        account,
        canister_id,
        canister.schema_id,
        EntryKind.CONTINUATION,
        name,
        b"",
        calls.origin_sender(context, canister_id),
        ordinal=state.runner.ordinal + 1,
        caller_fleet=calls.origin_fleet(context.origin),
        fee=message_fee(state.view.config.prices, 0),
        waits=not context.answered and context.answering_call in (0, resumed.number),
        context=resumed.callback.context,
        cycles_attached=context.cycles_available,
        outcome=resumed.outcome,
        saved=resumed.callback.saved,
    )
    failure = _run_activation(state, canister, activation, None)
    if failure is None:
        calls.conclude(message, activation, account, context, resumed.callback.context, resumed.number)
        _commit(state, message, activation)
    return failure


def _reason(failure: Failure | None) -> Outcome | None:
    return None if failure is None else _failed(failure, 0)


# --- timers ------------------------------------------------------------------------------------------------


def _run_timer(state: RoundState, canister_id: bytes, number: int) -> None:
    canister = state.view.canister(canister_id)
    if canister is None:
        return
    booking = MessageOverlay(state)
    account = _own_account(booking, canister_id)
    if canister.status is not CanisterStatus.RUNNING or is_frozen(
        state.view.config, canister, account, state.time_ns, state.subnet.priced_from_ns
    ):
        park_timer(booking, canister_id, number)
        booking.merge()
        return
    timer = begin_timer(booking, canister_id, number)
    booking.merge()
    if timer is None or canister.module_hash is None:
        return
    _settle(state, canister_id)
    message = MessageOverlay(state)
    account = _own_account(message, canister_id)
    activation = Activation(
        message,
        account,
        canister_id,
        canister.schema_id,
        EntryKind.TIMER,
        timer.method,
        b"",
        canister_id,
        ordinal=state.runner.ordinal + 1,
        fee=message_fee(state.view.config.prices, 0),
        saved=timer.saved,
    )
    if _run_activation(state, canister, activation, None) is None:
        context = CallContext(NoOrigin(), timer.method, state.time_ns, answered=True)
        calls.conclude(message, activation, account, context, 0, 0)
        _commit(state, message, activation)


# --- an activation and what it costs -----------------------------------------------------------------------


def _run_activation(
    state: RoundState, canister: CanisterRecord, activation: Activation, identity: bytes | None
) -> Failure | None:
    """Run a program; where it fails, book charge and log on the round, since the overlay is dropped."""
    runner, events = state.runner, state.events
    events.activations += 1
    canister_id = activation.canister_id
    assert canister.module_hash is not None, "only canisters with a module run"
    try:
        program = state.view.program(canister.module_hash)
    except Reject as reject:
        return Failure(reject.message, int(reject.code), reject.error_code or "IC0503")
    if identity is None:
        identity = b""
        if runner.needs_identity:
            caller, name, arg = activation.caller, activation.name, activation.arg
            kind, module_hash = activation.kind, canister.module_hash
            identity = message_identity(kind, caller, canister_id, name, arg, module_hash)
    failure = runner.run(program, activation, identity, state.view.config.message_cpu_ns_max)
    if failure is None:
        state.note_work(activation.touched, activation.bytes_moved)
        cost = _cost(state.view.config.prices, activation)
        if _is_refused(activation) or cost <= activation.cycles_balance():
            return None
        failure = Failure(
            f"Canister {show(canister_id)} ran out of cycles: the message costs {cost}. Top it up",
            RejectCode.SYS_TRANSIENT,
            "IC0207",
        )
    _book_failure(state, activation, failure)
    return failure


def _book_failure(state: RoundState, activation: Activation, failure: Failure) -> None:
    """Charge and log a message that left no other trace; after a verdict nothing that it counted is used.

    A refused argument leaves no line either: strangers could push every other one out of the log.
    """
    own = state.account_for_change(activation.canister_id)
    assert own is not None, "each canister has an account"
    own.messages += 1
    if failure.refused and activation.kind is EntryKind.UPDATE:
        state.events.rejects += 1
        own.rejects += 1
        state.note_work(activation.touched, activation.bytes_moved)
        _charge_sender(state, activation)
        return
    state.events.traps += 1
    own.traps += 1
    if failure.measured:
        state.events.verdicts += 1
        state.note_work(0, 0)
        charge(state, activation.canister_id, activation.fee)
        append_lines(state, activation.canister_id, (), failure.text)
        return
    state.note_work(activation.touched, activation.bytes_moved)
    charge(state, activation.canister_id, _cost(state.view.config.prices, activation))
    append_lines(state, activation.canister_id, activation.lines or (), failure.text)


def _commit(state: RoundState, message: MessageOverlay, activation: Activation) -> None:
    canister_id = activation.canister_id
    account = _own_account(message, canister_id)
    account.version += 1
    account.active_ns = state.time_ns
    account.messages += 1
    if activation.rejection is not None:
        account.rejects += 1
    calls.commit(message)
    if _is_refused(activation):
        _charge_sender(state, activation)
    else:
        charge(state, canister_id, _cost(state.view.config.prices, activation))
    if activation.lines:
        append_lines(state, canister_id, activation.lines)


def _cost(prices: PriceSchedule, activation: Activation) -> int:
    return activation.fee + work_cost(
        prices, activation.bytes_moved, activation.touched, activation.calls_made, activation.call_bytes
    )


def _is_refused(activation: Activation) -> bool:
    """Say whether a method ended in its own reject: such a message costs its canister nothing."""
    return activation.rejection is not None and activation.kind is EntryKind.UPDATE


def _charge_sender(state: RoundState, activation: Activation) -> None:
    """Charge a refused message's fee to the canister that sent it; signed calls have nobody to charge."""
    if activation.payer is not None:
        charge(state, activation.payer, activation.fee)


def _failed(failure: Failure, refund: int) -> Outcome:
    return Outcome(b"", int(failure.code), failure.text, failure.error_code, refund)


def _settle(state: RoundState, canister_id: bytes) -> None:
    if state.view.config.prices.storage_per_gib_second:
        account = state.account_for_change(canister_id)
        assert account is not None, "each canister has an account"
        settle_account(state, account)


def _own_account(message: MessageOverlay, canister_id: bytes) -> AccountRecord:
    account = message.account(canister_id)
    assert account is not None, "each canister has an account"
    return account
