"""What a stress run comes to: how much, how fast, how many failed and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cannery.cli.output import format_size
from cannery.cli.stress_load import TIMED_OUT, Load

FAILURES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Times:
    """Times in milliseconds; all 0 where nothing came to its end."""

    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class StressReport:
    """A run. `whole` has the times of whole visits (a catch-up with all its requests), `request` those of
    single requests. `messages` and `received_bytes` count what successful requests brought or took;
    `outcomes` counts the answers that were decoded by their state. `tool_cpu_s` is this program's own CPU.
    """

    what: str
    clients: int
    succeeded: int
    timeouts: int
    errors: int
    failures: dict[str, int]
    requests: int
    messages: int
    received_bytes: int
    seconds: float
    whole: Times
    request: Times
    outcomes: dict[str, int]
    tool_cpu_s: float

    @property
    def messages_per_s(self) -> float:
        return self.messages / self.seconds

    @property
    def bytes_per_s(self) -> float:
        return self.received_bytes / self.seconds


def times_of(seconds: Sequence[float]) -> Times:
    """Give the median, the 99th percentile and the longest."""
    if not seconds:
        return Times(0.0, 0.0, 0.0)
    ordered = [1000 * each for each in sorted(seconds)]
    return Times(ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])


def report_of(what: str, load: Load, messages_per_request: float, outcomes: dict[str, int]) -> StressReport:
    """Add a run up; `messages_per_request` is what each request brings, or posts, in the mean."""
    failed = Counter(visit.failure for visit in load.visits if visit.failure is not None)
    waits = [wait for visit in load.visits for wait in visit.waits_s]
    return StressReport(
        what=what,
        clients=len(load.visits),
        succeeded=sum(1 for visit in load.visits if visit.took_s is not None),
        timeouts=failed[TIMED_OUT],
        errors=failed.total() - failed[TIMED_OUT],
        failures=dict(failed.most_common(FAILURES_SHOWN)),
        requests=len(waits),
        messages=round(len(waits) * messages_per_request),
        received_bytes=sum(visit.received_bytes for visit in load.visits),
        seconds=load.seconds,
        whole=times_of([visit.took_s for visit in load.visits if visit.took_s is not None]),
        request=times_of(waits),
        outcomes=outcomes,
        tool_cpu_s=load.cpu_s,
    )


def report_lines(report: StressReport) -> Iterator[str]:
    """Write a run for people."""
    yield f"{report.what}: {report.succeeded} of {report.clients} clients in {report.seconds:.2f} s"
    yield (
        f"throughput   {report.messages_per_s:,.0f} messages/s, {format_size(round(report.bytes_per_s))}/s,"
        f" {report.requests / report.seconds:,.0f} requests/s"
    )
    yield f"in all       {report.messages:,} messages, {format_size(report.received_bytes)} received"
    for name, times in (("each client", report.whole), ("each request", report.request)):
        yield f"{name:<12} p50 {times.p50_ms:,.1f} ms, p99 {times.p99_ms:,.1f} ms, max {times.max_ms:,.1f} ms"
    yield f"timeouts     {report.timeouts}"
    yield f"errors       {report.errors}"
    for text, count in report.failures.items():
        if text != TIMED_OUT:
            yield f"  {count} x {text}"
    checked = ", ".join(f"{count} {state}" for state, count in sorted(report.outcomes.items()))
    if checked:
        yield f"checked      {checked}"
    yield f"this tool    {report.tool_cpu_s:.2f} s of CPU"


def report_json(report: StressReport) -> dict[str, object]:
    """Lay a run out for programs."""
    fields = {name: getattr(report, name) for name in StressReport.__slots__}
    times = {
        name: {field: getattr(fields[name], field) for field in Times.__slots__}
        for name in ("whole", "request")
    }
    rates = {"messages_per_s": report.messages_per_s, "bytes_per_s": report.bytes_per_s}
    return {**fields, **times, **rates}
