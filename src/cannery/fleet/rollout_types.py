"""What operators say to an index about rollouts, and what it tells them. Shares are in thousandths."""

from __future__ import annotations

from dataclasses import fields

from cannery import Case, Principal, Variant, nat32, nat64, record, variant
from cannery.fleet.rollout import Comparison, Counts, Failure, Progress, RolloutRule, Target
from cannery.fleet.rollout_filter import EVERY_CHILD, RolloutFilter


@record
class KindVersion:
    """A release by name."""

    kind: str
    version: nat64


@record
class RuleChange:
    """What differs from the rule that holds otherwise; see `RolloutRule`."""

    canary_permille: nat32 | None = None
    canary_fault_permille: nat32 | None = None
    canary_hold_ns: nat64 | None = None
    fault_permille: nat32 | None = None
    tries_max: nat32 | None = None
    retry_ns: nat64 | None = None
    deadline_ns: nat64 | None = None
    stall_ns: nat64 | None = None
    goes_back: bool | None = None


@record
class RolloutArgs:
    """What to roll out: one release for each kind, kind after kind; which children; how many at a time.

    A concurrency of 0 starts in a pause, after the check. `arg` goes to `@post_upgrade`. `force` starts where
    the interface or the state says no, and leaves the interface unchecked in each upgrade. `skip_pre_upgrade`
    leaves out the hook of the release that children come from, which may be what fails.
    """

    releases: list[KindVersion]
    concurrency: nat32
    filter: RolloutFilter | None = None
    rule: RuleChange | None = None
    arg: bytes | None = None
    force: bool | None = None
    skip_pre_upgrade: bool | None = None


@variant
class StartResult(Variant):
    """The number of a rollout that was started, or why it was not."""

    ok: Case[nat64]
    err: Case[str]


@variant
class OrderResult(Variant):
    """Whether an order was taken, or why not."""

    ok: Case[None]
    err: Case[str]


@variant
class RolloutState(Variant):
    """Where a rollout stands."""

    checking: Case[None]
    canary: Case[None]
    running: Case[None]
    paused: Case[None]
    stalled: Case[None]
    going_back: Case[None]
    done: Case[None]
    cancelled: Case[None]
    rolled_back: Case[None]
    refused: Case[None]


@record
class RolloutInfo:
    """A rollout: what was ordered, what the check found, where it stands and why. `concurrency_before` is
    what it had before it was changed last, so that a pause ends as it began."""

    id: nat64
    state: RolloutState
    targets: list[Target]
    filter: RolloutFilter
    rule: RolloutRule
    force: bool
    by: Principal
    started_ns: nat64
    ended_ns: nat64 | None
    concurrency: nat32
    in_flight: nat32
    counts: Counts
    progress: Progress
    reason: str
    problem: str
    no_way_back: str
    check: list[Comparison]
    concurrency_before: nat32 | None = None
    skip_pre_upgrade: bool | None = None


@record
class FailurePage:
    """Children that did not get where they should; `next` goes into `after` for the page that follows."""

    items: list[Failure]
    next: Principal | None


def rule_of(change: RuleChange | None) -> RolloutRule:
    """Return the rule with what an operator wants different."""
    if change is None:
        return RolloutRule()
    wanted = {field.name: getattr(change, field.name) for field in fields(RuleChange)}
    return RolloutRule(**{name: value for name, value in wanted.items() if value is not None})


def filter_of(args: RolloutArgs) -> RolloutFilter:
    """Return the filter of a rollout; without one all children are in."""
    return EVERY_CHILD if args.filter is None else args.filter
