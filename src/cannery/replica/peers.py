"""What comes in from other subnets: slices of their streams, and word of what they have received.

They are inputs of a block like any other, so that a replay depends on no other subnet. A slice may begin
before what was received already, or behind it: repetitions are dropped, gaps are not stepped over.
"""

from __future__ import annotations

from msgspec.structs import replace

from cannery.errors import Reject
from cannery.replica import keys, records
from cannery.replica.block import ReplicaConfig, StreamAck, StreamSlice
from cannery.replica.calls import commit
from cannery.replica.fans import settle_fans, take_part, take_part_answer
from cannery.replica.fleets import drop_fleet
from cannery.replica.fleets_away import mark_stale, take_change, take_dismissal, take_member
from cannery.replica.management.fleet_waits import note_has
from cannery.replica.management.modules import take_module
from cannery.replica.notices import bring_operators, other_subnets, tell_operators
from cannery.replica.places import ROOT
from cannery.replica.records import Notice, NoticeKind, PeerRecord
from cannery.replica.state import MessageOverlay, RoundState
from cannery.replica.streams import acknowledge, receive


def take_slice(state: RoundState, found: StreamSlice) -> None:
    """Take the messages of a slice that come next in their stream."""
    peer = PeerRecord(found.canister_count)
    state.layer.put(keys.peer_key(found.subnet), records.encode_record(peer))
    for number, data in enumerate(found.entries, found.first):
        head = state.stream_head(found.subnet)
        if number != head.received:
            continue
        entry = records.STREAM_ENTRY.decode(data)
        if isinstance(entry.message, Notice):
            state.put_stream_head(found.subnet, replace(head, received=number + 1))
            _take_notice(state, found.subnet, entry.message)
        else:
            receive(state, found.subnet, number, entry)
    if state.stream_head(found.subnet).received >= found.next:
        _mark(state, found.subnet, is_stale=False)


def lose_peer(state: RoundState, subnet: int) -> None:
    """Note that a subnet is not heard: the fleets whose home it is give nobody a role here until it is."""
    _mark(state, subnet, is_stale=True)


def _mark(state: RoundState, subnet: int, *, is_stale: bool) -> None:
    message = MessageOverlay(state)
    mark_stale(message, subnet, is_stale=is_stale)
    commit(message)


def take_ack(state: RoundState, found: StreamAck) -> None:
    """Forget what another subnet has durably received."""
    acknowledge(state, found.subnet, found.received)


def greet_new_subnets(state: RoundState, before: ReplicaConfig) -> None:
    """Tell subnets that the configuration has added who the operators are; the first subnet does so."""
    config = state.view.config
    if config.subnet != ROOT:
        return
    known = {route.subnet for route in before.routes}
    added = [subnet for subnet in other_subnets(state) if subnet not in known]
    if added:
        tell_operators(state, added)


def _take_notice(state: RoundState, sender: int, notice: Notice) -> None:
    message = MessageOverlay(state)
    kind, data = notice.kind, notice.data
    if kind is NoticeKind.MODULE:
        try:
            take_module(message, data)
        except Reject:
            # It does not load here: whoever needs it is told that it is not on this subnet.
            return
    elif kind is NoticeKind.OPERATORS:
        bring_operators(message, data)
    elif kind is NoticeKind.FLEET:
        take_change(message, data)
    elif kind is NoticeKind.FLEET_HAS:
        note_has(message, sender, data)
    elif kind is NoticeKind.FLEET_GONE:
        drop_fleet(message, data)
    elif kind is NoticeKind.FLEET_DISMISSED:
        take_dismissal(message, data)
    elif kind is NoticeKind.FAN_ASK:
        take_part(state, sender, data)
    elif kind is NoticeKind.FAN_ANSWER:
        take_part_answer(message, sender, data)
    else:
        take_member(message, data, joined=kind is NoticeKind.FLEET_JOINED)
    commit(message)
    settle_fans(state)
