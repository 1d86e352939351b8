"""Calls in flight: contexts of incoming calls, callbacks of outgoing ones, and how both come to their end.

Each incoming call is answered exactly once: by its method, by a continuation, or by a reject when nothing
is left that could answer it. Each outgoing call has a record (its callback) until its response is there. IC
interface specification, "Call contexts" and "Call execution", with continuations by name instead of
suspended frames.
"""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from cannery.errors import RejectCode
from cannery.replica import keys, records
from cannery.replica.activation import Activation
from cannery.replica.notices import other_subnets, send_module, tell, tell_operators
from cannery.replica.records import (
    AccountRecord,
    Callback,
    CallContext,
    CallOrigin,
    FanOrigin,
    IngressOrigin,
    Lane,
    Origin,
    ResponseMessage,
)
from cannery.replica.request_status import settle_ingress
from cannery.replica.state import MessageOverlay, Outcome, RoundState
from cannery.replica.streams import send
from cannery.replica.view import show


def commit(message: MessageOverlay) -> None:
    """Merge a message's changes into the round's, then deliver what it sent and answered."""
    message.merge()
    state = message.state
    for sent in message.outbox:
        send(state, sent.receiver, sent.sender, sent.message)
    for origin, outcome in message.answers:
        settle_ingress(state, origin, outcome)
    if message.new_modules or message.new_operators:
        _tell_others(message)
    for subnet, kind, data in message.notices or ():
        tell(state, subnet, kind, data)
    if message.upgrades is not None:
        for target, waiting in message.upgrades:
            account = state.account_for_change(target)
            assert account is not None, "whoever lets an upgrade wait has found its target"
            state.scheduler.enqueue(target, account, Lane.TIMERS, waiting)


def _tell_others(message: MessageOverlay) -> None:
    """Tell the node's other subnets what holds for the whole node."""
    state = message.state
    for subnet in other_subnets(state):
        for module_hash in message.new_modules or ():
            send_module(state, subnet, module_hash)
    if message.new_operators:
        tell_operators(state, other_subnets(state))


def in_flight(message: MessageOverlay, canister_id: bytes) -> int:
    """Count what keeps a canister from stopping: open incoming calls, calls in flight, waiting messages."""
    account = message.account(canister_id)
    if account is None:
        return 0
    waiting = message.state.scheduler.lanes(canister_id, account).waiting
    return account.contexts_open + account.calls_open + waiting


def answer_now(state: RoundState, origin: Origin, outcome: Outcome, responder: bytes) -> None:
    """Answer whoever waits, outside of any message."""
    if isinstance(origin, CallOrigin):
        response = ResponseMessage(
            origin.callback,
            outcome.reply,
            outcome.reject_code,
            outcome.reject_message,
            outcome.refund,
            outcome.error_code,
        )
        send(state, origin.caller, responder, response)
    elif isinstance(origin, IngressOrigin):
        settle_ingress(state, origin, outcome)
    elif isinstance(origin, FanOrigin):
        state.fan_answers.append((origin, outcome))


# --- contexts ----------------------------------------------------------------------------------------------


def find_context(message: MessageOverlay, canister_id: bytes, number: int) -> CallContext | None:
    """Give an open incoming call by number."""
    data = message.get(keys.numbered(keys.CONTEXTS, canister_id, number))
    return None if data is None else records.CONTEXT.decode(data)


def find_callback(message: MessageOverlay, canister_id: bytes, number: int) -> Callback | None:
    """Give a call in flight by number."""
    data = message.get(keys.numbered(keys.CALLBACKS, canister_id, number))
    return None if data is None else records.CALLBACK.decode(data)


def list_contexts(message: MessageOverlay, canister_id: bytes) -> Iterator[tuple[int, CallContext]]:
    """Yield a canister's open incoming calls by number."""
    for key, data in message.scan(*keys.owned_range(keys.CONTEXTS, canister_id)):
        yield keys.number_of(key), records.CONTEXT.decode(data)


def list_callbacks(message: MessageOverlay, canister_id: bytes) -> Iterator[tuple[int, Callback]]:
    """Yield a canister's calls in flight by number."""
    for key, data in message.scan(*keys.owned_range(keys.CALLBACKS, canister_id)):
        yield keys.number_of(key), records.CALLBACK.decode(data)


def conclude(
    message: MessageOverlay,
    activation: Activation,
    account: AccountRecord,
    before: CallContext,
    number: int,
    own_callback: int,
) -> None:
    """Carry a call context on after one of its activations succeeded.

    `number` is 0 where the context is new and not stored yet; `own_callback` is the callback whose
    continuation ran, 0 for a method. Sets the answer, and stores the context where something still has to
    happen in it.
    """
    calls_open = before.calls_open + activation.calls_made
    context = replace(before, calls_open=calls_open, cycles_available=activation.cycles_attached)
    if not context.answered:
        context = _answered(message, activation, context, own_callback)
    store_context(message, account, activation.canister_id, activation.context, context, stored=number != 0)


def _answered(
    message: MessageOverlay, activation: Activation, context: CallContext, own_callback: int
) -> CallContext:
    refund = context.cycles_available
    canister_id = activation.canister_id
    if activation.reply_data is not None:
        message.answer(context.origin, Outcome(reply=activation.reply_data, refund=refund), canister_id)
    elif activation.rejection is not None:
        code, text = activation.rejection
        message.answer(context.origin, Outcome(b"", code, text, "IC0406", refund), canister_id)
    elif activation.answering_call:
        return replace(context, answering_call=activation.answering_call)
    elif context.calls_open and (context.answering_call == 0 or context.answering_call != own_callback):
        return context
    else:
        text = f"Canister {show(canister_id)} did not reply to the call"
        outcome = Outcome(b"", RejectCode.CANISTER_ERROR, text, "IC0506", refund)
        message.answer(context.origin, outcome, canister_id)
    return replace(context, answered=True, cycles_available=0)


def conclude_without(
    message: MessageOverlay,
    canister_id: bytes,
    number: int,
    context: CallContext,
    own_callback: int,
    outcome: Outcome | None,
) -> None:
    """Carry a call context on where no continuation kept anything: it trapped (`outcome`), or there is none.

    The caller gets the reject, unless a call that is still open may bring the answer.
    """
    account = message.account(canister_id)
    assert account is not None, "each canister has an account"
    gives_answer = outcome is not None and context.answering_call == own_callback
    if not context.answered and (context.calls_open == 0 or gives_answer):
        if outcome is None:
            text = f"Canister {show(canister_id)} did not reply to the call"
            outcome = Outcome(b"", RejectCode.CANISTER_ERROR, text, "IC0506")
        refunding = Outcome(
            b"", outcome.reject_code, outcome.reject_message, outcome.error_code, context.cycles_available
        )
        message.answer(context.origin, refunding, canister_id)
        context = replace(context, answered=True, cycles_available=0)
    store_context(message, account, canister_id, number, context, stored=True)


def store_context(
    message: MessageOverlay,
    account: AccountRecord,
    canister_id: bytes,
    number: int,
    context: CallContext,
    *,
    stored: bool,
) -> None:
    """Keep a context while it waits for responses or owes an answer; else forget it."""
    is_open = context.calls_open > 0
    if is_open:
        message.put(keys.numbered(keys.CONTEXTS, canister_id, number), records.encode_record(context))
        if not stored:
            account.contexts_open += 1
    elif stored:
        message.put(keys.numbered(keys.CONTEXTS, canister_id, number), None)
        account.contexts_open -= 1


def origin_sender(context: CallContext, canister_id: bytes) -> bytes:
    """Give the principal that continuations of a context see as their caller."""
    origin = context.origin
    if isinstance(origin, IngressOrigin):
        return origin.sender
    if isinstance(origin, CallOrigin):
        return origin.caller
    return canister_id


def origin_fleet(origin: Origin) -> bytes:
    """Give the fleet that whoever waits spoke for when it called; empty for none."""
    return origin.fleet if isinstance(origin, CallOrigin) else b""


# --- callbacks ---------------------------------------------------------------------------------------------


def forget_callback(
    message: MessageOverlay, account: AccountRecord, canister_id: bytes, number: int, callback: Callback
) -> None:
    """Remove a call's record: its response is there, or nobody wants it any more."""
    message.put(keys.numbered(keys.CALLBACKS, canister_id, number), None)
    account.calls_open -= 1
    account.queued_bytes -= len(callback.saved)
    key = keys.pair_key(canister_id, callback.callee)
    stored = message.get(key)
    count = 1 if stored is None else int.from_bytes(stored, "big")
    message.put(key, None if count <= 1 else (count - 1).to_bytes(2, "big"))


def abandon_calls(message: MessageOverlay, canister_id: bytes, text: str) -> None:
    """End all that a canister has open: uninstall, reinstall, forced stop.

    Open incoming calls are rejected with this text, their cycles returned. Calls in flight are forgotten: a
    later response is dropped, only its refund is credited.
    """
    account = message.account(canister_id)
    if account is None:
        return
    for number, context in list(list_contexts(message, canister_id)):
        if not context.answered:
            outcome = Outcome(b"", RejectCode.CANISTER_REJECT, text, None, context.cycles_available)
            message.answer(context.origin, outcome, canister_id)
        message.put(keys.numbered(keys.CONTEXTS, canister_id, number), None)
        account.contexts_open -= 1
    for number, callback in list(list_callbacks(message, canister_id)):
        forget_callback(message, account, canister_id, number, callback)
