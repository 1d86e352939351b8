"""The root of a spread fleet for the command line: its methods about local indexes, how they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cannery.cdk.management import SubnetChoice, SubnetInfo
from cannery.cli.fleet_index import FleetSession
from cannery.cli.fleet_lines import format_when, labelled, plural, table
from cannery.cli.problem import Problem
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.shards_types import (
    AddResult,
    Entry,
    LocalOrder,
    LocalStatus,
    Relay,
    ShardsCensus,
    ShardsStatus,
)
from cannery.protocol.principal import MANAGEMENT, Principal, PrincipalError

STEP_PAUSE_S = 0.2
STEP_COUNT_MAX = 100


class LocalsDoor:
    """The local indexes of a fleet, as one agent sees them."""

    def __init__(self, opened: FleetSession) -> None:
        self._session = opened.session
        self._root = TypedCanister(opened.session.agent, opened.index.id)
        self._node = TypedCanister(opened.session.agent, MANAGEMENT)

    def status(self) -> ShardsStatus:
        """Read local indexes, the map, rollouts on their way."""
        return self._root.query("fleet_locals", ShardsStatus)

    def look(self) -> None:
        """Let the root do what is due."""
        self._root.call_for_effect("fleet_locals_look")

    def census(self) -> ShardsCensus:
        """Read the last censuses, added up."""
        return self._root.query("fleet_locals_census", ShardsCensus)

    def find(self, kind: str, owner: Principal) -> Entry | None:
        """Find somebody's child."""
        return self._root.query_option("fleet_find", Entry, (kind, owner))

    def add(self, subnet: str | None) -> int:
        """Begin to add a local index, and give its number; raises `Problem`."""
        chosen = None if subnet is None else self._choice(subnet)
        hints = (SubnetChoice | None,)
        return _taken(self._root.call("fleet_local_add", AddResult, (chosen,), hints))

    def order(self, canister: str, order: LocalOrder) -> int:
        """Order something of a local index, and give its number; raises `Problem`."""
        target = self._session.canister(canister)
        return _taken(self._root.call("fleet_local_set", AddResult, (target, order)))

    def hand_over(self, kind: str, owner: Principal, to: str) -> int:
        """Hand somebody's child over to a local index, and give its number; raises `Problem`."""
        args = (kind, owner, self._session.canister(to))
        return _taken(self._root.call("fleet_local_hand_over", AddResult, args))

    def go_on(self, kind: str) -> None:
        """Order a halted rollout again; raises `Problem`."""
        _taken(self._root.call("fleet_local_rollout_go_on", AddResult, (kind,)))

    def wait(self, number: int) -> LocalStatus:
        """Wait for a while until a local index serves."""
        for left in reversed(range(STEP_COUNT_MAX)):
            local = next(each for each in self.status().locals if each.number == number)
            if local.state.tag != "adding" or not left:
                return local
            time.sleep(STEP_PAUSE_S)
        raise AssertionError("the last look returns")

    def _choice(self, subnet: str) -> SubnetChoice:
        if subnet == "any":
            return SubnetChoice.any()
        found = self._node.query("cannery_subnets", list[SubnetInfo])
        if subnet.isdecimal() and int(subnet) < len(found):
            return SubnetChoice.id(found[int(subnet)].subnet_id)
        try:
            return SubnetChoice.id(Principal.parse(subnet))
        except PrincipalError:
            raise Problem(
                f"there is no subnet {subnet!r}: give a number up to {len(found) - 1}, a principal, or any"
            ) from None


def _taken(result: AddResult) -> int:
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)
    number: int = result.ok
    return number


def status_lines(found: ShardsStatus) -> Iterator[str]:
    """Write local indexes as a table, then the map and rollouts."""
    headings = ("number", "local index", "state", "children", "room for", "")
    yield from table(headings, [_row(local) for local in found.locals])
    where = "all here" if not found.parts else f"and the others in {plural(found.parts, 'map part')}"
    yield from labelled("map", [f"{plural(found.entries, 'entry', 'entries')} at the root, {where}"])
    if found.making or found.changes:
        yield from labelled("under way", [f"{found.making} being made, {found.changes} entries to change"])
    yield from labelled("rollouts", [relay_text(relay) for relay in found.relays if relay.number] or ["none"])


def _row(local: LocalStatus) -> tuple[str, ...]:
    room = max(0, local.children_max - local.children)
    away = f"left out until {format_when(local.away_until_ns)}" if local.away_until_ns else ""
    is_used = local.state.tag in ("adding", "serving", "resting")
    note = "full" if local.is_full and local.state.tag == "serving" else local.step or away
    canister = "" if local.canister is None else str(local.canister)
    return (
        str(local.number),
        canister,
        local.state.tag,
        f"{local.children:,}",
        f"{room:,}",
        note if is_used else "",
    )


def relay_text(relay: Relay) -> str:
    """Write where a rollout is on its way through the local indexes."""
    name = f"{relay.kind}:{relay.version}"
    if relay.is_done:
        return f"{name} is everywhere"
    if relay.halted:
        return f"{name} halted at local index {relay.at}: {relay.halted}"
    return f"{name} is at local index {relay.at}"


def census_lines(found: ShardsCensus) -> Iterator[str]:
    """Write a line for each kind."""
    for each in found.totals:
        yield (
            f"{each.kind}: {each.children:,} seen, {each.active_day:,} active in a day, "
            f"{each.frozen:,} frozen, {each.stopped:,} stopped; {each.cycles:,} cycles"
        )
    for canister in found.missing:
        yield f"{canister} could not be asked"
