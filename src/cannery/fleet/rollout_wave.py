"""The next wave of a rollout: which children are sent to which release now, or when to look again.

A wave is planned only when none is in flight. Children that wait for another try come first, then those that
the directory's scan brings; on the way back those that went forward. All children of a wave go to the same
release. No more than a wave's worth is read of any of the three, and of candidates `scan_count` at the most.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from itertools import islice

from cannery import limits
from cannery.fleet.rollout import (
    FORWARD,
    Failure,
    Flight,
    Moved,
    Order,
    Phase,
    Retry,
    Rollout,
    Wave,
    begin_stage,
)
from cannery.fleet.rollout_filter import Candidate, selector
from cannery.fleet.rollout_judge import plan_judgement, tested_count


@dataclass(frozen=True, slots=True)
class Ready:
    """What stands ready, read lazily: retries by due time, candidates from the cursor on, moved children by
    stage and former release."""

    retries: Iterable[Retry]
    candidates: Iterable[Candidate]
    moved: Iterable[Moved]
    scan_count: int = limits.ROLLOUT_SCAN_COUNT_MAX


@dataclass(frozen=True, slots=True)
class WaveStep:
    """The rollout to keep, the wave to send, what to take out of the stores and what to put in, when to look.

    `look_ns` is None where nothing is to come by itself. `taken` and `moved_out` go, `failures` and
    `moved_in` come.
    """

    rollout: Rollout
    wave: Wave | None = None
    look_ns: int | None = None
    taken: tuple[Retry, ...] = ()
    moved_out: tuple[Moved, ...] = ()
    moved_in: tuple[Moved, ...] = ()
    failures: tuple[Failure, ...] = ()


def plan_wave(order: Order, rollout: Rollout, ready: Ready, now_ns: int) -> WaveStep:
    """Decide what comes next, where no wave is in flight."""
    tag = rollout.phase.tag
    is_over = tag == "cancelled"
    if (tag == "going_back" and not rollout.is_swept) or (is_over and rollout.counts.waiting):
        return _plan_sweep(order, rollout, ready, now_ns)
    if tag not in FORWARD and tag != "going_back":
        return WaveStep(rollout)
    if rollout.halted or rollout.concurrency == 0:
        return WaveStep(rollout)
    if now_ns < rollout.wait_ns:
        return _look(rollout, rollout.wait_ns)
    plan = _plan_back if tag == "going_back" else _plan_forward
    return plan(order, rollout, ready, now_ns)


def _look(rollout: Rollout, at_ns: int) -> WaveStep:
    return WaveStep(replace(rollout, look_ns=at_ns), look_ns=at_ns)


# forward


def _plan_forward(order: Order, rollout: Rollout, ready: Ready, now_ns: int) -> WaveStep:
    due, next_due_ns = _due(ready.retries, rollout.concurrency, now_ns)
    stage = due[0].stage if due else rollout.stage
    due = [retry for retry in due if retry.stage == stage]
    fresh: list[Flight] = []
    if stage == rollout.stage:
        scan = _Scan(order, rollout, ready)
        fresh = scan.take(min(rollout.concurrency - len(due), _canary_room(rollout)))
        rollout = scan.rollout
    if due or fresh:
        flights = [*(retry.flight for retry in due), *fresh]
        wave = Wave(rollout.wave + 1, stage, False, order.targets[stage].module_hash, now_ns, flights)
        return _send(order, rollout, wave, due)
    if rollout.phase.tag == "canary":
        return _plan_canary_end(order, rollout, next_due_ns, now_ns)
    if not rollout.is_scanned:
        return _look(rollout, now_ns)
    if next_due_ns is not None:
        return _look(rollout, next_due_ns)
    if rollout.stage + 1 < len(order.targets):
        return _look(begin_stage(order, rollout, rollout.stage + 1), now_ns)
    return WaveStep(replace(rollout, phase=Phase.done(), ended_ns=now_ns, problem=""))


class _Scan:
    """The scan of a stage's children, and the rollout as it stands after it."""

    def __init__(self, order: Order, rollout: Rollout, ready: Ready) -> None:
        self.rollout = rollout
        self._candidates = ready.candidates
        self._scan_count = ready.scan_count
        self._is_in = selector(order.filter)

    def take(self, room: int) -> list[Flight]:
        """Take up to `room` children that the filter lets in, and move the cursor."""
        flights: list[Flight] = []
        if room <= 0 or self.rollout.is_scanned:
            return flights
        cursor, scanned, is_end = self.rollout.cursor, 0, True
        for candidate in self._candidates:
            cursor, scanned = candidate.place, scanned + 1
            if self._is_in(candidate):
                flights.append(Flight(candidate.child, candidate.module_hash, candidate.version))
            if len(flights) == room or scanned == self._scan_count:
                is_end = False
                break
        counts = self.rollout.counts
        counts = replace(counts, scanned=counts.scanned + scanned, selected=counts.selected + len(flights))
        self.rollout = replace(self.rollout, cursor=cursor, is_scanned=is_end, counts=counts)
        return flights


def _canary_room(rollout: Rollout) -> int:
    if rollout.phase.tag != "canary" or rollout.canary is None:
        return limits.ROLLOUT_CONCURRENCY_COUNT_MAX
    return rollout.canary.count - tested_count(rollout)


def _plan_canary_end(order: Order, rollout: Rollout, next_due_ns: int | None, now_ns: int) -> WaveStep:
    """Go on behind the canary, once it has shown enough and was watched long enough."""
    assert rollout.canary is not None, "asked in the canary only"
    if tested_count(rollout) < rollout.canary.count:
        if not rollout.is_scanned:
            return _look(rollout, now_ns)
        if next_due_ns is not None:
            return _look(rollout, next_due_ns)
    judged = plan_judgement(order, rollout)
    if judged is not rollout:
        return _look(judged, now_ns)
    held_until_ns = rollout.moved_ns + order.rule.canary_hold_ns
    if now_ns < held_until_ns:
        return _look(rollout, min(held_until_ns, next_due_ns or held_until_ns))
    return _look(replace(rollout, phase=Phase.running(), moved_ns=now_ns), now_ns)


# back


def _plan_sweep(order: Order, rollout: Rollout, ready: Ready, now_ns: int) -> WaveStep:
    """Take out of the retries what will not be tried any more, a bounded number.

    A child about which an answer was lost may have gone forward, so it is taken back with the others; one
    that was on its way back when that was cancelled counts as forward again.
    """
    found = tuple(islice(ready.retries, limits.ROLLOUT_SWEEP_COUNT_MAX))
    if not found:
        return _look(replace(rollout, is_swept=True), now_ns)
    forward: list[Moved] = []
    failures: list[Failure] = []
    for retry in found:
        is_lost = retry.flight.is_lost
        if retry.is_back or (is_lost and rollout.phase.tag != "cancelled"):
            forward.append(_moved_of(retry))
        else:
            failures.append(failure_of(order, retry, retry.reason, now_ns, is_quarantined=is_lost))
    quarantined = sum(failure.is_quarantined for failure in failures)
    counts = rollout.counts
    counts = replace(
        counts,
        waiting=counts.waiting - len(found),
        forward=counts.forward + len(forward),
        quarantined=counts.quarantined + quarantined,
        given_up=counts.given_up + len(failures) - quarantined,
        faults=counts.faults - sum(retry.flight.is_fault for retry in found),
    )
    step = _look(replace(rollout, counts=counts), now_ns)
    return replace(step, taken=found, moved_in=tuple(forward), failures=tuple(failures))


def _moved_of(retry: Retry) -> Moved:
    return Moved(retry.flight.child, retry.stage, retry.flight.former_hash, retry.flight.former_version)


def _plan_back(order: Order, rollout: Rollout, ready: Ready, now_ns: int) -> WaveStep:
    """Send back those that went forward, and those whose way back failed; each wave to one former release."""
    due, next_due_ns = _due(ready.retries, rollout.concurrency, now_ns)
    if due:
        first = due[0]
        same = [retry for retry in due if _way_back(retry) == _way_back(first)]
        flights = [retry.flight for retry in same]
        wave = Wave(rollout.wave + 1, first.stage, True, first.flight.former_hash, now_ns, flights)
        return _send(order, rollout, wave, same)
    moved = _same_former(ready.moved, rollout.concurrency)
    if moved:
        counts = replace(rollout.counts, forward=rollout.counts.forward - len(moved))
        rollout = replace(rollout, counts=counts)
        flights = [Flight(each.child, each.former_hash, each.former_version) for each in moved]
        wave = Wave(rollout.wave + 1, moved[0].stage, True, moved[0].former_hash, now_ns, flights)
        return replace(_send(order, rollout, wave, []), moved_out=tuple(moved))
    if next_due_ns is not None:
        return _look(rollout, next_due_ns)
    return WaveStep(replace(rollout, phase=Phase.rolled_back(), ended_ns=now_ns, problem=""))


def _way_back(retry: Retry) -> tuple[int, bytes]:
    return retry.stage, retry.flight.former_hash


def _same_former(moved: Iterable[Moved], room: int) -> list[Moved]:
    taken: list[Moved] = []
    for each in islice(moved, room):
        if taken and (each.stage, each.former_hash) != (taken[0].stage, taken[0].former_hash):
            break
        taken.append(each)
    return taken


# both


def _due(retries: Iterable[Retry], room: int, now_ns: int) -> tuple[list[Retry], int | None]:
    """Return the retries that are due, up to a number, and when the next one after them is."""
    taken: list[Retry] = []
    rest: Iterator[Retry] = iter(retries)
    for retry in rest:
        if retry.due_ns > now_ns or len(taken) == room:
            return taken, retry.due_ns
        taken.append(retry)
    return taken, None


def _send(order: Order, rollout: Rollout, wave: Wave, due: list[Retry]) -> WaveStep:
    counts = replace(rollout.counts, waiting=rollout.counts.waiting - len(due))
    look_ns = wave.sent_ns + order.rule.deadline_ns
    rollout = replace(rollout, counts=counts, wave=wave.number, look_ns=look_ns)
    return WaveStep(rollout, wave, look_ns, tuple(due))


def failure_of(order: Order, retry: Retry, reason: str, now_ns: int, *, is_quarantined: bool) -> Failure:
    """Make the record of a child that is tried no more."""
    flight, target = retry.flight, order.targets[retry.stage]
    former, release = (flight.former_hash, flight.former_version), (target.module_hash, target.version)
    begin, end = (release, former) if retry.is_back else (former, release)
    return Failure(
        flight.child,
        retry.stage,
        retry.is_back,
        *begin,
        *end,
        reason,
        flight.tries,
        now_ns,
        is_quarantined,
        is_quarantined and flight.is_fault,
        flight.is_lost,
    )
