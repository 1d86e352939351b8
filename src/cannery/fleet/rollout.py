"""A rollout: one release after the other brought to the children of a fleet in waves, or taken back.

An `Order` says what is wanted and never changes; a `Rollout` says where it stands. One wave at the most is in
flight: `rollout_wave` makes the next one, `rollout_results` books what it brought. Each step reads and writes
no more than a wave, whatever the size of the fleet:

    checking -> canary -> running -> done
    canary, running (too many fail) -> going_back -> rolled_back
    any of them -> cancelled

A child that was brought forward is kept with its former release (`Moved`) until it is back; one that failed
waits for its next try (`Retry`) or is put aside with its reason (`Failure`). So each child ends on the
release, on its former one, or quarantined. Pausing is a concurrency of 0. This module holds the records and
what an operator may order; it sends nothing and keeps no time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from cannery.candid.python import Case, Variant, nat32, nat64, record, variant
from cannery.errors import CanneryError
from cannery.fleet.rollout_filter import Candidate, RolloutFilter, selector
from cannery.limits import ROLLOUT_CONCURRENCY_COUNT_MAX, ROLLOUT_TRIES_COUNT_MAX
from cannery.protocol.principal import Principal

SECOND_NS = 1_000_000_000
REFUSALS_BEFORE_STALL = 3

State = Literal[
    "checking",
    "canary",
    "running",
    "paused",
    "stalled",
    "going_back",
    "done",
    "cancelled",
    "rolled_back",
    "refused",
]


class RolloutError(CanneryError):
    """What was ordered does not fit where the rollout stands; the text says what to do."""


@record
class Target:
    """A stage of a rollout: the release for one kind, and how many children it is expected to meet.

    `current_before` is the release with which children of the kind were made when it began, 0 for none.
    """

    kind: str
    version: nat64
    module_hash: bytes
    expected: nat64
    current_before: nat64 = 0


@record
class RolloutRule:
    """When to go on, to try again and to give up; shares are in thousandths.

    The canary's children are the first that show how the release does. More failures among them than
    `canary_fault_permille`, or among all expected children than `fault_permille`, end it: it goes back, or
    halts without `goes_back`. A child is tried `tries_max` times, the pause doubles from `retry_ns`. A wave
    without an answer is looked at again after `deadline_ns`.
    """

    canary_permille: nat32 = 10
    canary_fault_permille: nat32 = 250
    canary_hold_ns: nat64 = 0
    fault_permille: nat32 = 50
    tries_max: nat32 = 4
    retry_ns: nat64 = 10 * SECOND_NS
    deadline_ns: nat64 = 600 * SECOND_NS
    stall_ns: nat64 = 600 * SECOND_NS
    goes_back: bool = True


@record
class Comparison:
    """Whether a release can follow a former one and the other way round; a text says why it cannot."""

    kind: str
    version: nat64
    module_hash: bytes
    interface: str | None
    state: str | None
    back_interface: str | None
    back_state: str | None


@record
class Order:
    """What was ordered. `arg` goes to each `@post_upgrade`; `force` leaves the interface unchecked,
    `skip_pre_upgrade` leaves out the hook of the release that children come from."""

    targets: list[Target]
    filter: RolloutFilter
    rule: RolloutRule
    arg: bytes
    force: bool
    by: Principal
    at_ns: nat64
    skip_pre_upgrade: bool | None = None


@variant
class Phase(Variant):
    """Where a rollout stands, a pause or a stall apart."""

    checking: Case[None]
    canary: Case[None]
    running: Case[None]
    going_back: Case[None]
    done: Case[None]
    cancelled: Case[None]
    rolled_back: Case[None]
    refused: Case[None]


FORWARD = frozenset({"canary", "running"})
MOVING = FORWARD | {"going_back"}
ACTIVE = MOVING | {"checking"}


@record
class Counts:
    """Children by what became of them.

    `selected` were sent at least once. Each of them is in flight or in exactly one of: forward (on the
    release by this rollout), unchanged (was on it), skipped (the node left it out, or it is gone), waiting
    (for another try), quarantined, given_up (failed, and the rollout ended before the next try), back (on
    its former release again). `scanned` were looked at. `faults` of those waiting or quarantined failed by
    the release's own doing.
    """

    scanned: nat64 = 0
    selected: nat64 = 0
    forward: nat64 = 0
    unchanged: nat64 = 0
    skipped: nat64 = 0
    waiting: nat64 = 0
    quarantined: nat64 = 0
    given_up: nat64 = 0
    back: nat64 = 0
    faults: nat64 = 0


NOTHING_YET = Counts()


@record
class Canary:
    """How many children have to show how a release does, and what had been counted before them."""

    count: nat64
    forward_before: nat64
    faults_before: nat64


@record
class Rollout:
    """Where a rollout stands.

    The scan of stage `stage` is at `cursor`. Nothing is sent before `wait_ns`; `look_ns` is when something is
    due. `refusals` counts calls in a row that the node refused as a whole, `problem` says why. A rollout that
    `halted` waits for an operator. `no_way_back` says why none could be taken back, if so; on the way back
    `is_swept` says that nothing waits to go forward any more. `concurrency_before` is what a pause has ended.
    """

    id: nat64
    phase: Phase
    concurrency: nat32
    stage: nat32
    cursor: bytes
    is_scanned: bool
    counts: Counts
    canary: Canary | None
    wave: nat64
    wait_ns: nat64
    look_ns: nat64
    moved_ns: nat64
    spent_ns: nat64
    refusals: nat32
    problem: str
    reason: str
    halted: bool
    accepts_faults: bool
    ended_ns: nat64 | None
    no_way_back: str
    is_swept: bool
    concurrency_before: nat32 | None = None


@record
class Flight:
    """A child in a wave: its former release, the tries before this one, whether it counts as a fault, and
    whether an answer about it was lost."""

    child: Principal
    former_hash: bytes
    former_version: nat64
    tries: nat32 = 0
    is_fault: bool = False
    is_lost: bool = False


@record
class Wave:
    """Children that are sent to one release together: the target's, or back to a former one."""

    number: nat64
    stage: nat32
    is_back: bool
    to_hash: bytes
    sent_ns: nat64
    flights: list[Flight]


@record
class Retry:
    """A child that waits for another try, and why the last one failed."""

    flight: Flight
    stage: nat32
    is_back: bool
    due_ns: nat64
    reason: str


@record
class Moved:
    """A child that was brought forward, and its former release."""

    child: Principal
    stage: nat32
    former_hash: bytes
    former_version: nat64


@record
class Failure:
    """A child that did not get where it should: from where, to where, why, after how many tries.

    One that is not `is_quarantined` failed in a rollout that ended before its next try. With `is_lost` the
    last answer never came: it may be on either release.
    """

    child: Principal
    stage: nat32
    is_back: bool
    from_hash: bytes
    from_version: nat64
    to_hash: bytes
    to_version: nat64
    reason: str
    tries: nat32
    at_ns: nat64
    is_quarantined: bool
    is_fault: bool
    is_lost: bool


# what an operator orders


def fault_of_rule(rule: RolloutRule) -> str | None:
    """Say what is wrong with a rule, if anything."""
    shares = (rule.canary_permille, rule.canary_fault_permille, rule.fault_permille)
    if any(share > 1_000 for share in shares):
        return "shares are in thousandths: at most 1000"
    if not 1 <= rule.tries_max <= ROLLOUT_TRIES_COUNT_MAX:
        return f"a child is tried 1 to {ROLLOUT_TRIES_COUNT_MAX} times"
    if min(rule.retry_ns, rule.deadline_ns, rule.stall_ns) < SECOND_NS:
        return "the pause, the deadline and the stall time are one second at least"
    return None


def fault_of_concurrency(concurrency: int) -> str | None:
    """Say what is wrong with a concurrency, if anything."""
    if concurrency > ROLLOUT_CONCURRENCY_COUNT_MAX:
        return f"at most {ROLLOUT_CONCURRENCY_COUNT_MAX} canisters are upgraded at a time, 0 pauses"
    return None


def new_rollout(id: int, concurrency: int, now_ns: int) -> Rollout:
    """Make the record of a rollout whose check has not begun."""
    return Rollout(
        id=id,
        phase=Phase.checking(),
        concurrency=concurrency,
        stage=0,
        cursor=b"",
        is_scanned=False,
        counts=NOTHING_YET,
        canary=None,
        wave=0,
        wait_ns=0,
        look_ns=now_ns,
        moved_ns=now_ns,
        spent_ns=0,
        refusals=0,
        problem="",
        reason="",
        halted=False,
        accepts_faults=False,
        ended_ns=None,
        no_way_back="",
        is_swept=False,
    )


def plan_checked(order: Order, rollout: Rollout, found: list[Comparison], now_ns: int) -> Rollout:
    """Begin with the canary, or refuse, after the release was compared with those that children may be on."""
    if rollout.phase.tag != "checking":
        return rollout
    fault = None if order.force else _misfit(found)
    if fault is not None:
        return replace(rollout, phase=Phase.refused(), reason=fault, ended_ns=now_ns)
    back = next((c for c in found if c.back_state is not None), None)
    fault = "" if back is None else f"no way back to {back.kind} {back.version}: {back.back_state}"
    return begin_stage(order, replace(rollout, no_way_back=fault), 0)


def _misfit(found: list[Comparison]) -> str | None:
    for each in found:
        for what, why in (("interface", each.interface), ("state", each.state)):
            if why is not None:
                return (
                    f"the {what} of {each.kind} {each.version} does not allow it: {why}. "
                    "Mend the module, or use force"
                )
    return None


def begin_stage(order: Order, rollout: Rollout, stage: int) -> Rollout:
    """Start to scan the children of a stage's kind, with its canary first."""
    rule, counts = order.rule, rollout.counts
    count = -(-order.targets[stage].expected * rule.canary_permille // 1_000)
    has_canary = rule.canary_permille > 0
    return replace(
        rollout,
        phase=Phase.canary() if has_canary else Phase.running(),
        stage=stage,
        cursor=b"",
        is_scanned=False,
        canary=Canary(max(1, count), counts.forward, counts.faults) if has_canary else None,
    )


def plan_concurrency(rollout: Rollout, concurrency: int) -> Rollout:
    """Change how many children are in flight at most; going on after a halt accepts the failures."""
    fault = fault_of_concurrency(concurrency)
    if fault is not None:
        raise RolloutError(fault)
    if rollout.phase.tag not in ACTIVE:
        raise RolloutError(f"rollout {rollout.id} is over ({rollout.phase.tag})")
    goes_on = rollout.halted and concurrency > 0
    return replace(
        rollout,
        concurrency=concurrency,
        concurrency_before=rollout.concurrency or rollout.concurrency_before,
        halted=rollout.halted and not goes_on,
        accepts_faults=rollout.accepts_faults or goes_on,
        problem="" if goes_on else rollout.problem,
    )


def plan_cancel(rollout: Rollout, reason: str, now_ns: int) -> Rollout:
    """Send nothing more; what is in flight is still booked."""
    if rollout.phase.tag not in ACTIVE:
        raise RolloutError(f"rollout {rollout.id} is over ({rollout.phase.tag})")
    return replace(rollout, phase=Phase.cancelled(), reason=reason, halted=False, ended_ns=now_ns)


def plan_going_back(rollout: Rollout, reason: str, *, force: bool = False) -> Rollout:
    """Take the children that went forward back to their former releases, on their present state."""
    if rollout.phase.tag not in FORWARD | {"done", "cancelled"}:
        raise RolloutError(f"rollout {rollout.id} cannot go back: it is {rollout.phase.tag}")
    if rollout.no_way_back and not force:
        raise RolloutError(f"there is {rollout.no_way_back}. Use force to try all the same")
    return turn_back(replace(rollout, halted=False, ended_ns=None, refusals=0, wait_ns=0), reason)


def turn_back(rollout: Rollout, reason: str) -> Rollout:
    """Let a rollout go back from now on."""
    return replace(rollout, phase=Phase.going_back(), reason=reason, is_swept=False)


def plan_retry(rollout: Rollout, failure: Failure, now_ns: int) -> tuple[Rollout, Retry]:
    """Try a child that failed again at once; a rollout that was over goes on for it."""
    tag = rollout.phase.tag
    on_its_way = ("rolled_back", "going_back") if failure.is_back else ("done", "canary", "running")
    if not failure.is_quarantined or tag not in on_its_way:
        raise RolloutError(
            f"rollout {rollout.id} is {tag} and takes child {failure.child} no further: start another rollout"
        )
    counts = rollout.counts
    counts = replace(
        counts,
        quarantined=counts.quarantined - 1,
        waiting=counts.waiting + 1,
        faults=counts.faults - failure.is_fault,
    )
    phase = Phase.going_back() if failure.is_back else Phase.running() if tag == "done" else rollout.phase
    former = (
        (failure.to_hash, failure.to_version)
        if failure.is_back
        else (failure.from_hash, failure.from_version)
    )
    flight = Flight(failure.child, *former, is_lost=failure.is_lost)
    retry = Retry(flight, failure.stage, failure.is_back, now_ns, "an operator asked")
    return replace(rollout, phase=phase, counts=counts, ended_ns=None, moved_ns=now_ns), retry


def plan_born(
    order: Order, rollout: Rollout, candidate: Candidate, stage: int, now_ns: int
) -> tuple[Rollout, Retry] | None:
    """Take a child in that was made while its kind moves on, where the scan will not meet it any more."""
    tag, target = rollout.phase.tag, order.targets[stage]
    if candidate.version == target.version or order.filter.include or not selector(order.filter)(candidate):
        return None
    is_passed = stage < rollout.stage or (
        stage == rollout.stage and (rollout.is_scanned or candidate.place <= rollout.cursor)
    )
    if tag not in FORWARD | {"done"} or not is_passed:
        return None
    flight = Flight(candidate.child, candidate.module_hash, candidate.version)
    counts = rollout.counts
    counts = replace(counts, selected=counts.selected + 1, waiting=counts.waiting + 1)
    phase = Phase.running() if tag == "done" else rollout.phase
    changed = replace(rollout, phase=phase, counts=counts, ended_ns=None, moved_ns=now_ns)
    return changed, Retry(flight, stage, False, now_ns, "it was made meanwhile")


# how it stands


def permitted_faults(order: Order, counts: Counts) -> int:
    """Return how many children may fail before the rollout ends."""
    expected = max(sum(target.expected for target in order.targets), counts.selected)
    return expected * order.rule.fault_permille // 1_000


def is_stalled(order: Order, rollout: Rollout, now_ns: int) -> bool:
    """Tell whether something should have moved long ago, or an operator is waited for."""
    if rollout.halted:
        return True
    if rollout.phase.tag not in ACTIVE or rollout.concurrency == 0:
        return False
    since_ns = max(rollout.moved_ns, rollout.look_ns)
    return rollout.refusals >= REFUSALS_BEFORE_STALL or now_ns - since_ns > order.rule.stall_ns


def state_of(order: Order, rollout: Rollout, now_ns: int) -> State:
    """Return where a rollout stands, in one word."""
    if is_stalled(order, rollout, now_ns):
        return "stalled"
    if rollout.phase.tag in MOVING and rollout.concurrency == 0:
        return "paused"
    tag: State = rollout.phase.tag  # type: ignore[assignment]  # the tags of Phase are states
    return tag


@record
class Progress:
    """How far a rollout is: children settled of those expected, and the time left at the pace so far."""

    settled: nat64
    expected: nat64
    left_ns: nat64 | None


def progress_of(order: Order, rollout: Rollout) -> Progress:
    """Return how far a rollout is; going back counts the way back."""
    counts = rollout.counts
    settled = counts.forward + counts.unchanged + counts.skipped + counts.quarantined + counts.given_up
    settled += counts.back
    expected = max(sum(target.expected for target in order.targets), counts.selected)
    paced = settled
    if rollout.phase.tag in ("going_back", "rolled_back"):
        settled, expected = counts.back, counts.back + counts.forward
    left = expected - settled
    if rollout.phase.tag not in MOVING or (left and not paced):
        return Progress(settled, expected, None)
    return Progress(settled, expected, left * rollout.spent_ns // paced if left else 0)
