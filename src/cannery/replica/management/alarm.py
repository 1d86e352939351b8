"""The line under which a balance is low: `cannery_alarm_set`. Who is told of it, and when, decides
`replica.alarms`.
"""

from __future__ import annotations

from cannery.candid.python import nat, record
from cannery.errors import Reject, RejectCode
from cannery.limits import ALARM_TARGET_COUNT_MAX, CYCLES_MINTED_MAX
from cannery.protocol.principal import Principal
from cannery.replica.management.methods import Method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.records import CanisterRecord
from cannery.replica.view import show


@record
class AlarmSetArgs:
    """Canisters, and the balance under which the index of their fleet is told; 0: no alarm."""

    targets: list[Principal]
    cycles: nat


def _may_set(request: Request, args: AlarmSetArgs) -> None:
    """Let canisters in, and users who control one of the targets; each target is asked for again."""
    if len(args.targets) > ALARM_TARGET_COUNT_MAX:
        raise _refused(
            f"One call sets at most {ALARM_TARGET_COUNT_MAX} alarms, {len(args.targets)} are named"
        )
    if args.cycles > CYCLES_MINTED_MAX:
        raise _refused(f"No balance ever reaches {args.cycles} cycles: a subnet mints {CYCLES_MINTED_MAX}")
    if request.from_user and not any(
        _governs(request.caller, request.state.canister(target.raw)) for target in args.targets
    ):
        raise _refused(
            f"{show(request.caller)} may set the alarm of none of these canisters: it controls none of them"
        )


def _governs(caller: bytes, canister: CanisterRecord | None) -> bool:
    return canister is not None and (caller in canister.controllers or caller == canister.fleet)


def _set(change: Change, args: AlarmSetArgs) -> list[Principal]:
    """Set the alarms of those that the caller governs, and give the others."""
    left_out: list[Principal] = []
    for target in args.targets:
        if _governs(change.caller, change.message.canister(target.raw)):
            account = change.account(target.raw)
            account.alarm_cycles, account.alarm_told = args.cycles, False
        else:
            left_out.append(target)
    change.message.state.note_work(len(args.targets), 0)
    return left_out


def _refused(text: str) -> Reject:
    return Reject(RejectCode.CANISTER_REJECT, text, "IC0406")


METHODS: tuple[Method, ...] = (
    update_method("cannery_alarm_set", AlarmSetArgs, list[Principal], _may_set, _set),
)
