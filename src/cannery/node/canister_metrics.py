"""The node's own part of `cannery_canister_metrics`: the latency, which is in no state.

A query of a user passes here after the replica has answered it, and has decided who may ask.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from cannery.candid.codec import decoder
from cannery.node.latency import Latencies
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.types import CanisterIdRecord
from cannery.replica.management.watch_types import CanisterMetricsReport, LatencyReport
from cannery.replica.management.watching import CANISTER_METRICS_METHOD
from cannery.replica.queries import Query, QueryResult
from cannery.replica.state import MANAGEMENT_ID

_METHOD: Final = METHODS[CANISTER_METRICS_METHOD]
_decode_report: Final = decoder(_METHOD.results)


def fill_latency(query: Query, result: QueryResult, latencies: Latencies) -> QueryResult:
    """Give an answer to any query as it leaves: that of `cannery_canister_metrics` with its latency."""
    if query.canister_id != MANAGEMENT_ID or query.method != CANISTER_METRICS_METHOD:
        return result
    if result.reject is not None:
        return result
    args = _METHOD.decode(query.arg)
    assert isinstance(args, CanisterIdRecord), "the replica has decoded this argument"
    found = latencies.find(args.canister_id.raw)
    if found is None:
        return result
    (report,) = _decode_report(result.reply)
    assert isinstance(report, CanisterMetricsReport), "the replica has encoded this reply"
    latency = LatencyReport(list(found.buckets), list(found.counts), found.sum_seconds, found.count)
    return QueryResult(_METHOD.encode(replace(report, latency=latency)))
