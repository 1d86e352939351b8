"""Fleets with members on other subnets: what the index's subnet shares with theirs, and hears of them.

The index's subnet is the fleet's home. It sends registry, roles and values to a subnet ahead of the index's
first creation there, and each change afterwards; the subnet says which version it has. The subnet says who
joins and who leaves. While a subnet does not hear the home, nobody has a role in the fleet there: a right may
have been taken away meanwhile. Docs: docs/adr/0006-fleets-known-to-the-node.md.
"""

from __future__ import annotations

from typing import Final

import msgspec
from msgspec.structs import replace

from cannery.replica import fleets, keys
from cannery.replica.fleet_records import FLEET, FleetRecord
from cannery.replica.notices import tell
from cannery.replica.places import SUBNET_BITS
from cannery.replica.records import NoticeKind, encode_record
from cannery.replica.state import MessageOverlay, RoundState

_SHARED: Final = (keys.FLEET_MODULES, keys.FLEET_ROLES, keys.FLEET_VALUES, keys.FLEET_LOCALS)


class FleetChange(msgspec.Struct, frozen=True, array_like=True):
    """Keys of a fleet that are set (None: removed), each by its space and what follows the fleet in it."""

    fleet: bytes
    record: FleetRecord
    changes: tuple[tuple[int, bytes, bytes | None], ...]


class FleetWord(msgspec.Struct, frozen=True, array_like=True):
    """A fleet, with a member (`FLEET_JOINED`, `FLEET_LEFT`, `FLEET_DISMISSED`) or its configuration's version
    (`FLEET_HAS`); `local` is the local index that made the member, if one did.
    """

    fleet: bytes
    member: bytes = b""
    version: int = 0
    local: bytes = b""


_ENCODER: Final = msgspec.msgpack.Encoder()
_CHANGE: Final = msgspec.msgpack.Decoder(FleetChange)
_WORD: Final = msgspec.msgpack.Decoder(FleetWord)


def home_of(fleet: bytes) -> int:
    """Give the subnet of a fleet's index."""
    counter = keys.canister_counter(fleet)
    assert counter is not None, "an index is a canister"
    return counter >> SUBNET_BITS


def away_key(fleet: bytes, subnet: int) -> bytes:
    """Give the key that says that a subnet has a fleet's registry and configuration."""
    return keys.owned(keys.FLEETS_AWAY, fleet, keys.u64(subnet))


# --- at home -----------------------------------------------------------------------------------------------


def subnets_with(message: MessageOverlay, fleet: bytes) -> list[int]:
    """List the other subnets that have a fleet's registry and configuration."""
    found = message.scan(*keys.owned_range(keys.FLEETS_AWAY, fleet))
    return [int.from_bytes(key[-8:], "big") for key, _ in found]


def share_fleet(state: RoundState, subnet: int, index: bytes) -> None:
    """Send all of a fleet to a subnet that does not have it, where `index` has founded one."""
    record = fleets.find_fleet(state.layer.get, index)
    mark = away_key(index, subnet)
    if record is None or state.layer.get(mark) is not None:
        return
    state.layer.put(mark, b"")
    changes: list[tuple[int, bytes, bytes | None]] = []
    for space in _SHARED:
        head = len(keys.owned(space, index))
        for key, value in state.layer.scan(*keys.owned_range(space, index)):
            changes.append((space, key[head:], value))
    tell(state, subnet, NoticeKind.FLEET, _ENCODER.encode(FleetChange(index, record, tuple(changes))))


def share_changes(message: MessageOverlay, fleet: bytes) -> list[int]:
    """Send what this message has changed of a fleet to the subnets that have it; give them."""
    subnets = subnets_with(message, fleet)
    if not subnets:
        return []
    record = fleets.find_fleet(message.get, fleet)
    assert record is not None, "whoever changes a fleet has found it"
    starts = {keys.owned(space, fleet): space for space in _SHARED}
    changes: list[tuple[int, bytes, bytes | None]] = []
    for key, value in sorted(message.layer.values.items()):
        head = key[: 2 + len(fleet)]
        if head in starts:
            changes.append((starts[head], key[len(head) :], value))
    data = _ENCODER.encode(FleetChange(fleet, record, tuple(changes)))
    for subnet in subnets:
        message.tell(subnet, NoticeKind.FLEET, data)
    return subnets


def take_member(message: MessageOverlay, data: bytes, *, joined: bool) -> None:
    """Note that a canister of another subnet is a member now, or is none any more; those of a local index are
    counted here, and listed where they are.
    """
    word = _WORD.decode(data)
    record = fleets.find_fleet(message.get, word.fleet)
    if record is None:
        return
    if not word.local:
        key = keys.owned(keys.FLEET_MEMBERS, word.fleet, word.member)
        if (message.get(key) is not None) == joined:
            return
        message.put(key, b"" if joined else None)
    members = record.members + (1 if joined else -1)
    fleets.put_fleet(message, word.fleet, replace(record, members=members))


def take_dismissal(message: MessageOverlay, data: bytes) -> None:
    """Note that a canister is no local index any more; the fleet's home passes it on."""
    word = _WORD.decode(data)
    key = keys.owned(keys.FLEET_LOCALS, word.fleet, word.member)
    if message.get(key) != fleets.APPOINTED:
        return
    message.put_trust(key, fleets.DISMISSED)
    for subnet in subnets_with(message, word.fleet):
        message.tell(subnet, NoticeKind.FLEET_DISMISSED, data)


def read_word(data: bytes) -> FleetWord:
    """Decode a word about a fleet."""
    return _WORD.decode(data)


# --- away --------------------------------------------------------------------------------------------------


def take_change(message: MessageOverlay, data: bytes) -> None:
    """Take in what the home has sent, and say so."""
    change = _CHANGE.decode(data)
    fleet = change.fleet
    known = fleets.find_fleet(message.get, fleet)
    members = 0 if known is None else known.members
    fleets.put_fleet(message, fleet, replace(change.record, members=members, is_stale=False))
    for space, rest, value in change.changes:
        message.put_trust(keys.owned(space, fleet, rest), value)
    word = FleetWord(fleet, version=change.record.config_version)
    message.tell(home_of(fleet), NoticeKind.FLEET_HAS, _ENCODER.encode(word))


def mark_stale(message: MessageOverlay, home: int, *, is_stale: bool) -> None:
    """Note for each fleet of a subnet that it is not heard, or is heard again."""
    for key, data in list(message.scan(*keys.space_range(keys.FLEETS))):
        fleet, record = keys.owner_of(key), FLEET.decode(data)
        if home_of(fleet) == home and record.is_stale != is_stale:
            message.put(key, encode_record(replace(record, is_stale=is_stale)))
