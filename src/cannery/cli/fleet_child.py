"""One child of a fleet, and lists of them, for the command line: found, read, written, sent on its way."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cannery.cdk.management import CanisterReport
from cannery.cli.fleet_index import FleetSession
from cannery.cli.fleet_lines import format_when, plural, table
from cannery.cli.fleet_money import burned_per_day, child_funding_lines
from cannery.cli.log_lines import read_since
from cannery.cli.output import format_size, format_time
from cannery.cli.problem import Problem
from cannery.cli.session import read_principal
from cannery.fleet.directory_types import Child, ChildFilter, PoolRule
from cannery.fleet.funding_types import ChildFunding

STATES = ("active", "leaving", "in_custody", "replaced")
WAIT_S_MAX = 20.0
LOOK_PAUSE_S = 0.2


def child_filter(
    kind: str | None,
    version: int | None,
    state: str | None,
    created_since: str | None,
    active_since: str | None,
) -> ChildFilter:
    """Read which children are wanted."""
    if state is not None and state not in STATES:
        raise Problem(f"a child is {', '.join(STATES[:-1])} or {STATES[-1]}, not {state!r}")
    now_ns = time.time_ns()
    return ChildFilter(
        kind=kind,
        version=version,
        state=state,
        created_from_ns=None if created_since is None else read_since(created_since, now_ns),
        active_since_ns=None if active_since is None else read_since(active_since, now_ns),
    )


def child_rows(found: Sequence[Child]) -> Iterator[str]:
    """Write a list of children."""
    rows = [
        (
            str(child.number),
            str(child.canister),
            child.kind,
            _version(child.version),
            child.state.tag,
            format_time(child.created_ns),
            str(child.owner),
        )
        for child in found
    ]
    return table(("number", "canister", "kind", "version", "state", "made", "owner"), rows)


def _version(version: int) -> str:
    return str(version) if version else "unknown"


@dataclass(frozen=True, slots=True)
class ChildReport:
    """A child as its index knows it, and its figures as the node knows them."""

    child: Child
    figures: CanisterReport | None
    funding: ChildFunding | None

    def lines(self) -> Iterator[str]:
        """Write it."""
        child = self.child
        rows = {
            "canister": str(child.canister),
            "kind": f"{child.kind}, child number {child.number}",
            "owner": str(child.owner),
            "version": _version(child.version),
            "state": _state(child),
            "made": format_time(child.created_ns),
            **({} if self.figures is None else _figures(self.figures)),
        }
        for name, text in rows.items():
            yield f"{name:<13}{text}"
        if self.figures is None:
            yield "its figures are for operators of the node, and for who controls it"
        if self.funding is not None:
            yield from child_funding_lines(self.funding)


def _state(child: Child) -> str:
    if child.state.tag == "replaced":
        return f"replaced by {child.state.replaced}"
    return child.state.tag.replace("_", " ")


def _figures(found: CanisterReport) -> dict[str, str]:
    frozen = ", frozen: it takes no updates until it is topped up" if found.frozen else ""
    daily = burned_per_day(found, time.time_ns())
    return {
        "running": found.running.tag,
        "module": "none" if found.module_hash is None else found.module_hash.hex(),
        "cycles": f"{found.cycles:,}, {found.burned:,} burned, {daily:,} per day{frozen}",
        "memory": f"{format_size(found.memory_size)}, {plural(found.key_count, 'key')}",
        "messages": f"{found.messages:,}, {plural(found.rejects, 'reject')}, {plural(found.traps, 'trap')}",
        "waiting": f"{plural(found.queued, 'message')}, {plural(found.calls_open, 'call')} open",
        "last active": format_when(found.active_ns),
        "controllers": " ".join(str(who) for who in found.controllers),
    }


def find_child(fleet: FleetSession, canister: str | None, kind: str | None, owner: str | None) -> Child:
    """Find the child that is meant: by its canister, or by kind and owner."""
    if (canister is None) == (owner is None) or (owner is not None and kind is None):
        raise Problem("name a CANISTER, or say --kind KIND --owner WHO")
    if canister is not None:
        target = fleet.session.canister(canister)
        child, meant = fleet.index.child(target), f"{target} is no child of {fleet.name}"
    else:
        assert owner is not None
        assert kind is not None
        child = fleet.index.lookup(kind, read_principal(owner))
        meant = f"{owner} has no {kind} in {fleet.name}"
    if child is None:
        raise Problem(f"{meant}; see: cannery fleet list --index {fleet.name}", exit_code=1)
    return child


def read_child(fleet: FleetSession, child: Child) -> ChildReport:
    """Read a child's figures."""
    figures = fleet.index.figures([child.canister]).get(child.canister)
    return ChildReport(child, figures, fleet.index.child_funds(child.canister))


def end_child(fleet: FleetSession, child: Child, *, recycle: bool, is_sure: bool) -> bool:
    """Send a child on its way out; say whether it is gone by now."""
    if not is_sure:
        raise Problem(_warning(fleet, child, recycle=recycle))
    index = fleet.index
    result = index.recycle(child.canister) if recycle else index.delete(child.canister)
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)
    for _ in range(int(WAIT_S_MAX / LOOK_PAUSE_S)):
        if index.child(child.canister) is None:
            return True
        fleet.session.line.say("calls under way end first")
        time.sleep(LOOK_PAUSE_S)
    return False


def _warning(fleet: FleetSession, child: Child, *, recycle: bool) -> str:
    """Say what would be lost."""
    figures = fleet.index.figures([child.canister]).get(child.canister)
    held = "all that it holds"
    if figures is not None:
        held = f"{plural(figures.key_count, 'key')} ({format_size(figures.memory_size)})"
    verb = "emptied" if recycle else "deleted"
    return f"{child.canister}, the {child.kind} of {child.owner}, would be {verb} with {held}: say --yes"


def wait_for_pool(fleet: FleetSession, rule: PoolRule) -> int:
    """Wait a while until the pool is full; return how many are ready."""
    for _ in range(int(WAIT_S_MAX / LOOK_PAUSE_S)):
        status = fleet.index.status()
        if status.pool >= rule.target:
            break
        fleet.session.line.say(f"{status.pool} of {rule.target} ready")
        time.sleep(LOOK_PAUSE_S)
    return status.pool
