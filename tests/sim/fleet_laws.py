"""What must hold of a fleet that has come to rest: of every canister, release, name and alarm."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cannery.apps.users.types import RegisterResult, Who
from cannery.apps.users.user_index import UserIndex
from cannery.fleet.alarms import Alarm
from cannery.fleet.directory_types import Child, ChildFilter, ChildPage, FleetStatus
from cannery.fleet.registry import ReleaseEntry
from cannery.fleet.rollout import Failure
from cannery.fleet.rollout_types import FailurePage, RolloutInfo
from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from cannery.replica.records import CanisterRecord
from tests.sim.builds import SimUser
from tests.sim.failure import Broken
from tests.sim.methods import shape
from tests.sim.requests import person

if TYPE_CHECKING:
    from tests.sim.fleet import Fleet

LAST_VERSION = 100


def check_fleet(fleet: Fleet) -> None:
    """Hold every law of a fleet. Raises `Broken`."""
    children, canisters = children_of(fleet), canisters_of(fleet)
    check_places(fleet, children, canisters)
    check_releases(fleet, children, canisters)
    check_last(fleet, children)
    check_alarms(fleet, children)
    check_trust(fleet, children)
    check_names(fleet)


def canisters_of(fleet: Fleet) -> dict[Principal, CanisterRecord]:
    """Give all canisters of the node."""
    pairs = fleet.world.pairs(*keys.space_range(keys.CANISTERS))
    return {Principal(keys.owner_of(key)): records.CANISTER.decode(value) for key, value in pairs}


def children_of(fleet: Fleet) -> dict[Principal, Child]:
    """Give all children, as the directory has them."""
    page = fleet.ask("fleet_page", ChildFilter(), None, 1_000)
    assert isinstance(page, ChildPage)
    return {child.canister: child for child in page.items}


def check_places(
    fleet: Fleet, children: dict[Principal, Child], canisters: dict[Principal, CanisterRecord]
) -> None:
    """Each canister that the index made is a child or waits empty in the pool; nothing is half done."""
    status = fleet.ask("fleet_status")
    assert isinstance(status, FleetStatus)
    if status.making or status.leaving:
        raise Broken("no place is stuck", f"{status.making} children are being made, {status.leaving} leave")
    index, pooled = fleet.index.raw, 0
    for id, canister in canisters.items():
        if (canister.creator != index and canister.fleet != index) or id == fleet.index:
            continue
        child = children.get(id)
        if child is None and canister.replaced_by and canister.module_hash is None:
            continue
        if child is None:
            pooled += 1
            if canister.module_hash is not None or canister.fleet != index:
                raise Broken("no canister leaks", f"{id} is no child, and not empty: {canister}")
        elif not _is_where_it_should_be(child, canister, index):
            raise Broken("the directory agrees with the node", f"{child} is {canister}")
    if pooled != status.pool:
        raise Broken("no canister leaks", f"{pooled} canisters are no children, {status.pool} in the pool")
    gone = set(children) - set(canisters)
    if gone:
        raise Broken("the directory agrees with the node", f"children that are no more: {gone}")
    owners = [child.owner for child in children.values() if child.state.tag in ("active", "in_custody")]
    if len(set(owners)) != len(owners):
        raise Broken("one child for each owner", f"{owners}")


def _is_where_it_should_be(child: Child, canister: CanisterRecord, index: bytes) -> bool:
    match child.state.tag:
        case "active":
            return canister.fleet == index and canister.controllers == (index,)
        case "in_custody":
            return index not in canister.controllers and not canister.fleet
        case "replaced":
            return canister.replaced_by == child.state.replaced.raw
        case _:
            return False


def check_releases(
    fleet: Fleet, children: dict[Principal, Child], canisters: dict[Principal, CanisterRecord]
) -> None:
    """The directory's versions are those of the modules that run."""
    entries = fleet.ask("fleet_releases", None)
    assert isinstance(entries, list)
    hashes: dict[int, bytes] = {}
    for entry in entries:
        assert isinstance(entry, ReleaseEntry)
        hashes[entry.version] = entry.module_hash
    for id, child in children.items():
        if child.state.tag == "active" and hashes.get(child.version) != canisters[id].module_hash:
            raise Broken("the directory agrees with the node", f"{child} runs {canisters[id].module_hash!r}")


def check_rollouts(infos: list[RolloutInfo]) -> None:
    """Each child of a rollout that is over is counted once."""
    for info in infos:
        counts = info.counts
        ends = counts.forward + counts.unchanged + counts.skipped + counts.quarantined
        if counts.waiting or counts.selected != ends + counts.given_up + counts.back:
            raise Broken("each child of a rollout comes to an end", f"rollout {info.id}: {counts}")


def failures_of(fleet: Fleet, id: int) -> dict[Principal, Failure]:
    """Give the children that a rollout failed to bring where it should."""
    page = fleet.ask("fleet_failures", id, None, 1_000)
    assert isinstance(page, FailurePage)
    return {failure.child: failure for failure in page.items}


def check_last(fleet: Fleet, children: dict[Principal, Child]) -> None:
    """The last rollout is over: each child is on its release, or quarantined with a reason."""
    infos = fleet.infos()
    check_rollouts(infos)
    last = infos[0]
    if last.state.tag != "done":
        raise Broken("everything comes to its end", f"the last rollout is {last}")
    failures = failures_of(fleet, last.id)
    for child in children.values():
        if child.state.tag != "active" or child.version == LAST_VERSION:
            continue
        failure = failures.get(child.canister)
        if failure is None or not failure.is_quarantined or not failure.reason:
            raise Broken("each child ends on a release or quarantined", f"{child}: {failure}")


def check_alarms(fleet: Fleet, children: dict[Principal, Child]) -> None:
    """What alarms are open about holds still."""
    alarms = fleet.ask("fleet_alarms_open")
    assert isinstance(alarms, list)
    infos = fleet.infos()
    quarantined = failures_of(fleet, infos[0].id)
    states = {str(child.canister): child.state.tag for child in children.values()}
    for alarm in alarms:
        assert isinstance(alarm, Alarm)
        holds = {
            "custody_taken": states.get(alarm.subject) == "in_custody",
            "quarantined": alarm.subject in [str(id) for id in quarantined]
            or alarm.subject == f"rollout {infos[0].id}",
        }.get(alarm.kind, False)
        if not holds:
            raise Broken("alarms end with what they are about", f"{alarm}")


def check_trust(fleet: Fleet, children: dict[Principal, Child]) -> None:
    """Nobody but canisters that were members has been taken for one; who has no role is let in nowhere."""
    known = {who.canister for who in fleet.people.people}
    for who in fleet.people.people:
        known |= who.homes
    for id, child in children.items():
        if child.state.tag != "active":
            continue
        result = fleet.world.query(fleet.pretender, id, shape(SimUser, "greeters"))
        if result is None or result.reject is not None:
            continue
        greeters = shape(SimUser, "greeters").decode_results(result.reply)
        assert isinstance(greeters, list)
        strangers = [each for each in greeters if each not in known]
        if strangers:
            raise Broken("no stranger passes for a member", f"{id} was greeted by {strangers}")
        for helper in fleet.helpers:
            if helper.is_in is None:
                continue
            shown = fleet.world.query(helper.principal, id, shape(SimUser, "look_in"))
            if shown is not None and (shown.reject is None) != helper.is_in:
                raise Broken("a role holds for all members", f"{helper.principal} at {id}: {shown.reject}")


def check_names(fleet: Fleet) -> None:
    """A name that no user has can be taken by anybody."""
    world, method = fleet.world, shape(UserIndex, "register")
    for number, who in enumerate(fleet.people.people):
        found = fleet.ask("lookup", Who.owner(who.principal))
        if found is not None:
            continue
        # What the index asks of another subnet for the one before may still be under way.
        world.rest(0)
        newcomer = person(f"newcomer_{number}")
        result = world.call(newcomer, fleet.index, method, who.name)
        assert isinstance(result, RegisterResult)
        if result.tag != "ok" and not world.plan.has_prices:
            raise Broken("no name is stuck", f"{who.name}: {result}")
