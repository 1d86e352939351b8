"""Latency of updates: measured to the durable answer, bounded, shown to whom it concerns."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cannery import Canister, Context, StableCell, nat64, query, update
from cannery.client.errors import Rejected
from cannery.node.latency import Latencies
from cannery.replica.block import Ingress
from cannery.replica.management.types import CanisterIdRecord
from cannery.replica.management.watch_types import CanisterMetricsReport
from cannery.testing import Actor, FaultyStore, Node
from tests.node.exposition import read_exposition

MS = 1_000_000


class Tally(Canister):
    total = StableCell(nat64, 0)

    @update
    def add(self, ctx: Context, number: nat64) -> nat64:
        if number == 13:
            ctx.trap("thirteen")
        self.total.set(self.total.get() + number)
        return self.total.get()

    @query
    def read(self, ctx: Context) -> nat64:
        return self.total.get()


def metrics_of(node: Node, canister: Actor, sender: object = None) -> CanisterMetricsReport:
    found = node.manage("cannery_canister_metrics", CanisterIdRecord(canister.id), sender=sender)
    assert isinstance(found, CanisterMetricsReport)
    return found


def submit(node: Node, canister: Actor, number: int) -> None:
    arg = canister.add._shape.encode_args((number,))
    expiry_ns = node.now_ns + 10**11
    node.subnet.submit(
        Ingress(number.to_bytes(32, "big"), node.operator.raw, canister.id.raw, "add", arg, expiry_ns), number
    )


def sync_after(node: Node, duration_ns: int) -> None:
    node.subnet.run_round()
    sync = node.subnet.begin_sync()
    assert sync is not None
    sync.run()
    node.clock.set_ns(node.now_ns + duration_ns)
    node.subnet.finish_sync(sync)


def test_the_time_runs_from_submission_to_the_durable_answer() -> None:
    with Node() as node:
        canister, other = node.install(Tally), node.install(Tally)
        submit(node, canister, 1)
        node.clock.set_ns(node.now_ns + 3 * MS)
        sync_after(node, 4 * MS)
        latency = metrics_of(node, canister).latency
        assert latency is not None
        assert (latency.count, latency.sum_seconds) == (1, pytest.approx(0.007))
        assert [bound for bound, n in zip(latency.buckets, latency.counts, strict=False) if n] == [0.01]
        assert len(latency.counts) == len(latency.buckets) + 1
        assert metrics_of(node, other).latency is None


def test_a_round_that_came_to_nothing_counts_once_and_with_the_whole_wait() -> None:
    store = FaultyStore()
    with Node(store) as node:
        canister = node.install(Tally)
        store.fail_at(store.operation_count + 2)
        submit(node, canister, 1)
        sync_after(node, 0)
        assert node.subnet.failure is not None
        assert metrics_of(node, canister).latency is None
        node.clock.set_ns(node.now_ns + 900 * MS)
        assert node.recover()
        latency = metrics_of(node, canister).latency
        assert latency is not None
        assert (latency.count, latency.sum_seconds) == (1, pytest.approx(0.9))


def test_the_report_follows_the_canister() -> None:
    with Node() as node:
        canister = node.install(Tally)
        node.advance(seconds=5)
        with pytest.raises(Rejected):
            canister.add(13)
        canister.add(2)
        report = metrics_of(node, canister)
        assert report.status.tag == "running"
        assert report.memory_size > 0
        assert report.uptime_ns >= 5 * 10**9
        assert (report.queued, report.calls_open) == (0, 0)
        assert report.active_ns > 0
        assert report.latency is not None
        assert report.latency.count == 2
        node.stop(canister)
        assert metrics_of(node, canister).uptime_ns == 0


def test_strangers_are_refused_and_learn_no_latency() -> None:
    with Node() as node:
        canister = node.install(Tally)
        canister.add(1)
        with pytest.raises(Rejected, match="status_visibility"):
            metrics_of(node, canister, sender="stranger")


@given(st.lists(st.integers(0, 30), max_size=200))
def test_the_canisters_answered_last_are_kept_and_the_total_counts_all(order: list[int]) -> None:
    latencies = Latencies(count_max=5)
    for number in order:
        latencies.observe(bytes([number]), number * MS)
        assert len(latencies) <= 5
    last = list(dict.fromkeys(reversed(order)))
    for number in range(31):
        assert (latencies.find(bytes([number])) is not None) == (number in last[:5])
    assert latencies.total.count == len(order)


def test_a_clock_that_steps_back_gives_no_negative_time() -> None:
    latencies = Latencies()
    latencies.observe(b"a", -5)
    found = latencies.find(b"a")
    assert found is not None
    assert (found.counts[0], found.sum_seconds) == (1, 0)


def test_the_page_of_a_subnet_is_what_a_strict_parser_reads() -> None:
    with Node() as node:
        canister = node.install(Tally, cycles=1_000)
        canister.add(1)
        with pytest.raises(Rejected):
            canister.add(13)
        families = read_exposition(node.subnet.measure())
        assert families["cannery_update_seconds"].kind == "histogram"
        assert families["cannery_canisters"].samples["cannery_canisters", ()] == 1
        assert families["cannery_traps_total"].samples["cannery_traps_total", ()] == 1
        assert families["cannery_cycles_held"].samples["cannery_cycles_held", ()] == 1_000
        before = {name: len(family.samples) for name, family in families.items()}
        for _ in range(30):
            node.install(Tally).add(2)
        after = {name: len(family.samples) for name, family in read_exposition(node.subnet.measure()).items()}
        assert before == after, "canisters add no series"


def test_how_a_subnet_is_says_why_it_takes_no_updates() -> None:
    store = FaultyStore()
    with Node(store) as node:
        canister = node.install(Tally)
        assert node.subnet.vitals().refusing is None
        store.fail_at(store.operation_count + 2)
        submit(node, canister, 1)
        sync_after(node, 0)
        assert "no updates for now" in str(node.subnet.vitals().refusing)
        assert read_exposition(node.subnet.measure())["cannery_refusing_updates"].samples[
            "cannery_refusing_updates", ()
        ]
