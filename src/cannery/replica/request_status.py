"""The status of signed calls: what their senders read, and how a call ends.

A call is known by its request id and runs once: what has a status is a duplicate. Statuses are kept until
five minutes past the call's expiry and pruned by whole minutes: no call with that id can come in again by
then. IC interface specification, "Request status".
"""

from __future__ import annotations

from cannery.errors import Reject
from cannery.limits import REQUEST_KEPT_NS
from cannery.ports import StoreReader
from cannery.replica import keys, records
from cannery.replica.records import IngressOrigin, RequestState, RequestStatus
from cannery.replica.state import Answer, Outcome, RoundState


def find_status(reader: StoreReader, expiry_ns: int, request_id: bytes) -> RequestStatus | None:
    """Give a call's status by expiry and id."""
    data = reader.get(keys.request_key(expiry_ns, request_id))
    return None if data is None else records.REQUEST.decode(data)


def answer_of(request_id: bytes, status: RequestStatus) -> Answer | None:
    """Give a stored status as the answer that it is; None while the request is still under way."""
    if status.state is RequestState.REPLIED:
        return Answer(request_id, status.sender, status.reply)
    if status.state is RequestState.REJECTED:
        return Answer(request_id, status.sender, None, status.code, status.text, status.error_code)
    return None


def rejected(reject: Reject, refund: int = 0) -> Outcome:
    """Give a `Reject` as the end of a call."""
    return Outcome(b"", int(reject.code), reject.message, reject.error_code, refund)


def settle_ingress(state: RoundState, origin: IngressOrigin, outcome: Outcome) -> None:
    """End a call from outside: an answer for its sender, and its status unless that is pruned already."""
    state.accepted.pop(origin.request_id, None)
    replied = outcome.reject_code == 0
    state.answers.append(
        Answer(
            origin.request_id,
            origin.sender,
            outcome.reply if replied else None,
            outcome.reject_code,
            outcome.reject_message,
            outcome.error_code,
        )
    )
    if keys.minute_of(origin.expiry_ns) < state.subnet.pruned_minute:
        return
    status = RequestStatus(
        origin.sender,
        origin.canister_id,
        RequestState.REPLIED if replied else RequestState.REJECTED,
        outcome.reply,
        outcome.reject_code,
        outcome.reject_message,
        outcome.error_code,
        state.time_ns,
    )
    state.layer.put(keys.request_key(origin.expiry_ns, origin.request_id), records.encode_record(status))


def note_unfinished(state: RoundState) -> None:
    """Write the status of calls that came in with this block and are not at their end."""
    for request_id, ingress in state.accepted.items():
        status = RequestStatus(
            ingress.sender, ingress.canister_id, RequestState.PROCESSING, time_ns=state.time_ns
        )
        state.layer.put(keys.request_key(ingress.expiry_ns, request_id), records.encode_record(status))


def prune_statuses(state: RoundState) -> None:
    """Delete the statuses of whole minutes that no call can come in with any more."""
    minute = keys.minute_of(max(0, state.time_ns - REQUEST_KEPT_NS))
    if minute > state.subnet.pruned_minute:
        start = keys.request_minute_start(state.subnet.pruned_minute)
        state.layer.delete_range(start, keys.request_minute_start(minute))
        state.subnet.pruned_minute = minute
