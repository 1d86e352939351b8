"""Answers of HTTP outcalls in a round: taken from the block, transformed, or given up on.

A round performs nothing. The request is a record (`management.outcalls`), the answer an input of a later
block, so that a replay asks nobody. An answer to what is not under way (answered before, expired) is passed
over: whoever performed a request twice changes nothing. The transform is a query of the canister that called;
it runs in a turn of its own, under the bounds of a query. IC interface specification, "IC method
http_request".
"""

from __future__ import annotations

from cannery.candid import codec
from cannery.candid.python import type_of
from cannery.errors import DecodeError, Reject, RejectCode
from cannery.limits import OUTCALL_NS_MAX
from cannery.ports import EntryKind
from cannery.replica import keys
from cannery.replica.block import OutcallAnswer, message_identity
from cannery.replica.calls import answer_now, commit
from cannery.replica.cycles import charge, message_fee
from cannery.replica.management.outcall_types import HttpHeader, HttpResult, TransformArgs
from cannery.replica.outcall_records import OutcallRecord, take_outcall
from cannery.replica.reads import ReadActivation
from cannery.replica.records import AnsweredMessage, CallOrigin, Lane
from cannery.replica.state import MANAGEMENT_ID, MessageOverlay, Outcome, RoundState
from cannery.replica.targets import query_kind, require_canister, require_module
from cannery.replica.view import show

_encode_result = codec.encoder((type_of(HttpResult),))
_decode_result = codec.decoder((type_of(HttpResult),))
_encode_transform = codec.encoder((type_of(TransformArgs),))


def take_answer(state: RoundState, answer: OutcallAnswer) -> None:
    """Take an answer of the block: to the caller, or to the transform that it goes through first."""
    message = MessageOverlay(state)
    record = take_outcall(message, answer.canister_id, answer.callback)
    if record is None:
        return
    outcome = _outcome_of(record, answer)
    waits = not outcome.reject_code and record.transform and _is_waited_for(message, answer)
    if not waits:
        message.answer(CallOrigin(answer.canister_id, answer.callback), outcome)
    commit(message)
    if waits:
        account = state.account_for_change(answer.canister_id)
        assert account is not None, "who has a call in flight has an account"
        waiting = AnsweredMessage(
            answer.callback,
            record.cycles,
            record.transform,
            record.context,
            record.response_size_bytes_max,
            answer.status,
            answer.headers,
            answer.body,
        )
        state.scheduler.enqueue(answer.canister_id, account, Lane.TIMERS, waiting)


def expire_outcall(message: MessageOverlay, canister_id: bytes, number: int) -> None:
    """Reject an outcall that has no answer in time."""
    record = take_outcall(message, canister_id, number)
    if record is None:
        return
    text = (
        f"{record.host} gave no answer within {OUTCALL_NS_MAX // 1_000_000_000} s. "
        "The request may have been performed, once or more often"
    )
    outcome = Outcome(b"", RejectCode.SYS_TRANSIENT, text, None, record.cycles)
    message.answer(CallOrigin(canister_id, number), outcome)


def run_transform(state: RoundState, canister_id: bytes, waiting: AnsweredMessage) -> None:
    """Let a response go through the caller's transform, and to the caller."""
    try:
        outcome = Outcome(_transformed(state, canister_id, waiting), refund=waiting.cycles)
    except Reject as reject:
        state.events.rejects += 1
        outcome = Outcome(b"", reject.code, reject.message, reject.error_code, waiting.cycles)
    answer_now(state, CallOrigin(canister_id, waiting.callback), outcome, MANAGEMENT_ID)


def _transformed(state: RoundState, canister_id: bytes, waiting: AnsweredMessage) -> bytes:
    """Run the transform; raises `Reject`."""
    view, name = state.view, waiting.transform
    canister = require_canister(view, canister_id)
    module = require_module(view, canister_id, canister)
    assert canister.module_hash is not None, "the module was found by it"
    if query_kind(canister_id, module, name) is not EntryKind.QUERY:
        raise _refused(f"the transform {name!r:.100} is a composite query: make it a query")
    response = _result_of(waiting.status, waiting.headers, waiting.body)
    arg = _encode_transform((TransformArgs(response, waiting.context),))
    activation = ReadActivation(view, canister_id, EntryKind.QUERY, name, arg, MANAGEMENT_ID, state.time_ns)
    # Not by the response, which may be another one when the request is performed again after a crash.
    identity = message_identity(
        EntryKind.QUERY, MANAGEMENT_ID, canister_id, name, keys.u64(waiting.callback), canister.module_hash
    )
    program = view.program(canister.module_hash)
    failure = state.runner.run(program, activation, identity, view.config.query_cpu_ns_max)
    state.note_work(0, len(arg))
    charge(state, canister_id, message_fee(view.config.prices, len(arg)))
    if failure is not None:
        raise Reject(RejectCode(failure.code), failure.text, failure.error_code)
    if activation.rejection is not None:
        code, text = activation.rejection
        raise Reject(RejectCode(code), text, "IC0406")
    return _checked(canister_id, waiting, activation.reply_data)


def _checked(canister_id: bytes, waiting: AnsweredMessage, reply: bytes | None) -> bytes:
    """Check what a transform gave: the caller of `http_request` decodes it as that method's result."""
    who = f"the transform {waiting.transform!r:.100} of canister {show(canister_id)}"
    if reply is None:
        raise _refused(f"{who} gave no result")
    try:
        result = _decode_result(reply)[0]
    except DecodeError as error:
        raise _refused(f"{who} did not give an http_request_result: {error}") from None
    assert isinstance(result, HttpResult), "the decoder's only type is HttpResult"
    size_bytes = len(result.body) + sum(len(h.name) + len(h.value) for h in result.headers)
    if size_bytes > waiting.size_bytes_max:
        raise _refused(f"{who} gave {size_bytes} bytes, max_response_bytes is {waiting.size_bytes_max}")
    return _encode_result((result,))


def _is_waited_for(message: MessageOverlay, answer: OutcallAnswer) -> bool:
    """Say whether the call is still in flight; else its canister may be stopped, and runs nothing."""
    return message.get(keys.numbered(keys.CALLBACKS, answer.canister_id, answer.callback)) is not None


def _outcome_of(record: OutcallRecord, answer: OutcallAnswer) -> Outcome:
    if answer.reject_code:
        return Outcome(b"", answer.reject_code, answer.reject_message, None, record.cycles)
    result = _result_of(answer.status, answer.headers, answer.body)
    return Outcome(_encode_result((result,)), refund=record.cycles)


def _result_of(status: int, headers: tuple[tuple[str, str], ...], body: bytes) -> HttpResult:
    return HttpResult(status, [HttpHeader(name, value) for name, value in headers], body)


def _refused(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_ERROR, text, "IC0406")
