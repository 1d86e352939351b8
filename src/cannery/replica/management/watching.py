"""For watchers: what they want to know of one canister, and the message that a node sends itself.

Latency is no part of the state: it is null here, and the node that answers the query fills it in.
"""

from __future__ import annotations

from cannery.errors import Reject, RejectCode
from cannery.limits import CANARY_WORD_SIZE_BYTES_MAX
from cannery.replica import cycles
from cannery.replica.management.access import operators, status_readers
from cannery.replica.management.methods import Method, query_method, update_method
from cannery.replica.management.request import Change, Request
from cannery.replica.management.status import show_status
from cannery.replica.management.types import CanisterIdRecord
from cannery.replica.management.watch_types import CanisterMetricsReport
from cannery.replica.records import AccountRecord, CanisterRecord, CanisterStatus, memory_size_bytes

CANISTER_METRICS_METHOD = "cannery_canister_metrics"
CANARY_METHOD = "cannery_canary"


def _canister_metrics(request: Request, args: CanisterIdRecord) -> CanisterMetricsReport:
    canister_id = args.canister_id.raw
    canister, account = request.canister(canister_id), request.account(canister_id)
    priced_from_ns = request.state.subnet().priced_from_ns
    return CanisterMetricsReport(
        status=show_status(canister),
        module_hash=canister.module_hash,
        cycles=cycles.balance_now(request.config, account, request.now_ns, priced_from_ns),
        burned=account.burned,
        memory_size=memory_size_bytes(account),
        key_count=account.key_count,
        messages=account.messages,
        rejects=account.rejects,
        traps=account.traps,
        queued=_queued(account),
        calls_open=account.calls_open,
        active_ns=account.active_ns,
        uptime_ns=_uptime_ns(canister, request.now_ns),
        latency=None,
    )


def _queued(account: AccountRecord) -> int:
    return sum(account.lanes[1::2]) - sum(account.lanes[0::2])


def _uptime_ns(canister: CanisterRecord, now_ns: int) -> int:
    if canister.module_hash is None or canister.status is not CanisterStatus.RUNNING:
        return 0
    return max(0, now_ns - canister.installed_ns)


def _canary(_change: Change, word: bytes) -> bytes:
    """Give back what was sent: the whole way of a message, and nothing else."""
    if len(word) > CANARY_WORD_SIZE_BYTES_MAX:
        raise Reject(
            RejectCode.CANISTER_REJECT,
            f"cannery_canary takes {CANARY_WORD_SIZE_BYTES_MAX} bytes at most: send fewer",
            "IC0406",
        )
    return word


METHODS: tuple[Method, ...] = (
    update_method(CANARY_METHOD, bytes, bytes, operators, _canary),
    query_method(
        CANISTER_METRICS_METHOD, CanisterIdRecord, CanisterMetricsReport, status_readers, _canister_metrics
    ),
)
