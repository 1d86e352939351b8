"""`cannery canister logs` and `cannery canister metrics`: what a canister says, and how it does."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import DEFAULT_URL, JsonOption, NodeOption, OperatorOption
from cannery.cli.output import emit, format_size, format_time

if TYPE_CHECKING:
    from cannery.cli.log_lines import Wanted
    from cannery.cli.session import Session
    from cannery.protocol.principal import Principal
    from cannery.replica.management.watch_types import CanisterMetricsReport, LatencyReport

FOLLOW_PAUSE_S = 1.0
IdArgument = Annotated[str, typer.Argument(metavar="ID", help="Canister id or name.")]


def add_to(canister: typer.Typer) -> None:
    """Hang these commands into `cannery canister`."""
    canister.command(
        epilog="Examples: cannery canister logs book --since 10m; cannery canister logs book --follow --traps"
    )(logs)
    canister.command(epilog="Example: cannery canister metrics book")(metrics)


def logs(
    canister_id: IdArgument,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="WHEN", help="No older lines: 90s, 10m, 2h, 3d ago, or a UTC time."),
    ] = None,
    first: Annotated[int, typer.Option("--from", metavar="N", min=0, help="Begin with line number N.")] = 0,
    traps: Annotated[
        bool, typer.Option("--traps", help="Only the failures: messages that trapped or were stopped.")
    ] = False,
    follow: Annotated[
        bool, typer.Option("--follow", help="Go on with new lines until Ctrl-C; --json: one document a line.")
    ] = False,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print the log of a canister with its traps, oldest first."""
    import time

    from cannery.cli.log_lines import Wanted, read_since
    from cannery.cli.session import caller_identity, open_session

    since_ns = 0 if since is None else read_since(since, time.time_ns())
    with open_session(node, caller_identity(identity), "reading the log") as session:
        target = session.canister(canister_id)
        print_log(session, target, Wanted(since_ns, first, traps), follow=follow, as_json=as_json)


def print_log(session: Session, target: Principal, wanted: Wanted, *, follow: bool, as_json: bool) -> None:
    """Print the lines of a canister's log that are wanted; `follow` goes on until it is interrupted."""
    import sys
    import time

    from cannery.cli.log_lines import follow_lines, line_fields, read_lines, show_line, show_lines
    from cannery.cli.management import Management
    from cannery.replica.management import types as mt

    management = Management(session.agent)

    def fetch(which: mt.LogFilter) -> list[mt.LogRecord]:
        return management.logs(target, which)

    if not follow:
        lines = read_lines(fetch, wanted)
        emit([line_fields(line) for line in lines], as_json, show_lines(lines))
        return
    session.line.stop()
    for line in follow_lines(fetch, wanted, lambda: time.sleep(FOLLOW_PAUSE_S)):
        emit(line_fields(line), as_json, [show_line(line)])
        sys.stdout.flush()


def metrics(
    canister_id: IdArgument,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print what a canister uses, how often it was called and failed, and how fast it answers."""
    from cannery.cli.management import Management
    from cannery.cli.session import caller_identity, open_session

    with open_session(node, caller_identity(identity), "reading the metrics") as session:
        target = session.canister(canister_id)
        report = Management(session.agent).canister_metrics(target)
    emit(report, as_json, _report_lines(report))


def _report_lines(report: CanisterMetricsReport) -> Iterator[str]:
    active = format_time(report.active_ns) if report.active_ns else "never"
    rows = {
        "status": report.status.tag,
        "module": report.module_hash.hex() if report.module_hash is not None else "none",
        "up for": f"{report.uptime_ns / 1e9:.0f} s",
        "last active": active,
        "cycles": f"{report.cycles}, {report.burned} burned",
        "memory": f"{format_size(report.memory_size)}, {report.key_count} keys",
        "messages": f"{report.messages}, {report.rejects} rejects, {report.traps} traps",
        "waiting": f"{report.queued} messages, {report.calls_open} calls open",
    }
    for name, text in rows.items():
        yield f"{name:<13}{text}"
    yield from _latency_lines(report.latency)


def _latency_lines(latency: LatencyReport | None) -> Iterator[str]:
    if latency is None or not latency.count:
        yield f"{'latency':<13}no update was answered lately"
        return
    mean_ms = latency.sum_seconds / latency.count * 1e3
    yield f"{'latency':<13}{latency.count} updates, {mean_ms:.1f} ms in the mean"
    bounds = [f"<= {bound * 1e3:g} ms" for bound in latency.buckets] + ["longer"]
    for bound, count in zip(bounds, latency.counts, strict=True):
        if count:
            yield f"  {bound:<11}{count}"
