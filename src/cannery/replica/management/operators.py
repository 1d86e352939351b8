"""What operators do and see beyond single canisters: operators, the node's cycles, all its canisters."""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import CANISTER_LIST_COUNT_MAX, OPERATOR_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys
from cannery.replica.management.access import anyone, operators
from cannery.replica.management.methods import Method, query_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.status import show_status
from cannery.replica.management.types import (
    CanisterIdRange,
    CanisterListArgs,
    CanisterListResult,
    CanisterSummary,
    CyclesReport,
    ListCanistersResult,
)
from cannery.replica.records import CANISTER, memory_size_bytes


def _operator_principals(request: Request) -> list[bytes]:
    return [key[1:] for key, _ in request.reader.scan(*keys.space_range(keys.OPERATORS))]


def _add(change: Change, principal: Principal) -> None:
    if principal.is_anonymous:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            "The anonymous principal is everybody: it cannot be an operator",
            "IC0406",
        )
    if len(_operator_principals(change.request)) >= OPERATOR_COUNT_MAX:
        raise Reject(
            RejectCode.CANISTER_REJECT, f"A node has at most {OPERATOR_COUNT_MAX} operators", "IC0406"
        )
    change.message.put_trust(keys.hashed(keys.OPERATORS, principal.raw), b"")
    change.message.new_operators = True


def _remove(change: Change, principal: Principal) -> None:
    present = _operator_principals(change.request)
    if principal.raw not in present:
        raise Reject(RejectCode.CANISTER_REJECT, f"{principal} is no operator", "IC0406")
    if len(present) == 1:
        raise Reject(
            RejectCode.CANISTER_REJECT, f"{principal} is the last operator: add another one first", "IC0406"
        )
    change.message.put_trust(keys.hashed(keys.OPERATORS, principal.raw), None)
    change.message.new_operators = True


def _list(request: Request, _args: None) -> list[Principal]:
    return [Principal(raw) for raw in _operator_principals(request)]


def _cycles(request: Request, _args: None) -> CyclesReport:
    subnet = request.state.subnet()
    return CyclesReport(subnet.minted, subnet.burned, subnet.held)


def _canister_list(request: Request, args: CanisterListArgs) -> CanisterListResult:
    start, end = keys.space_range(keys.CANISTERS)
    if args.after is not None:
        start = keys.owned(keys.CANISTERS, args.after.raw, b"\x00")
    limit = max(1, min(args.limit, CANISTER_LIST_COUNT_MAX))
    page: list[CanisterSummary] = []
    for key, data in request.reader.scan(start, end):
        if len(page) >= limit:
            return CanisterListResult(page, page[-1].canister_id)
        canister_id, canister = keys.owner_of(key), CANISTER.decode(data)
        account = request.account(canister_id)
        page.append(
            CanisterSummary(
                Principal(canister_id),
                show_status(canister),
                canister.module_hash,
                [Principal(raw) for raw in canister.controllers],
                memory_size_bytes(account),
                account.cycles,
            )
        )
    return CanisterListResult(page, None)


def _list_canisters(request: Request, _args: None) -> ListCanistersResult:
    ranges: list[tuple[int, int]] = []
    for key, _ in request.reader.scan(*keys.space_range(keys.CANISTERS)):
        counter = keys.canister_counter(keys.owner_of(key))
        assert counter is not None, "this subnet makes canister ids of one form"
        if ranges and ranges[-1][1] + 1 == counter:
            ranges[-1] = (ranges[-1][0], counter)
        else:
            ranges.append((counter, counter))
    return ListCanistersResult(
        [CanisterIdRange(_principal(first), _principal(last)) for first, last in ranges]
    )


def _principal(counter: int) -> Principal:
    return Principal(keys.canister_id(counter))


METHODS: tuple[Method, ...] = (
    update_method("cannery_operator_add", Principal, None, operators, _add),
    update_method("cannery_operator_remove", Principal, None, operators, _remove),
    query_method("cannery_operator_list", None, list[Principal], operators, _list),
    query_method("cannery_cycles", None, CyclesReport, anyone, _cycles),
    query_method("cannery_canister_list", CanisterListArgs, CanisterListResult, operators, _canister_list),
    query_method("list_canisters", None, ListCanistersResult, operators, _list_canisters),
)
