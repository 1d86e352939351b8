"""How long updates take, from their submission to their durable answer: in total and for each canister.

Histograms are kept for the canisters that were answered last, up to a bound; who falls out begins anew. They
are node-local, in no root, and gone at the end of the process. Nothing here reads a clock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from cannery.limits import LATENCY_CANISTER_COUNT_MAX
from cannery.node.metrics import SECONDS_BUCKETS, Histogram

_NS_PER_S: Final = 1_000_000_000
_BOUNDS_NS: Final = tuple(round(bound * _NS_PER_S) for bound in SECONDS_BUCKETS)


@dataclass(frozen=True, slots=True)
class Latency:
    """A histogram: `counts[i]` took at most `buckets[i]` seconds and more than the bound before; the last
    count, one more than there are bounds, took longer.
    """

    buckets: tuple[float, ...]
    counts: tuple[int, ...]
    sum_seconds: float
    count: int


class Latencies:
    """The latency of all updates, and that of each canister answered lately."""

    __slots__ = ("_by_canister", "_count_max", "total")

    def __init__(self, count_max: int = LATENCY_CANISTER_COUNT_MAX) -> None:
        self._count_max = count_max
        self._by_canister: OrderedDict[bytes, list[int]] = OrderedDict()
        self.total = Histogram(
            "cannery_update_seconds", "Updates from submission to durable answer.", SECONDS_BUCKETS
        )

    def __len__(self) -> int:
        return len(self._by_canister)

    def observe(self, canister_id: bytes, duration_ns: int) -> None:
        """Note that an update of a canister has its durable answer after this time."""
        duration_ns = max(0, duration_ns)
        self.total.observe(duration_ns / _NS_PER_S)
        found = self._by_canister.get(canister_id)
        if found is None:
            # Counts by bucket, then the sum in nanoseconds: one small list for each canister.
            found = self._by_canister[canister_id] = [0] * (len(_BOUNDS_NS) + 2)
            if len(self._by_canister) > self._count_max:
                self._by_canister.popitem(last=False)
        else:
            self._by_canister.move_to_end(canister_id)
        found[bisect_left(_BOUNDS_NS, duration_ns)] += 1
        found[-1] += duration_ns

    def find(self, canister_id: bytes) -> Latency | None:
        """Give a canister's histogram; None where none of its updates was answered lately."""
        found = self._by_canister.get(canister_id)
        if found is None:
            return None
        counts = tuple(found[:-1])
        return Latency(SECONDS_BUCKETS, counts, found[-1] / _NS_PER_S, sum(counts))
