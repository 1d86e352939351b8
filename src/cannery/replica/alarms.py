"""Low balances: an index is told in the round in which a member's balance falls under its alarm: the local
one that made it, or that of the fleet.

However a balance fell (a burn, a debit, cycles that went with a call), the accounts that a round changed are
looked at once, after its turns. All members of a fleet that fell in one round stand in one one-way call of
the management canister, `fleet_notice(vec principal)`. A member is told of once; again after its balance has
been above the alarm. Storage counts when it is charged: an index that waits for notices alone learns nothing
of members that do nothing, so it looks around as well. docs/funding.md, "Low balances".
"""

from __future__ import annotations

from typing import Final

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.limits import NOTICE_MEMBER_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import fleets
from cannery.replica.records import CallMessage, Lane
from cannery.replica.state import MANAGEMENT_ID, RoundState

NOTICE_METHOD: Final = "fleet_notice"

_ENCODE = encoder((type_of(list[Principal]),))
_NOBODY_WAITS = 0


def tell_low_balances(state: RoundState) -> None:
    """Let a notice wait at each index with members whose balance fell under their alarm in this round.

    Where an index is gone or its queue is full, its members are told of with their next change.
    """
    view = state.view
    low: dict[bytes, list[bytes]] = {}
    for canister_id in list(state.changed_accounts):
        account = view.accounts.get(canister_id)
        if account is None or not (account.alarm_cycles or account.alarm_told):
            continue
        if account.cycles >= account.alarm_cycles:
            account.alarm_told = False
        elif not account.alarm_told:
            canister = view.canister(canister_id)
            if canister is not None and canister.fleet:
                local = fleets.is_local(view.reader.get, canister.fleet, canister.creator)
                index = canister.creator if local else canister.fleet
                low.setdefault(index, []).append(canister_id)
    for index, members in low.items():
        for start in range(0, len(members), NOTICE_MEMBER_COUNT_MAX):
            _notify(state, index, members[start : start + NOTICE_MEMBER_COUNT_MAX])


def _notify(state: RoundState, index: bytes, members: list[bytes]) -> None:
    account = state.account_for_change(index)
    arg = _ENCODE(([Principal(member) for member in members],))
    if account is None or not state.scheduler.has_room(index, account, Lane.CALLS, len(arg)):
        return
    state.events.calls += 1
    notice = CallMessage(MANAGEMENT_ID, _NOBODY_WAITS, NOTICE_METHOD, arg, 0)
    state.scheduler.enqueue(index, account, Lane.CALLS, notice)
    for member in members:
        told = state.account_for_change(member)
        assert told is not None, "its balance was read above"
        told.alarm_told = True
