"""Types of what `watching` tells of a canister."""

from __future__ import annotations

from cannery.candid.python import nat, nat64, record
from cannery.replica.management.types import StatusKind


@record
class LatencyReport:
    """A histogram of updates from submission to durable answer: `counts[i]` took at most `buckets[i]` seconds
    and more than the bound before; the last of `counts`, one more than there are bounds, took longer.
    """

    buckets: list[float]
    counts: list[nat64]
    sum_seconds: float
    count: nat64


@record
class CanisterMetricsReport:
    """Result of `cannery_canister_metrics`. `uptime_ns`: since it was installed or upgraded last, 0 where it
    does not run; `latency`: since the node's process started, null where it answered nothing lately.
    """

    status: StatusKind
    module_hash: bytes | None
    cycles: nat
    burned: nat
    memory_size: nat64
    key_count: nat64
    messages: nat64
    rejects: nat64
    traps: nat64
    queued: nat64
    calls_open: nat64
    active_ns: nat64
    uptime_ns: nat64
    latency: LatencyReport | None
