"""Calls of the management canister about canisters of several subnets: asked of each, answered as one.

The subnet of the caller splits the call, runs its own part, sends the others theirs, and answers when the
last part is there, with the results in the order of the targets. Where a part is refused as a whole, so is
the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as with_changes
from typing import Final

import msgspec
from msgspec.structs import replace

from cannery.candid.codec import decoder, encoder
from cannery.errors import Reject, RejectCode, Trap
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.calls import answer_now, commit
from cannery.replica.management.dispatch import (
    METHODS,
    ManagementCall,
    Pending,
    Rejected,
    check_management,
    execute_management,
)
from cannery.replica.notices import send_module, tell
from cannery.replica.places import subnet_of
from cannery.replica.records import FanOrigin, NoticeKind, Origin, RecordDecoder, encode_record
from cannery.replica.request_status import rejected
from cannery.replica.state import MessageOverlay, Outcome, RoundState
from cannery.replica.streams import is_full


class Fan(msgspec.Struct, frozen=True, array_like=True):
    """A call under way: who is answered, and the subnets whose part is missing."""

    origin: Origin
    cycles: int
    method: str
    targets: tuple[bytes, ...]
    missing: tuple[int, ...]


class FanAsk(msgspec.Struct, frozen=True, array_like=True):
    """A part for another subnet."""

    number: int
    caller: bytes
    method: str
    arg: bytes


class FanPart(msgspec.Struct, frozen=True, array_like=True):
    """A part's answer."""

    number: int
    reply: bytes
    reject_code: int = 0
    reject_message: str = ""
    error_code: str | None = None


FAN: Final = RecordDecoder(Fan, "fan")
PART: Final = RecordDecoder(FanPart, "part of a fan")
_ASK: Final = msgspec.msgpack.Decoder(FanAsk)
_FIELDS: Final[Mapping[str, str]] = {
    "cannery_upgrade_many": "targets",
    "cannery_alarm_set": "targets",
    "cannery_status_many": "",
}


def split(state: RoundState, call: ManagementCall) -> dict[int, list[Principal]] | None:
    """Give the targets of each subnet where a call is about canisters of others; None for any other call."""
    field, config = _FIELDS.get(call.method), state.view.config
    if field is None or len(config.routes) < 2 or isinstance(call.origin, FanOrigin):
        return None
    try:
        args = METHODS[call.method].decode(call.arg)
    except Reject:
        return None
    parts: dict[int, list[Principal]] = {}
    for target in _targets_of(args, field):
        parts.setdefault(subnet_of(config, target.raw), []).append(target)
    return parts if set(parts) - {config.subnet} else None


def _targets_of(args: object, field: str) -> list[Principal]:
    found = getattr(args, field) if field else args
    assert isinstance(found, list), "that is the method's argument"
    return found


def begin_fan(state: RoundState, call: ManagementCall, parts: dict[int, list[Principal]]) -> None:
    """Send the parts of a call to their subnets and run the own one. Raises `Reject`."""
    own, method = state.view.config.subnet, METHODS[call.method]
    check_management(state, call)
    for subnet in parts:
        if subnet != own and is_full(state, subnet):
            text = f"the stream to subnet {subnet} is full: try again later"
            raise Reject(RejectCode.SYS_TRANSIENT, text, "IC0515")
    args = method.decode(call.arg)
    field = _FIELDS[call.method]
    targets = tuple(target.raw for target in _targets_of(args, field))
    last = next(iter(state.layer.scan(*keys.space_range(keys.FANS), reverse=True)), None)
    number = 1 if last is None else keys.number_of(last[0]) + 1
    fan = Fan(call.origin, call.cycles, call.method, targets, tuple(sorted(parts)))
    state.layer.put(_key(number), encode_record(fan))
    for subnet in sorted(parts):
        part = parts[subnet] if not field else with_changes(args, **{field: parts[subnet]})  # type: ignore[type-var]
        arg = encoder(method.args)((part,))
        if subnet == own:
            _run_part(state, ManagementCall(call.caller, call.method, arg, 0, FanOrigin(own, number)))
            continue
        module_hash = getattr(args, "module_hash", None)
        if isinstance(module_hash, bytes):
            send_module(state, subnet, module_hash)
        ask = FanAsk(number, call.caller, call.method, arg)
        tell(state, subnet, NoticeKind.FAN_ASK, msgspec.msgpack.encode(ask))


def take_part(state: RoundState, sender: int, data: bytes) -> None:
    """Run a part of another subnet's call."""
    ask = _ASK.decode(data)
    _run_part(state, ManagementCall(ask.caller, ask.method, ask.arg, 0, FanOrigin(sender, ask.number)))


def _run_part(state: RoundState, call: ManagementCall) -> None:
    message = MessageOverlay(state)
    try:
        result = execute_management(message, call)
        if isinstance(result, Rejected):
            raise Reject(RejectCode(result.code), result.text, result.error_code)
    except Trap as trap:
        answer_now(state, call.origin, rejected(Reject(RejectCode.CANISTER_ERROR, str(trap), "IC0503")), b"")
        return
    except Reject as reject:
        answer_now(state, call.origin, rejected(reject), b"")
        return
    if not isinstance(result, Pending):
        message.answer(call.origin, Outcome(reply=result.data))
    commit(message)


def settle_fans(state: RoundState) -> None:
    """Bring the answers of parts that have come to their end to whoever waits for them."""
    while state.fan_answers:
        answers, state.fan_answers = state.fan_answers, []
        for origin, outcome in answers:
            part = FanPart(
                origin.number, outcome.reply, outcome.reject_code, outcome.reject_message, outcome.error_code
            )
            own = state.view.config.subnet
            if origin.subnet == own:
                message = MessageOverlay(state)
                _take(message, own, part)
                commit(message)
            else:
                tell(state, origin.subnet, NoticeKind.FAN_ANSWER, encode_record(part))


def take_part_answer(message: MessageOverlay, sender: int, data: bytes) -> None:
    """Take another subnet's answer to its part."""
    _take(message, sender, PART.decode(data))


def _take(message: MessageOverlay, subnet: int, part: FanPart) -> None:
    stored = message.get(_key(part.number))
    assert stored is not None, "a call stays until each part is there"
    fan = FAN.decode(stored)
    message.put(_part_key(part.number, subnet), encode_record(part))
    missing = tuple(each for each in fan.missing if each != subnet)
    if missing:
        message.put(_key(part.number), encode_record(replace(fan, missing=missing)))
        return
    start, end = keys.owned_range(keys.FAN_PARTS, keys.u64(part.number))
    parts = [PART.decode(found) for _, found in message.scan(start, end)]
    message.put(_key(part.number), None)
    for each in list(message.scan(start, end)):
        message.put(each[0], None)
    failed = next((each for each in parts if each.reject_code), None)
    if failed is not None:
        outcome = Outcome(
            b"", failed.reject_code, failed.reject_message, failed.error_code, refund=fan.cycles
        )
    else:
        outcome = Outcome(reply=_join(fan, parts), refund=fan.cycles)
    message.answer(fan.origin, outcome)


def _join(fan: Fan, parts: list[FanPart]) -> bytes:
    """Join the parts' results in the order of the call's targets; targets without a result are left out."""
    method = METHODS[fan.method]
    found: dict[bytes, object] = {}
    for part in parts:
        (results,) = decoder(method.results)(part.reply)
        assert isinstance(results, list), "each of these methods gives a list"
        for each in results:
            found[each.raw if isinstance(each, Principal) else each.canister_id.raw] = each
    return method.encode([found[target] for target in fan.targets if target in found])


def _key(number: int) -> bytes:
    return keys.numbered(keys.FANS, b"", number)


def _part_key(number: int, subnet: int) -> bytes:
    return keys.owned(keys.FAN_PARTS, keys.u64(number), keys.u64(subnet))
