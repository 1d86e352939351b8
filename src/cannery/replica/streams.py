"""The way of messages between canisters: one stream per destination subnet, with sequence numbers.

A message to a canister of the own subnet takes its number in the own stream and is inducted at once, so
that the stream is empty at the end of a round; one to another subnet stays in that subnet's stream until it
is acknowledged. Calls are refused where the receiver has no room; responses always fit, since each has its
callback's place. A message that comes in by the number already received is a repetition and is dropped.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import RejectCode
from cannery.limits import REPLACEMENTS_FOLLOWED_COUNT_MAX, STREAM_ENTRY_COUNT_MAX
from cannery.replica import keys, records
from cannery.replica.block import ReplicaConfig
from cannery.replica.cycles import burn_refund, credit_account
from cannery.replica.records import CallMessage, Lane, ResponseMessage, StreamEntry, StreamHead
from cannery.replica.state import RoundState
from cannery.replica.view import show


def subnet_of(config: ReplicaConfig, canister_id: bytes) -> int:
    """Give the subnet where a canister lives; ids in nobody's range belong to the own subnet, which refuses
    them.
    """
    if not config.routes:
        return config.subnet
    counter = keys.canister_counter(canister_id)
    if counter is None:
        return config.subnet
    for route in config.routes:
        if route.first <= counter <= route.last:
            return route.subnet
    return config.subnet


def send(state: RoundState, receiver: bytes, sender: bytes, message: CallMessage | ResponseMessage) -> None:
    """Put a message into the stream to its receiver's subnet; a call goes where its receiver has moved to."""
    if isinstance(message, CallMessage):
        receiver = _follow(state, receiver)
    subnet = subnet_of(state.view.config, receiver)
    head = state.stream_head(subnet)
    if subnet == state.view.config.subnet:
        following = head.next + 1
        state.put_stream_head(subnet, StreamHead(following, following, following))
        induct(state, receiver, message)
        return
    if isinstance(message, CallMessage) and head.next - head.first >= STREAM_ENTRY_COUNT_MAX:
        text = f"the stream to subnet {subnet} is full: try again later"
        _bounce(state, receiver, message, RejectCode.SYS_TRANSIENT, text)
        return
    entry = StreamEntry(sender, receiver, message)
    state.layer.put(keys.stream_key(subnet, head.next), records.encode_record(entry))
    state.put_stream_head(subnet, replace(head, next=head.next + 1))


def _follow(state: RoundState, callee: bytes) -> bytes:
    """Give the canister that stands in another's place now, over a bounded number of moves."""
    for _ in range(REPLACEMENTS_FOLLOWED_COUNT_MAX):
        canister = state.view.canister(callee)
        if canister is None or not canister.replaced_by:
            break
        callee = canister.replaced_by
    return callee


def receive(state: RoundState, subnet: int, number: int, entry: StreamEntry) -> bool:
    """Take a message of another subnet's stream; False where it is a repetition or one is missing."""
    head = state.stream_head(subnet)
    if number != head.received:
        return False
    state.put_stream_head(subnet, replace(head, received=number + 1))
    induct(state, entry.receiver, entry.message)
    return True


def acknowledge(state: RoundState, subnet: int, received: int) -> None:
    """Forget the messages of a stream that the other side has received (all numbers below `received`)."""
    head = state.stream_head(subnet)
    up_to = min(received, head.next)
    for number in range(head.first, up_to):
        state.layer.delete(keys.stream_key(subnet, number))
    if up_to > head.first:
        state.put_stream_head(subnet, replace(head, first=up_to))


def induct(state: RoundState, receiver: bytes, message: CallMessage | ResponseMessage) -> None:
    """Let a message wait at its receiver, or send its refusal back."""
    if isinstance(message, ResponseMessage):
        _induct_response(state, receiver, message)
        return
    account = state.queue_account(receiver)
    if account is None:
        text = f"Canister {show(receiver)} not found: check its id, or whether it was deleted"
        _bounce(state, receiver, message, RejectCode.DESTINATION_INVALID, text)
    elif not state.scheduler.has_room(receiver, account, Lane.CALLS, len(message.arg)):
        text = f"Canister {show(receiver)} has a full queue: try again later"
        _bounce(state, receiver, message, RejectCode.SYS_TRANSIENT, text)
    else:
        state.events.calls += 1
        state.scheduler.enqueue(receiver, account, Lane.CALLS, message)


def _induct_response(state: RoundState, caller: bytes, response: ResponseMessage) -> None:
    if state.layer.get(keys.numbered(keys.CALLBACKS, caller, response.callback)) is None:
        credit_account(state, caller, response.cycles_refunded)
        return
    account = state.account_for_change(caller)
    if account is None:
        burn_refund(state, response.cycles_refunded)
        return
    state.events.responses += 1
    state.scheduler.enqueue(caller, account, Lane.RESPONSES, response)


def _bounce(state: RoundState, callee: bytes, call: CallMessage, code: RejectCode, text: str) -> None:
    state.events.rejects += 1
    error_code = "IC0301" if code is RejectCode.DESTINATION_INVALID else "IC0515"
    send(state, call.caller, callee, ResponseMessage(call.callback, b"", code, text, call.cycles, error_code))
