"""Changes of a fleet's configuration that wait for the members' subnets to have them, for a bounded time."""

from __future__ import annotations

from itertools import islice
from typing import Final

import msgspec
from msgspec.structs import replace

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.limits import FLEET_PAGE_COUNT_MAX, FLEET_SYNC_WAIT_NS_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.fleets_away import read_word
from cannery.replica.management.fleet_types import FleetConfigureResult
from cannery.replica.management.request import Change, Pending
from cannery.replica.places import first_counter
from cannery.replica.records import Origin, RecordDecoder, encode_record
from cannery.replica.state import MessageOverlay, Outcome


class FleetWait(msgspec.Struct, frozen=True, array_like=True):
    """Who waits for a version to be everywhere, which subnets have not said so, and until when it waits."""

    origin: Origin
    cycles: int
    subnets: tuple[int, ...]
    until_ns: int


WAIT: Final = RecordDecoder(FleetWait, "fleet wait")
_encode: Final = encoder((type_of(FleetConfigureResult),))


def begin_wait(change: Change, fleet: bytes, version: int, subnets: list[int]) -> Pending:
    """Let the caller wait until these subnets have a version."""
    until_ns = change.request.now_ns + FLEET_SYNC_WAIT_NS_MAX
    wait = FleetWait(change.origin, change.accept(), tuple(subnets), until_ns)
    change.message.put(keys.numbered(keys.FLEET_WAITS, fleet, version), encode_record(wait))
    change.message.put(keys.due_key(until_ns, keys.DUE_FLEET, fleet, version), b"")
    return Pending()


def note_has(message: MessageOverlay, subnet: int, data: bytes) -> None:
    """Note that a subnet has a version: whoever waited for it alone is answered."""
    word = read_word(data)
    for key, stored in list(message.scan(*keys.owned_range(keys.FLEET_WAITS, word.fleet))):
        version, wait = keys.number_of(key), WAIT.decode(stored)
        if version > word.version or subnet not in wait.subnets:
            continue
        left = tuple(each for each in wait.subnets if each != subnet)
        if left:
            message.put(key, encode_record(replace(wait, subnets=left)))
        else:
            message.put(keys.due_key(wait.until_ns, keys.DUE_FLEET, word.fleet, version), None)
            _answer(message, key, version, wait, [])


def expire_wait(message: MessageOverlay, fleet: bytes, version: int) -> None:
    """Answer who has waited long enough, with the members on subnets that have not said that they have it."""
    key = keys.numbered(keys.FLEET_WAITS, fleet, version)
    stored = message.get(key)
    if stored is None:
        return
    wait = WAIT.decode(stored)
    waiting: list[Principal] = []
    head = len(keys.owned(keys.FLEET_MEMBERS, fleet))
    for subnet in wait.subnets:
        ends = (keys.canister_id(first_counter(each)) for each in (subnet, subnet + 1))
        start, end = (keys.owned(keys.FLEET_MEMBERS, fleet, each) for each in ends)
        room = FLEET_PAGE_COUNT_MAX - len(waiting)
        waiting += [Principal(found[head:]) for found, _ in islice(message.scan(start, end), room)]
    _answer(message, key, version, wait, waiting)


def _answer(
    message: MessageOverlay, key: bytes, version: int, wait: FleetWait, waiting: list[Principal]
) -> None:
    message.put(key, None)
    reply = _encode((FleetConfigureResult(version, waiting),))
    message.answer(wait.origin, Outcome(reply=reply, refund=wait.cycles))
