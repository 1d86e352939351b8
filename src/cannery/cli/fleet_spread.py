"""A rollout at a root, with what becomes of it at the local indexes: read and written.

What the root has done goes through its local indexes one by one (docs/shards.md), so a rollout there is over
when the last of them is done. An index without local ones has nothing of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from cannery.cli.fleet_index import NO_SUCH_METHOD, FleetIndex, FleetSession
from cannery.cli.fleet_lines import labelled
from cannery.cli.fleet_locals_door import LocalsDoor, relay_text
from cannery.cli.fleet_rollout import count_words, progress_line, rollout_lines
from cannery.cli.output import record_fields
from cannery.cli.problem import Problem
from cannery.client.errors import Rejected
from cannery.fleet.rollout_types import OrderResult, RolloutInfo
from cannery.fleet.shards_types import LocalStatus, Relay, ShardsStatus
from cannery.protocol.principal import Principal

USED = ("adding", "serving", "resting")


@dataclass(frozen=True, slots=True)
class AtLocal:
    """What a local index makes of a root's rollout; None: it has not begun there, or it cannot be asked."""

    number: int
    canister: Principal
    rollout: RolloutInfo | None


@dataclass(frozen=True, slots=True)
class Passage:
    """The way of one kind's release through the local indexes; `relay` is None while an earlier one is on
    its way there.
    """

    kind: str
    version: int
    relay: Relay | None
    locals: list[AtLocal]

    def text(self) -> str:
        """Write where it is, in one line."""
        if self.relay is None:
            return f"{self.kind}:{self.version} waits until an earlier rollout is through"
        return relay_text(self.relay)

    @property
    def is_done(self) -> bool:
        """Say whether all local indexes have it."""
        return self.relay is not None and self.relay.is_done

    @property
    def needs_somebody(self) -> bool:
        """Say whether it goes no further by itself."""
        if self.relay is None:
            return False
        here = [each.rollout for each in self.locals if each.number == self.relay.at]
        return bool(self.relay.halted) or any(
            each is not None and each.state.tag == "stalled" for each in here
        )


@dataclass(frozen=True, slots=True)
class WholeRollout:
    """A rollout of an index, and its way through local indexes; no `passages` where there are none."""

    found: RolloutInfo
    passages: list[Passage]

    @property
    def is_over(self) -> bool:
        """Say whether nothing of it changes by itself any more."""
        if self.found.ended_ns is None:
            return self.found.state.tag == "stalled"
        return all(passage.is_done or passage.needs_somebody for passage in self.passages)

    @property
    def is_done(self) -> bool:
        """Say whether the release is everywhere."""
        return self.found.state.tag == "done" and all(passage.is_done for passage in self.passages)

    def as_data(self) -> dict[str, object]:
        """Give the rollout's fields and, as `passages`, its way through local indexes."""
        return {**record_fields(self.found), "passages": self.passages}

    def lines(self) -> Iterator[str]:
        """Write it for people."""
        yield from rollout_lines(self.found)
        for passage in self.passages:
            yield from labelled("locals", list(_passage_lines(passage)))


def read_whole(opened: FleetSession, found: RolloutInfo, *, looks: bool = False) -> WholeRollout:
    """Read what becomes of a rollout at local indexes. `looks`: let the root do what is due first, and read
    of the local index that the rollout is at alone.
    """
    status = None if found.ended_ns is None else read_spread(opened, looks=looks)
    if status is None:
        return WholeRollout(found, [])
    passages = [
        passage
        for target in found.targets
        if (passage := _passage(opened, status, found, target.kind, looks=looks)) is not None
    ]
    return WholeRollout(found, passages)


def require_steered(opened: FleetSession, found: RolloutInfo, result: OrderResult) -> None:
    """Refuse to go on where an order was not taken; name the local index that the rollout is at by now."""
    if result.tag == "ok":
        return
    here = [local for passage in read_whole(opened, found).passages for local in passage.locals]
    at = next((each for each in here if each.rollout is not None and each.rollout.ended_ns is None), None)
    where = "" if at is None else f"; it is at local index {at.number}: say --index {at.canister}"
    raise Problem(f"{result.value}{where}", exit_code=1)


def read_spread(opened: FleetSession, *, looks: bool = False) -> ShardsStatus | None:
    """Read what an index says of its local indexes; None where it has none. `looks`: it does what is due
    first.
    """
    door = LocalsDoor(opened)
    try:
        if looks:
            door.look()
        return door.status()
    except Rejected as error:
        if error.error_code == NO_SUCH_METHOD:
            return None
        raise


def _passage(
    opened: FleetSession, status: ShardsStatus, found: RolloutInfo, kind: str, *, looks: bool
) -> Passage | None:
    """Give a kind's way through the local indexes; None where this rollout has none."""
    relay = next((each for each in status.relays if each.kind == kind), None)
    is_back = found.state.tag == "rolled_back"
    if relay is None or relay.rollout > found.id or found.state.tag not in ("done", "rolled_back"):
        return None
    if relay.rollout == found.id and relay.is_back == is_back:
        at = [each for each in status.locals if _is_asked(each, relay, looks=looks)]
        return Passage(kind, relay.version, relay, [_at_local(opened, each, relay) for each in at])
    if relay.is_done or relay.halted or (relay.rollout < found.id and not _is_for_all(found)):
        return None
    version = next(target.version for target in found.targets if target.kind == kind)
    return Passage(kind, version, None, [])


def _is_for_all(found: RolloutInfo) -> bool:
    """Say whether a rollout leaves no child out: the others stay at the index that they were ordered at."""
    chosen = found.filter
    return not (chosen.versions or chosen.include or chosen.exclude or chosen.active_since_ns is not None)


def _is_asked(local: LocalStatus, relay: Relay, *, looks: bool) -> bool:
    is_there = local.canister is not None and local.state.tag in USED
    return is_there and (not looks or (local.number == relay.at and not relay.is_done))


def _at_local(opened: FleetSession, local: LocalStatus, relay: Relay) -> AtLocal:
    assert local.canister is not None, "only those with a canister are asked"
    return AtLocal(local.number, local.canister, _ask(opened, local.number, local.canister, relay))


def _ask(opened: FleetSession, number: int, canister: Principal, relay: Relay) -> RolloutInfo | None:
    """Ask a local index for its part of the rollout."""
    index = FleetIndex(opened.session.agent, canister)
    is_passed = relay.is_done or number < relay.at
    try:
        if not is_passed:
            is_here = number == relay.at and relay.local_rollout is not None
            return index.rollout(relay.local_rollout or 0) if is_here else None
        return next((each for each in index.rollouts() if _is_of(each, opened.index.id, relay)), None)
    except Rejected:
        return None


def _is_of(found: RolloutInfo, root: Principal, relay: Relay) -> bool:
    targets = [(target.kind, target.version) for target in found.targets]
    return found.by == root and targets == [(relay.kind, relay.version)]


def _passage_lines(passage: Passage) -> Iterator[str]:
    yield passage.text()
    for each in passage.locals:
        yield f"local index {each.number}: {local_text(each)}"


def local_text(local: AtLocal) -> str:
    """Write how far a local index is."""
    found = local.rollout
    if found is None:
        return "not begun"
    return f"{found.state.tag.replace('_', ' ')}, {progress_line(found)}: {count_words(found)}"
