"""Counters and histograms as plain values, and their text in Prometheus' exposition format 0.0.4.

Metrics are node-local and in no root. Labels are fixed when a metric is made, so that their number is
bounded. Nothing here reads a clock or opens a port.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from math import isinf, isnan
from typing import Final, Protocol

from cannery.node.vitals import Vitals

SECONDS_BUCKETS: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
COUNT_BUCKETS: Final = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0)

Labels = tuple[tuple[str, str], ...]
"""Names and values of labels, in the order in which they are shown."""


class Metric(Protocol):
    """Anything that gives its lines."""

    def render(self) -> Iterable[str]: ...


class Counter:
    """A number that only rises."""

    __slots__ = ("_help", "_name", "value")

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self.value = 0

    def add(self, amount: int = 1) -> None:
        self.value += amount

    def render(self) -> Iterable[str]:
        yield f"# HELP {self._name} {self._help}"
        yield f"# TYPE {self._name} counter"
        yield f"{self._name} {self.value}"


class Gauge:
    """A number that is set."""

    __slots__ = ("_help", "_name", "value")

    def __init__(self, name: str, help_text: str) -> None:
        self._name = name
        self._help = help_text
        self.value: float = 0

    def set(self, value: float) -> None:
        self.value = value

    def render(self) -> Iterable[str]:
        yield f"# HELP {self._name} {self._help}"
        yield f"# TYPE {self._name} gauge"
        yield f"{self._name} {self.value}"


class Histogram:
    """How often values fell under each of the bounds."""

    __slots__ = ("_bounds", "_counts", "_help", "_name", "_sum")

    def __init__(self, name: str, help_text: str, bounds: Sequence[float]) -> None:
        self._name = name
        self._help = help_text
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(bounds) + 1)
        self._sum = 0.0

    def observe(self, value: float) -> None:
        self._counts[bisect_left(self._bounds, value)] += 1
        self._sum += value

    @property
    def count(self) -> int:
        return sum(self._counts)

    def render(self) -> Iterable[str]:
        text = render_histogram(self._name, self._help, self._bounds, self._counts, self._sum)
        return text.splitlines()


def render_family(name: str, kind: str, help_text: str, samples: Mapping[Labels, float]) -> str:
    """Give the text of one metric with labelled samples, each line ended; nothing where there is none."""
    if not samples:
        return ""
    lines = [f"# HELP {name} {_escape(help_text)}", f"# TYPE {name} {kind}"]
    for labels, value in samples.items():
        shown = ",".join(f'{label}="{_escape(text, quoted=True)}"' for label, text in labels)
        lines.append(f"{name}{{{shown}}} {_number(value)}" if shown else f"{name} {_number(value)}")
    return "".join(f"{line}\n" for line in lines)


def render_histogram(
    name: str, help_text: str, bounds: Sequence[float], counts: Sequence[int], total_sum: float
) -> str:
    """Give the text of a histogram; `counts` by bound, and one more for what is beyond."""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} histogram"]
    total = 0
    for bound, count in zip(bounds, counts, strict=False):
        total += count
        lines.append(f'{name}_bucket{{le="{bound:g}"}} {total}')
    lines += [f'{name}_bucket{{le="+Inf"}} {sum(counts)}', f"{name}_sum {total_sum:g}"]
    return "".join(f"{line}\n" for line in [*lines, f"{name}_count {sum(counts)}"])


def render_histograms(
    name: str,
    help_text: str,
    bounds: Sequence[float],
    samples: Mapping[Labels, tuple[list[int], float]],
) -> str:
    """Give the text of a histogram with labels: for each, counts by bound with one more, and the sum."""
    if not samples:
        return ""
    lines = [f"# HELP {name} {help_text}", f"# TYPE {name} histogram"]
    for labels, (counts, total_sum) in samples.items():
        shown = ",".join(f'{label}="{_escape(text, quoted=True)}"' for label, text in labels)
        total = 0
        for bound, count in zip(bounds, counts, strict=False):
            total += count
            lines.append(f'{name}_bucket{{{shown},le="{bound:g}"}} {total}')
        lines.append(f'{name}_bucket{{{shown},le="+Inf"}} {sum(counts)}')
        lines += [f"{name}_sum{{{shown}}} {total_sum:g}", f"{name}_count{{{shown}}} {sum(counts)}"]
    return "".join(f"{line}\n" for line in lines)


def _escape(text: str, *, quoted: bool = False) -> str:
    escaped = text.replace("\\", r"\\").replace("\n", r"\n")
    return escaped.replace('"', r"\"") if quoted else escaped


def _number(value: float) -> str:
    if isinstance(value, int):
        return str(value)
    if isnan(value) or isinf(value):
        return "NaN" if isnan(value) else ("+Inf" if value > 0 else "-Inf")
    return repr(value)


def render_metrics(metrics: Iterable[Metric]) -> str:
    """Give the text of metrics, each line ended."""
    return "".join(f"{line}\n" for metric in metrics for line in metric.render())


class RoundCounts(Protocol):
    """What a round tells of itself (`replica.state.RoundEvents`)."""

    activations: int
    calls: int
    timers: int
    traps: int
    rejects: int
    verdicts: int


class SubnetMetrics:
    """The metrics of one subnet."""

    def __init__(self) -> None:
        self.rounds = Counter("cannery_rounds_total", "Rounds executed.")
        self.syncs = Counter("cannery_syncs_total", "Syncs of the store.")
        self.inputs = Counter("cannery_ingress_total", "Update calls taken into blocks.")
        self.refused = Counter("cannery_refused_total", "Update calls not let in.")
        self.duplicates = Counter("cannery_duplicates_total", "Update calls that repeat an ordered one.")
        self.queries = Counter("cannery_queries_total", "Queries run.")
        self.reads = Counter("cannery_reads_total", "Reads of certified state.")
        self.activations = Counter("cannery_activations_total", "Programs run in rounds.")
        self.calls = Counter("cannery_calls_total", "Calls between canisters.")
        self.timers = Counter("cannery_timers_total", "Timers fired.")
        self.traps = Counter("cannery_traps_total", "Messages that trapped.")
        self.rejects = Counter("cannery_rejects_total", "Messages that ended in a reject.")
        self.verdicts = Counter("cannery_verdicts_total", "Messages stopped by clock or memory.")
        self.outcalls = Counter("cannery_outcalls_total", "HTTP requests of canisters that were answered.")
        self.outcall_failures = Counter(
            "cannery_outcall_failures_total", "HTTP requests of canisters that got no response."
        )
        self.outcall_seconds = Histogram(
            "cannery_outcall_seconds", "HTTP requests of canisters.", SECONDS_BUCKETS
        )
        self.outcalls_waiting = Gauge("cannery_outcalls_waiting", "HTTP requests not begun yet.")
        self.outcalls_under_way = Gauge("cannery_outcalls_under_way", "HTTP requests on their way.")
        self.store_failures = Counter("cannery_store_failures_total", "Failed writes and syncs.")
        self.round_seconds = Histogram("cannery_round_seconds", "Execution of a round.", SECONDS_BUCKETS)
        self.sync_seconds = Histogram("cannery_sync_seconds", "Syncs of the store.", SECONDS_BUCKETS)
        self.round_inputs = Histogram("cannery_round_ingress", "Update calls in a block.", COUNT_BUCKETS)
        self.block_number = Gauge("cannery_block_number", "Number of the last durable block.")
        self.waiting = Gauge("cannery_waiting_updates", "Update calls that wait for a block.")
        self.under_way = Gauge("cannery_under_way_updates", "Update calls in a block, without an answer yet.")
        self.busy = Gauge("cannery_busy_canisters", "Canisters whose messages wait for a round.")
        self.latency_canisters = Gauge("cannery_latency_canisters", "Canisters whose latency is known.")
        self.canisters = Gauge("cannery_canisters", "Canisters.")
        self.minted = Gauge("cannery_cycles_minted", "Cycles that were ever made.")
        self.burned = Gauge("cannery_cycles_burned", "Cycles that were ever used up.")
        self.held = Gauge("cannery_cycles_held", "Cycles that canisters and messages hold.")
        self.is_refusing = Gauge("cannery_refusing_updates", "1 while no updates are taken.")
        self.uptime = Gauge("cannery_uptime_seconds", "Since the subnet's process started.")
        self.memory = Gauge("cannery_process_memory_bytes", "Memory of the subnet's process.")
        self.store_bytes = Gauge("cannery_store_bytes", "Size of the store on the disk.")
        self.free_bytes = Gauge("cannery_disk_free_bytes", "Free space where the store stands.")

    def note_round(self, events: RoundCounts, inputs: int, duration_ns: int) -> None:
        """Count a round."""
        self.rounds.add()
        self.inputs.add(inputs)
        self.activations.add(events.activations)
        self.calls.add(events.calls)
        self.timers.add(events.timers)
        self.traps.add(events.traps)
        self.rejects.add(events.rejects)
        self.verdicts.add(events.verdicts)
        self.round_seconds.observe(duration_ns / 1e9)
        self.round_inputs.observe(inputs)

    def note_outcall(self, duration_ns: int, *, has_response: bool) -> None:
        """Count an HTTP request of a canister that was performed."""
        (self.outcalls if has_response else self.outcall_failures).add()
        self.outcall_seconds.observe(duration_ns / 1e9)

    def note_vitals(self, vitals: Vitals) -> None:
        """Take in how the subnet is now."""
        self.block_number.set(vitals.block_number)
        self.waiting.set(vitals.waiting)
        self.under_way.set(vitals.under_way)
        self.busy.set(vitals.busy_count)
        self.canisters.set(vitals.canister_count)
        self.minted.set(vitals.minted)
        self.burned.set(vitals.burned)
        self.held.set(vitals.held)
        self.is_refusing.set(int(vitals.refusing is not None))
        self.uptime.set(vitals.uptime_ns / 1e9)
        if vitals.machine is not None:
            self.memory.set(vitals.machine.memory_bytes)
            self.store_bytes.set(vitals.machine.store_bytes)
            self.free_bytes.set(vitals.machine.free_bytes)

    def render(self) -> str:
        """Give Prometheus' text."""
        return render_metrics(list(vars(self).values()))
