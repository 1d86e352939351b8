"""One screen about a fleet: read from its index and from the node, and written for people and programs."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

import httpx

from cannery.cli.fleet_index import FleetSession
from cannery.cli.fleet_lines import format_span, labelled, plural
from cannery.cli.fleet_locals_door import relay_text
from cannery.cli.fleet_money import battery_text, read_burn
from cannery.cli.fleet_rollout import progress_line, releases_of
from cannery.cli.fleet_spread import read_spread
from cannery.cli.output import format_size, format_time
from cannery.fleet.alarms import Alarm
from cannery.fleet.census import CensusReport
from cannery.fleet.directory_types import FleetStatus
from cannery.fleet.funding_types import FundingReport
from cannery.fleet.rollout_types import RolloutInfo
from cannery.fleet.shards_types import Relay
from cannery.node.watching.alarm import KINDS
from cannery.protocol.principal import Principal

ALARMS_SHOWN = 5
RUNBOOKS = "docs/runbooks.md"
VERSIONS_SHOWN = 6
METRICS_TIMEOUT_S = 5.0

_SAMPLE = re.compile(r"^cannery_canary_(availability_ratio|error_budget_left_ratio) (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Service:
    """How the node serves, as its own canary measures it: shares of 1; None where nothing measures."""

    availability: float | None
    error_budget_left: float | None


@dataclass(frozen=True, slots=True)
class FleetReport:
    """A fleet at a glance."""

    index: Principal
    name: str
    status: FleetStatus
    current: dict[str, int]
    drifted: dict[str, int]
    funding: FundingReport
    burned_per_day: int
    rollouts: list[RolloutInfo]
    relays: list[Relay]
    quarantined: int
    alarms: list[Alarm]
    census: CensusReport
    service: Service
    now_ns: int


def read_report(fleet: FleetSession) -> FleetReport:
    """Ask for all that the screen shows."""
    index = fleet.index
    now_ns = time.time_ns()
    status, rollouts, spread = index.status(), index.rollouts(), read_spread(fleet)
    current = {release.kind: release.version for release in index.releases(None) if release.is_current}
    return FleetReport(
        index.id,
        fleet.name,
        status,
        current,
        drift(status, current),
        index.funding(),
        read_burn(index),
        [found for found in rollouts if found.ended_ns is None],
        [] if spread is None else [relay for relay in spread.relays if not relay.is_done],
        count_quarantined(rollouts),
        index.alarms_open(),
        index.census(),
        read_service(fleet.session.agent.url),
        now_ns,
    )


def drift(status: FleetStatus, current: dict[str, int]) -> dict[str, int]:
    """Count the children in use, by kind, that are not on the current release."""
    found = dict.fromkeys(sorted(current), 0)
    for count in status.counts:
        if count.state == "active" and count.version != current.get(count.kind, count.version):
            found[count.kind] += count.count
    return found


def count_quarantined(rollouts: list[RolloutInfo]) -> int:
    """Count the children that the latest rollout of each kind has put aside; `rollouts` has newest first."""
    kinds: set[str] = set()
    quarantined = 0
    for found in rollouts:
        moved = {target.kind for target in found.targets}
        if not moved & kinds:
            quarantined += found.counts.quarantined
        kinds |= moved
    return quarantined


def read_service(url: str) -> Service:
    """Read what the node's canary has measured off its page of metrics, which is unsigned."""
    try:
        text = httpx.get(f"{url}/metrics", timeout=METRICS_TIMEOUT_S, trust_env=False).text
    except httpx.HTTPError:
        return Service(None, None)
    found = {name: float(value) for name, value in _SAMPLE.findall(text)}
    return Service(found.get("availability_ratio"), found.get("error_budget_left_ratio"))


def report_lines(report: FleetReport) -> Iterator[str]:
    """Write a fleet at a glance."""
    yield from labelled("fleet", [f"{report.name}  {report.index}"])
    yield from labelled("children", list(_children(report)))
    yield from labelled("pool", [_pool(report.status)])
    yield from labelled("battery", [battery_text(report.funding, report.burned_per_day)])
    yield from labelled("rollouts", _rollouts(report))
    yield from labelled("alarms", _alarms(report))
    yield from labelled("service", [_service(report.service)])
    yield from labelled("census", list(census_lines(report.census)))


def _children(report: FleetReport) -> Iterator[str]:
    status = report.status
    yield f"{status.children:,}"
    for kind in sorted({count.kind for count in status.counts}):
        states: dict[str, int] = {}
        versions: dict[int, int] = {}
        for count in status.counts:
            if count.kind == kind:
                states[count.state] = states.get(count.state, 0) + count.count
                versions[count.version] = versions.get(count.version, 0) + count.count
        current = report.current.get(kind, 0)
        drifted = report.drifted.get(kind, 0)
        behind = f"{drifted:,} not on the current release" if drifted else "all on the current release"
        yield f"{kind}: {_listed(states)}; {_versions(versions, current)}; {behind}"


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{count:,} {name.replace('_', ' ')}" for name, count in sorted(counts.items()))


def _versions(counts: dict[int, int], current: int) -> str:
    newest = sorted(counts, reverse=True)
    shown = [
        f"version {version or 'unknown'}{' (current)' if version == current else ''}: {counts[version]:,}"
        for version in newest[:VERSIONS_SHOWN]
    ]
    if len(newest) > VERSIONS_SHOWN:
        shown.append(f"older: {sum(counts[version] for version in newest[VERSIONS_SHOWN:]):,}")
    return ", ".join(shown)


def _pool(status: FleetStatus) -> str:
    text = f"{status.pool} of {status.pool_target} ready"
    return f"{text}; {plural(status.making, 'child', 'children')} being made, {status.leaving} leaving"


def _rollouts(report: FleetReport) -> list[str]:
    texts = [
        f"{found.id}: {releases_of(found)} {found.state.tag.replace('_', ' ')}, {progress_line(found)}"
        for found in report.rollouts
    ]
    texts += [relay_text(relay) for relay in report.relays]
    texts = texts or ["none under way"]
    return [*texts, f"{report.quarantined:,} quarantined"]


def _alarms(report: FleetReport) -> list[str]:
    if not report.status.alarms_open:
        return ["none"]
    latest = sorted(report.alarms, key=lambda alarm: alarm.index, reverse=True)[:ALARMS_SHOWN]
    return [f"{report.status.alarms_open} open", *(alarm_line(alarm) for alarm in latest)]


def alarm_line(alarm: Alarm) -> str:
    """Write an alarm in one line, with the runbook that says what to do about it."""
    head = f"{format_time(alarm.at_ns)}  {'over: ' if alarm.is_over else ''}{alarm.kind}"
    runbook = f" ({RUNBOOKS}#{alarm.kind})" if alarm.kind in KINDS and not alarm.is_over else ""
    return f"{head} {alarm.subject}: {alarm.text}{runbook}"


def _service(service: Service) -> str:
    if service.availability is None:
        return "not measured: [watch] canary_every_s in cannery.toml is 0"
    text = f"{100 * service.availability:.3f} % available in 30 days"
    if service.error_budget_left is None:
        return text
    return f"{text}, {100 * service.error_budget_left:.0f} % of the error budget left"


def census_lines(census: CensusReport) -> Iterator[str]:
    """Write what the last census has found."""
    now = "" if census.sweeping_at is None else f"; one is under way, at child {census.sweeping_at:,}"
    if not census.ended_ns:
        yield f"never taken{now}"
        return
    took = format_span(census.ended_ns - census.begun_ns)
    yield f"{format_time(census.ended_ns)}, took {took}, every {census.every_s} s{now}"
    for totals in census.totals:
        yield (
            f"{totals.kind}: {totals.children:,} seen, {totals.active_day:,} active in a day, "
            f"{totals.frozen:,} frozen, {totals.stopped:,} stopped; {format_size(totals.memory_size)}, "
            f"{plural(totals.key_count, 'key')}, {plural(totals.cycles, 'cycle')}; "
            f"{plural(totals.messages, 'message')}, {plural(totals.rejects, 'reject')}, "
            f"{plural(totals.traps, 'trap')}, {totals.queued:,} waiting"
        )
