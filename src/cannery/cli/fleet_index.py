"""The index of a fleet for the command line: each of its methods used here, with its types.

The types are the fleet's own (`cannery.fleet`); what the node alone knows of a fleet is asked of the
management canister. A refusal comes with what to do about it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from cannery import nat, nat32, nat64
from cannery.cdk.management import (
    CanisterReport,
    FleetConfigureArgs,
    FleetConfigureResult,
    FleetInfo,
    ModuleCompareArgs,
    ModuleDifferences,
    StatusManyResult,
)
from cannery.cli.problem import Problem
from cannery.cli.session import Session, open_session, operator_identity
from cannery.cli.typed_calls import TypedCanister
from cannery.client.agent import Agent
from cannery.client.errors import Rejected
from cannery.fleet.alarms import Alarm
from cannery.fleet.census import CensusReport
from cannery.fleet.directory_types import (
    Child,
    ChildFilter,
    ChildPage,
    FleetStatus,
    LeaveResult,
    PoolRule,
)
from cannery.fleet.funding_types import (
    ChildFunding,
    FundingPolicy,
    FundingReport,
    FundingResult,
    QuotaScope,
    TopUpResult,
)
from cannery.fleet.orphans import AdoptResult
from cannery.fleet.registry import ReleaseEntry, ReleaseResult
from cannery.fleet.replacements import ReplaceResult
from cannery.fleet.rollout_types import FailurePage, OrderResult, RolloutArgs, RolloutInfo, StartResult
from cannery.fleet.top_up import TopUpRule
from cannery.fleet.top_up_quota import Quota
from cannery.limits import FLEET_PAGE_COUNT_MAX
from cannery.protocol.principal import MANAGEMENT, Principal

NO_SUCH_METHOD = "IC0536"
FOR_ROOTS = re.compile(r"'fleet_(local|find)")
FOR_OPERATORS = re.compile(r"is for operators of the node|^Only operators and controllers of the index")


class FleetIndex:
    """An index as one agent sees it."""

    def __init__(self, agent: Agent, canister_id: Principal) -> None:
        self.id = canister_id
        self._index = TypedCanister(agent, canister_id)
        self._node = TypedCanister(agent, MANAGEMENT)

    # --- children ---

    def status(self) -> FleetStatus:
        """Read the fleet at a glance."""
        return self._index.query("fleet_status", FleetStatus)

    def child(self, canister_id: Principal) -> Child | None:
        """Find a child by its canister."""
        return self._index.query_option("fleet_child", Child, (canister_id,))

    def lookup(self, kind: str, owner: Principal) -> Child | None:
        """Find an owner's child of a kind."""
        return self._index.query_option("fleet_lookup", Child, (kind, owner))

    def page(self, wanted: ChildFilter, after: int | None, limit: int) -> ChildPage:
        """List children that pass a filter, from the one behind `after`."""
        hints = (ChildFilter, nat64 | None, nat32)
        return self._index.query("fleet_page", ChildPage, (wanted, after, limit), hints)

    def pages(self, wanted: ChildFilter, after: int | None, limit: int) -> Iterator[ChildPage]:
        """List children that pass a filter until there are no more, or `limit` of them."""
        while limit > 0:
            page = self.page(wanted, after, min(limit, FLEET_PAGE_COUNT_MAX))
            yield page
            limit, after = limit - len(page.items), page.next
            if after is None:
                return

    def figures(self, canister_ids: Sequence[Principal]) -> dict[Principal, CanisterReport]:
        """Read the figures of canisters, up to 1,000 at once; without those that this caller may not see."""
        found = self._node.query(
            "cannery_status_many", list[StatusManyResult], (list(canister_ids),), (list[Principal],)
        )
        return {result.canister_id: result.status for result in found if result.status is not None}

    def recycle(self, canister_id: Principal) -> LeaveResult:
        """Empty a child for the pool."""
        return self._index.call("fleet_recycle", LeaveResult, (canister_id,))

    def delete(self, canister_id: Principal) -> LeaveResult:
        """Delete a child."""
        return self._index.call("fleet_delete", LeaveResult, (canister_id,))

    def replace(self, canister_id: Principal, version: int | None) -> ReplaceResult:
        """Move a child to a new canister on a release, the current one unless told."""
        args, hints = (canister_id, version, None), (Principal, nat64 | None, bytes | None)
        return self._index.call("fleet_replace", ReplaceResult, args, hints)

    def adopt(self, canister_id: Principal, owner: Principal) -> AdoptResult:
        """List a member that is in no list as an owner's child."""
        return self._index.call("fleet_adopt", AdoptResult, (canister_id, owner))

    def pool_set(self, rule: PoolRule) -> None:
        """Set how many prepared canisters there should be."""
        self._index.call_for_effect("fleet_pool_set", (rule,))

    def pool_rule(self) -> PoolRule:
        """Read how many prepared canisters there should be."""
        return self._index.query("fleet_pool", PoolRule)

    # --- what the fleet is told and tells ---

    def info(self) -> FleetInfo:
        """Read what the node knows of the fleet: configuration, modules, members."""
        return self._node.query("cannery_fleet_info", FleetInfo, (self.id,))

    def configure(self, change: FleetConfigureArgs) -> FleetConfigureResult:
        """Change roles and values."""
        return self._index.call("fleet_config_set", FleetConfigureResult, (change,))

    def census(self) -> CensusReport:
        """Read what the last sweep has found."""
        return self._index.query("fleet_census", CensusReport)

    def census_take(self) -> None:
        """Begin a sweep."""
        self._index.call_for_effect("fleet_census_take")

    def census_set(self, every_s: int) -> None:
        """Set how often a sweep begins."""
        self._index.call_for_effect("fleet_census_set", (every_s,), (nat32,))

    def alarms_open(self) -> list[Alarm]:
        """List the alarms that are not over."""
        return self._index.query("fleet_alarms_open", list[Alarm])

    def alarms(self, after: int | None, limit: int) -> list[Alarm]:
        """List alarms and their ends, oldest first."""
        return self._index.query("fleet_alarms", list[Alarm], (after, limit), (nat64 | None, nat32))

    # --- funding ---

    def funding(self) -> FundingReport:
        """Read rules, quotas, battery, and what was given."""
        return self._index.query("fleet_funding", FundingReport)

    def child_funds(self, canister_id: Principal) -> ChildFunding | None:
        """Read what is known of a child's cycles."""
        return self._index.query_option("fleet_child_funds", ChildFunding, (canister_id,))

    def funding_set(self, policy: FundingPolicy) -> FundingResult:
        """Set what holds for all children."""
        return self._index.call("fleet_funding_set", FundingResult, (policy,))

    def birth_set(self, kind: str, cycles: int) -> None:
        """Set what a new child of a kind is born with."""
        self._index.call_for_effect("fleet_birth_set", (kind, cycles), (str, nat))

    def births(self) -> list[tuple[str, int]]:
        """List what new children are born with, by kind."""
        return self._index.query("fleet_births", list[tuple[str, nat]])

    def rule_set(self, kind: str, rule: TopUpRule | None) -> FundingResult:
        """Set when and how far children of a kind are topped up."""
        return self._index.call("fleet_rule_set", FundingResult, (kind, rule), (str, TopUpRule | None))

    def quota_set(self, scope: QuotaScope, quota: Quota | None) -> FundingResult:
        """Set what may be given."""
        hints = (QuotaScope, Quota | None)
        return self._index.call("fleet_quota_set", FundingResult, (scope, quota), hints)

    def top_up(self, canister_id: Principal, cycles: int | None) -> TopUpResult:
        """Top a child up by an amount, or by its kind's rule."""
        hints = (Principal, nat | None)
        return self._index.call("fleet_top_up", TopUpResult, (canister_id, cycles), hints)

    # --- releases and rollouts ---

    def releases(self, kind: str | None) -> list[ReleaseEntry]:
        """List releases, newest first."""
        return self._index.query("fleet_releases", list[ReleaseEntry], (kind,), (str | None,))

    def release_add(self, kind: str, version: int, module_hash: bytes, note: str) -> ReleaseResult:
        """Add a release whose module is on the node."""
        args, hints = (kind, version, module_hash, note), (str, nat64, bytes, str)
        return self._index.call("fleet_release_add", ReleaseResult, args, hints)

    def rollout_start(self, args: RolloutArgs) -> StartResult:
        """Check a release and begin to bring it to children."""
        return self._index.call("fleet_rollout_start", StartResult, (args,))

    def rollout_set_concurrency(self, id: int, concurrency: int) -> OrderResult:
        """Change how many children are in flight at most; 0 pauses."""
        args, hints = (id, concurrency), (nat64, nat32)
        return self._index.call("fleet_rollout_set_concurrency", OrderResult, args, hints)

    def rollout_cancel(self, id: int) -> OrderResult:
        """End a rollout where it is."""
        return self._index.call("fleet_rollout_cancel", OrderResult, (id,), (nat64,))

    def rollout_go_back(self, id: int, *, force: bool) -> OrderResult:
        """Take children back to their former release."""
        return self._index.call("fleet_rollout_go_back", OrderResult, (id, force), (nat64, bool))

    def retry(self, child: Principal) -> OrderResult:
        """Try a quarantined child again."""
        return self._index.call("fleet_retry", OrderResult, (child,))

    def rollout(self, id: int) -> RolloutInfo | None:
        """Read one rollout."""
        return self._index.query_option("fleet_rollout", RolloutInfo, (id,), (nat64,))

    def rollouts(self) -> list[RolloutInfo]:
        """List the latest rollouts, newest first."""
        return self._index.query("fleet_rollouts", list[RolloutInfo])

    def failures(self, id: int, after: Principal | None, limit: int) -> FailurePage:
        """List children that did not get where they should."""
        args, hints = (id, after, limit), (nat64, Principal | None, nat32)
        return self._index.query("fleet_failures", FailurePage, args, hints)

    def compare(self, former: bytes, module_hash: bytes) -> ModuleDifferences:
        """Say whether a module of the node can follow another, and the other way round."""
        return self._node.query(
            "cannery_module_compare", ModuleDifferences, (ModuleCompareArgs(former, module_hash),)
        )


@dataclass(frozen=True, slots=True)
class FleetSession:
    """A session with a fleet: its index, and the name by which it was called."""

    session: Session
    index: FleetIndex
    name: str


@contextmanager
def open_fleet(url: str, identity: str | None, index: str, label: str) -> Iterator[FleetSession]:
    """Talk to the index of a fleet, as the operator unless another identity is named."""
    with open_session(url, operator_identity(identity), label) as session:
        canister_id = session.canister(index)
        try:
            yield FleetSession(session, FleetIndex(session.agent, canister_id), index)
        except Rejected as error:
            raise _explained(error, index, session.agent.principal) from None


def _explained(error: Rejected, index: str, caller: Principal) -> Exception:
    """Say what to do about a refusal that has to do with who asks, or whom."""
    if FOR_OPERATORS.search(error.message):
        return Problem(
            f"{index} does not take this from {caller}: {error.message}; say --identity NAME, or set "
            "CANNERY_DATA to the node's data directory",
            exit_code=1,
        )
    if error.error_code == NO_SUCH_METHOD and FOR_ROOTS.search(error.message):
        return Problem(
            f"{index} has no local indexes: its children are its own (docs/shards.md)", exit_code=1
        )
    if error.error_code == NO_SUCH_METHOD:
        return Problem(
            f"{index} is not the index of a fleet ({error.message}); name one with --index", exit_code=1
        )
    return error
