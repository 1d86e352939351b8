"""The way of messages between canisters: one stream per destination subnet, with sequence numbers.

A message to a canister of the own subnet takes its number in the own stream and is inducted at once, so
that the stream is empty at the end of a round; one to another subnet stays in that subnet's stream until it
is acknowledged. Calls are refused where the receiver has no room, or where the stream is full; responses
always fit, since each has its callback's place. A message that comes in by the number already received is a
repetition and is dropped. Cycles that leave with a message are counted out here, and in where they arrive.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import RejectCode
from cannery.limits import REPLACEMENTS_FOLLOWED_COUNT_MAX, STREAM_ENTRY_COUNT_MAX, STREAM_SIZE_BYTES_MAX
from cannery.replica import fleets, keys
from cannery.replica.cycles import burn_refund, credit_account
from cannery.replica.fleets_away import share_fleet
from cannery.replica.notices import append, least_filled, note_creation, send_needed_module
from cannery.replica.places import CREATIONS, Anywhere, place_of_management, route_of_subnet, subnet_of
from cannery.replica.records import (
    CallMessage,
    Lane,
    Notice,
    ResponseMessage,
    StreamEntry,
    StreamHead,
    cycles_of,
)
from cannery.replica.state import MANAGEMENT_ID, RoundState
from cannery.replica.view import show


def send(state: RoundState, receiver: bytes, sender: bytes, message: CallMessage | ResponseMessage) -> None:
    """Put a message into the stream to its receiver's subnet; a call goes where its receiver has moved to."""
    config = state.view.config
    if isinstance(message, CallMessage):
        receiver, subnet = _place(state, receiver, message)
    else:
        subnet = subnet_of(config, receiver)
    if subnet == config.subnet:
        head = state.stream_head(subnet)
        following = head.next + 1
        state.put_stream_head(subnet, StreamHead(following, following, following))
        induct(state, receiver, message)
        return
    if isinstance(message, CallMessage):
        if is_full(state, subnet):
            text = f"the stream to subnet {subnet} is full: try again later"
            _bounce(state, receiver, message, RejectCode.SYS_TRANSIENT, text)
            return
        if receiver == MANAGEMENT_ID:
            send_needed_module(state, subnet, message)
            note_creation(state, subnet, message)
            if message.method in CREATIONS:
                share_fleet(state, subnet, message.caller)
    state.subnet.cycles_out += cycles_of(message)
    append(state, subnet, StreamEntry(sender, receiver, message))


def _place(state: RoundState, receiver: bytes, call: CallMessage) -> tuple[bytes, int]:
    """Give receiver and subnet of a call: a subnet's principal stands for its management canister."""
    config = state.view.config
    if len(config.routes) < 2 and (not config.routes or receiver != config.routes[0].subnet_id):
        receiver = _follow(state, receiver)
        return receiver, subnet_of(config, receiver)
    if receiver == MANAGEMENT_ID:
        place = place_of_management(config.routes, call.method, call.arg)
        spreads = (
            config.spreads
            and place is None
            and call.method in CREATIONS
            and not _is_local(state, call.caller)
        )
        if spreads or isinstance(place, Anywhere):
            place = least_filled(state)
        return receiver, config.subnet if place is None else place
    named = route_of_subnet(config.routes, receiver)
    if named is not None:
        return MANAGEMENT_ID, named.subnet
    receiver = _follow(state, receiver)
    return receiver, subnet_of(config, receiver)


def _is_local(state: RoundState, caller: bytes) -> bool:
    """Say whether a canister is a local index: what it makes is on its own subnet unless it names one."""
    canister = state.view.canister(caller)
    return canister is not None and fleets.is_local(state.layer.get, canister.fleet, caller)


def is_full(state: RoundState, subnet: int) -> bool:
    """Say whether a stream takes no more calls until the other side has received some."""
    head = state.stream_head(subnet)
    return head.next - head.first >= STREAM_ENTRY_COUNT_MAX or head.size_bytes >= STREAM_SIZE_BYTES_MAX


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
    message = entry.message
    assert not isinstance(message, Notice), "notices are taken by `peers`"
    state.subnet.cycles_in += cycles_of(message)
    receiver = _follow(state, entry.receiver) if isinstance(message, CallMessage) else entry.receiver
    induct(state, receiver, message)
    return True


def acknowledge(state: RoundState, subnet: int, received: int) -> None:
    """Forget the messages of a stream that the other side has received (all numbers below `received`)."""
    head = state.stream_head(subnet)
    up_to = min(received, head.next)
    freed = 0
    for number in range(head.first, up_to):
        key = keys.stream_key(subnet, number)
        data = state.layer.get(key)
        assert data is not None, "a stream's head names only messages that are stored"
        freed += len(data)
        state.layer.delete(key)
    if up_to > head.first:
        state.put_stream_head(subnet, replace(head, first=up_to, size_bytes=head.size_bytes - freed))


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
