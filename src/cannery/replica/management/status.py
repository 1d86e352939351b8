"""What a canister's owner, and others, may learn of it: status, metrics, history, metadata, log; and chance.

IC interface specification, "IC method canister_status" and those around it. Wasm memory, reserved cycles and
query statistics are zero: Python canisters have no Wasm memory, cycles are never reserved, and queries leave
no trace in the replicated state.
"""

from __future__ import annotations

from hashlib import sha256

from cannery.cdk.module_file import parse_module
from cannery.errors import Reject, RejectCode
from cannery.limits import HISTORY_CHANGE_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import cycles, keys
from cannery.replica.logs import read_log
from cannery.replica.management.access import (
    anyone,
    canister_exists,
    controllers_or_operators,
    log_readers,
    status_readers,
)
from cannery.replica.management.history import history_size_bytes, list_changes
from cannery.replica.management.methods import Method, query_method, status_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.settings import show_settings
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterInfoArgs,
    CanisterInfoResult,
    CanisterMetadataArgs,
    CanisterMetadataResult,
    CanisterMetricsResult,
    CanisterStatusResult,
    CyclesConsumed,
    FetchLogsArgs,
    FetchLogsResult,
    LogFilter,
    LogRecord,
    MemoryMetrics,
    QueryStats,
    StatusKind,
)
from cannery.replica.records import (
    AccountRecord,
    CallOrigin,
    CanisterRecord,
    CanisterStatus,
    memory_size_bytes,
)
from cannery.replica.view import show

_STATUS = {
    CanisterStatus.RUNNING: StatusKind.running(),
    CanisterStatus.STOPPING: StatusKind.stopping(),
    CanisterStatus.STOPPED: StatusKind.stopped(),
}
_NO_QUERIES = QueryStats(0, 0, 0, 0)


def show_status(canister: CanisterRecord) -> StatusKind:
    """Give a canister's status as results name it."""
    return _STATUS[canister.status]


def _canister_status(request: Request, args: CanisterIdRecord) -> CanisterStatusResult:
    canister_id = args.canister_id.raw
    canister, account = request.canister(canister_id), request.account(canister_id)
    priced_from_ns = request.state.subnet().priced_from_ns
    return CanisterStatusResult(
        status=show_status(canister),
        ready_for_migration=canister.status is CanisterStatus.STOPPED and not account.lanes,
        version=account.version,
        settings=show_settings(canister),
        module_hash=canister.module_hash,
        memory_size=memory_size_bytes(account),
        memory_metrics=_memory_metrics(request, canister_id, canister, account),
        cycles=cycles.balance_now(request.config, account, request.now_ns, priced_from_ns),
        reserved_cycles=0,
        idle_cycles_burned_per_day=cycles.idle_burned_per_day(request.config, account),
        query_stats=_NO_QUERIES,
    )


def _memory_metrics(
    request: Request, canister_id: bytes, canister: CanisterRecord, account: AccountRecord
) -> MemoryMetrics:
    module = request.state.module(canister.module_hash) if canister.module_hash is not None else None
    return MemoryMetrics(
        wasm_memory_size=0,
        stable_memory_size=account.memory_bytes + account.queued_bytes + account.event_bytes,
        global_memory_size=0,
        wasm_binary_size=0 if module is None else module.size_bytes,
        custom_sections_size=0,
        canister_history_size=history_size_bytes(request.reader, canister_id),
        wasm_chunk_store_size=account.chunk_bytes,
        snapshots_size=account.snapshot_bytes,
        log_memory_store_size=account.log_bytes,
    )


def _canister_metrics(request: Request, args: CanisterIdRecord) -> CanisterMetricsResult:
    """Tell what was burned: one sum is kept, shown as the cost of execution (all counted work)."""
    account = request.account(args.canister_id.raw)
    priced_from_ns = request.state.subnet().priced_from_ns
    due, _ = cycles.storage_due(request.config, account, request.now_ns, priced_from_ns)
    consumed = CyclesConsumed(
        memory=min(due, account.cycles),
        compute_allocation=0,
        ingress_induction=0,
        instructions=account.burned,
        request_and_response_transmission=0,
        uninstall=0,
        canister_creation=0,
        http_outcalls=0,
        burned_cycles=0,
    )
    return CanisterMetricsResult(consumed)


def _canister_info(request: Request, args: CanisterInfoArgs) -> CanisterInfoResult:
    canister_id = args.canister_id.raw
    canister = request.canister(canister_id)
    wanted = min(args.num_requested_changes or 0, HISTORY_CHANGE_COUNT_MAX)
    return CanisterInfoResult(
        total_num_changes=canister.change_count,
        recent_changes=list_changes(request.reader, canister_id, wanted),
        module_hash=canister.module_hash,
        controllers=[Principal(raw) for raw in canister.controllers],
    )


def _canister_metadata(request: Request, args: CanisterMetadataArgs) -> CanisterMetadataResult:
    canister_id = args.canister_id.raw
    canister = request.canister(canister_id)
    stored = None
    if canister.module_hash is not None:
        stored = request.reader.get(keys.hashed(keys.MODULE_FILES, canister.module_hash))
    found = None if stored is None else parse_module(stored).metadata(args.name)
    if found is None or not (found[1] or request.caller in canister.controllers):
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"Canister {show(canister_id)} has no metadata {args.name!r:.200} that you may see",
            "IC0406",
        )
    return CanisterMetadataResult(found[0])


def _raw_rand(change: Change, _args: None) -> bytes:
    """Give 32 bytes drawn from the block's seed, other for each call."""
    origin = change.origin
    callback = origin.callback if isinstance(origin, CallOrigin) else 0
    head = b"raw_rand:%d:" % callback
    return sha256(head + change.message.state.block.seed + change.caller).digest()


def _fetch_logs(request: Request, args: FetchLogsArgs) -> FetchLogsResult:
    lines = [
        LogRecord(number, entry.time_ns, entry.content, entry.is_trap)
        for number, entry in read_log(request.reader, args.canister_id.raw)
        if _is_wanted(args.filter, number, entry.time_ns)
    ]
    return FetchLogsResult(lines)


def _is_wanted(wanted: LogFilter | None, number: int, time_ns: int) -> bool:
    if wanted is None:
        return True
    if wanted.tag == "by_idx":
        return wanted.by_idx.start <= number < wanted.by_idx.end
    return wanted.by_timestamp_nanos.start <= time_ns < wanted.by_timestamp_nanos.end


METHODS: tuple[Method, ...] = (
    status_method(
        "canister_status", CanisterIdRecord, CanisterStatusResult, status_readers, _canister_status
    ),
    status_method(
        "canister_metrics",
        CanisterIdRecord,
        CanisterMetricsResult,
        controllers_or_operators,
        _canister_metrics,
    ),
    status_method(
        "canister_info",
        CanisterInfoArgs,
        CanisterInfoResult,
        canister_exists,
        _canister_info,
        from_users=False,
        as_query=False,
    ),
    status_method(
        "canister_metadata",
        CanisterMetadataArgs,
        CanisterMetadataResult,
        canister_exists,
        _canister_metadata,
        from_users=False,
        as_query=False,
    ),
    update_method("raw_rand", None, bytes, anyone, _raw_rand, from_users=False),
    query_method("fetch_canister_logs", FetchLogsArgs, FetchLogsResult, log_readers, _fetch_logs),
)
