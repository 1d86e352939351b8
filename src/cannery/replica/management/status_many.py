"""The figures of many canisters at once: what an index asks for its census, a watcher for all it looks after.

Counters are those of the account: nothing is scanned. What waits in queues is told as it was at the end of
the last round. A target that is not there, and one whose figures are none of the caller's business, have no
status.
"""

from __future__ import annotations

from cannery.candid.python import nat, nat64, record
from cannery.errors import Reject, RejectCode
from cannery.limits import STATUS_TARGET_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import cycles, fleets
from cannery.replica.management.methods import Method, status_method
from cannery.replica.management.request import Request
from cannery.replica.management.status import show_status
from cannery.replica.management.types import StatusKind
from cannery.replica.records import AccountRecord, CanisterRecord, memory_size_bytes
from cannery.replica.view import show


@record
class CanisterReport:
    """A canister's figures. `kind` and `version` are those of its module in the registry of its fleet.

    `burned`, which includes storage that is not charged yet, to `traps` count from its creation; `active_ns`
    is the time of the last message that it ran; under `freezing_limit` it is frozen. `message_fee` is what
    the smallest signed message costs at the node's prices before it does anything.
    """

    fleet: Principal | None
    kind: str | None
    version: nat64 | None
    module_hash: bytes | None
    running: StatusKind
    cycles: nat
    burned: nat
    memory_size: nat
    key_count: nat64
    messages: nat64
    rejects: nat64
    traps: nat64
    queued: nat64
    calls_open: nat64
    created_ns: nat64
    installed_ns: nat64
    active_ns: nat64
    frozen: bool
    idle_burned_per_day: nat
    freezing_limit: nat
    message_fee: nat
    controllers: list[Principal]
    replaced_by: Principal | None


@record
class StatusManyResult:
    """A target and its figures, where the caller may see them. `is_gone`: there is no such canister."""

    canister_id: Principal
    status: CanisterReport | None
    is_gone: bool | None = None


def _may_ask(request: Request, targets: list[Principal]) -> None:
    """Let canisters and operators in; others over HTTP where they may see one of the targets."""
    if len(targets) > STATUS_TARGET_COUNT_MAX:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"One call tells of at most {STATUS_TARGET_COUNT_MAX} canisters, {len(targets)} are named",
            "IC0406",
        )
    if not request.from_user or request.state.is_operator(request.caller):
        return
    if not any(_sees(request, target.raw, request.state.canister(target.raw)) for target in targets):
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"{show(request.caller)} may see none of these canisters: it is no operator, and no controller "
            "of any of them",
            "IC0406",
        )


def _sees(request: Request, canister_id: bytes, canister: CanisterRecord | None) -> bool:
    """Say whether the caller is the canister, a controller, or the index of its fleet."""
    if canister is None:
        return False
    caller = request.caller
    return caller == canister_id or caller in canister.controllers or caller == canister.fleet


def _status_many(request: Request, targets: list[Principal]) -> list[StatusManyResult]:
    sees_all = request.state.is_operator(request.caller)
    priced_from_ns = request.state.subnet().priced_from_ns
    found: list[StatusManyResult] = []
    for target in targets:
        canister, account = request.state.canister(target.raw), request.state.account(target.raw)
        status = None
        if (
            canister is not None
            and account is not None
            and (sees_all or _sees(request, target.raw, canister))
        ):
            status = _report(request, canister, account, priced_from_ns)
        found.append(StatusManyResult(target, status, canister is None))
    return found


def _report(
    request: Request, canister: CanisterRecord, account: AccountRecord, priced_from_ns: int
) -> CanisterReport:
    config, now_ns, get = request.config, request.now_ns, request.reader.get
    fleet, release = fleets.present_fleet(get, canister), fleets.release_of(get, canister)
    return CanisterReport(
        fleet=Principal(fleet) if fleet else None,
        kind=None if release is None else release.kind,
        version=None if release is None else release.version,
        module_hash=canister.module_hash,
        running=show_status(canister),
        cycles=cycles.balance_now(config, account, now_ns, priced_from_ns),
        burned=cycles.burned_now(config, account, now_ns, priced_from_ns),
        memory_size=memory_size_bytes(account),
        key_count=max(0, account.key_count),
        messages=account.messages,
        rejects=account.rejects,
        traps=account.traps,
        queued=sum(account.lanes[1::2]) - sum(account.lanes[0::2]),
        calls_open=account.calls_open,
        created_ns=canister.created_ns,
        installed_ns=canister.installed_ns,
        active_ns=account.active_ns,
        frozen=cycles.is_frozen(config, canister, account, now_ns, priced_from_ns),
        idle_burned_per_day=cycles.idle_burned_per_day(config, account),
        freezing_limit=cycles.freezing_limit(config, canister, account),
        message_fee=cycles.message_fee(config.prices, 0, is_ingress=True),
        controllers=[Principal(raw) for raw in canister.controllers],
        replaced_by=Principal(canister.replaced_by) if canister.replaced_by else None,
    )


METHODS: tuple[Method, ...] = (
    status_method("cannery_status_many", list[Principal], list[StatusManyResult], _may_ask, _status_many),
)
