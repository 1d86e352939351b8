"""What a wave brought: who moved, who is tried again, who is quarantined, and whether the rollout turns back.

Errors are told apart by their codes, never by their texts: a child that is out of reach for the moment is
tried again and says nothing about the release; one that the fleet lost is not tried again; everything else is
the release's doing. An answer that never came is asked for again with the next wave, which is harmless, as a
child that is on the release already answers `unchanged`: then the lost wave brought it there. Waves to one
child are carried out in the order in which they were sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from cannery.errors import RejectCode
from cannery.fleet.rights import NO_CONTROLLER
from cannery.fleet.rollout import (
    FORWARD,
    Counts,
    Failure,
    Flight,
    Moved,
    Order,
    Retry,
    Rollout,
    Wave,
)
from cannery.fleet.rollout_judge import plan_judgement
from cannery.fleet.rollout_wave import failure_of
from cannery.limits import ROLLOUT_REASON_SIZE_CHARS_MAX
from cannery.protocol.principal import Principal

LOST_CODES = frozenset({"IC0301", NO_CONTROLLER, "IC0537", "CNRY0301"})
"""No such canister, not its controller, no module in it, replaced by another."""
PAUSE_NS_MAX = 3_600 * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Answer:
    """What the node says became of a child: `former_hash` is the module it was on, where that is known."""

    tag: Literal["upgraded", "unchanged", "skipped", "failed"]
    former_hash: bytes | None = None
    code: int = 0
    text: str = ""
    error_code: str | None = None


@dataclass(frozen=True, slots=True)
class Landing:
    """What a flight led to: at most one of a child that moved, a retry and a failure.

    `now_on` is the module and version that the child is known to run now, None where it runs what it did.
    `is_out_of_hand`: somebody else controls it.
    """

    child: Principal
    now_on: tuple[bytes, int] | None = None
    moved: Moved | None = None
    retry: Retry | None = None
    failure: Failure | None = None
    is_out_of_hand: bool = False


@dataclass(frozen=True, slots=True)
class ResultStep:
    """The rollout to keep, and what each flight led to. The wave is over."""

    rollout: Rollout
    landings: tuple[Landing, ...]


def plan_results(
    order: Order, rollout: Rollout, wave: Wave, answers: Mapping[Principal, Answer], now_ns: int
) -> ResultStep:
    """Book a wave's answers, and turn back or halt where too many failed."""
    book = _Book(order, rollout, wave, now_ns)
    landings = tuple(book.land(flight, answers.get(flight.child)) for flight in wave.flights)
    changed = replace(
        rollout,
        counts=book.counts(),
        spent_ns=rollout.spent_ns + max(0, now_ns - wave.sent_ns),
        moved_ns=now_ns,
        look_ns=now_ns,
        refusals=0,
        wait_ns=0,
        problem="" if rollout.refusals else rollout.problem,
    )
    return ResultStep(plan_judgement(order, changed), landings)


def plan_no_answer(order: Order, rollout: Rollout, wave: Wave, now_ns: int) -> ResultStep:
    """Give up to wait for a wave's answer: it may have been carried out or not, and is asked for again."""
    return plan_results(order, rollout, wave, {}, now_ns)


def plan_refused(order: Order, rollout: Rollout, wave: Wave, reason: str, now_ns: int) -> ResultStep:
    """Book that a wave as a whole was certainly not carried out: no child is to blame, it waits."""
    refusals = rollout.refusals + 1
    wait_ns = now_ns + _pause_ns(order, refusals)
    retries = [Retry(each, wave.stage, wave.is_back, wait_ns, reason) for each in wave.flights]
    counts = replace(rollout.counts, waiting=rollout.counts.waiting + len(retries))
    changed = replace(
        rollout,
        counts=counts,
        refusals=refusals,
        wait_ns=wait_ns,
        look_ns=wait_ns,
        problem=reason[:ROLLOUT_REASON_SIZE_CHARS_MAX],
    )
    return ResultStep(changed, tuple(Landing(retry.flight.child, retry=retry) for retry in retries))


class _Book:
    """The counts of a rollout as they change with each flight of a wave that lands."""

    def __init__(self, order: Order, rollout: Rollout, wave: Wave, now_ns: int) -> None:
        self._order = order
        self._wave = wave
        self._now_ns = now_ns
        self._target = order.targets[wave.stage]
        self._tag = rollout.phase.tag
        self._before = rollout.counts
        self._changes: Counter[str] = Counter()

    def counts(self) -> Counts:
        """Return the counts after all that has landed."""
        changes: Any = {
            name: getattr(self._before, name) + change for name, change in self._changes.items()
        }  # names of fields of Counts, all of them numbers
        return replace(self._before, **changes)

    def land(self, flight: Flight, answer: Answer | None) -> Landing:
        """Decide about one answer, or about none."""
        self._changes["faults"] -= flight.is_fault
        if answer is None:
            return self._lost(flight)
        if answer.tag == "failed":
            return self._failed(flight, answer)
        if self._wave.is_back:
            return self._back(flight, answer)
        if answer.tag == "skipped":
            self._changes["skipped"] += 1
            return Landing(flight.child)
        release = (self._target.module_hash, self._target.version)
        former = answer.former_hash if answer.tag == "upgraded" else flight.former_hash
        is_moved = answer.tag == "upgraded" or (flight.is_lost and former != release[0])
        if not is_moved or former is None:
            self._changes["unchanged"] += 1
            return Landing(flight.child, release)
        return Landing(flight.child, release, moved=self._moved(flight, former))

    def _moved(self, flight: Flight, former: bytes) -> Moved:
        self._changes["forward"] += 1
        version = flight.former_version if former == flight.former_hash else 0
        return Moved(flight.child, self._wave.stage, former, version)

    def _lost(self, flight: Flight) -> Landing:
        """Decide about a flight whose answer never came: it may have gone or not."""
        if not self._wave.is_back and self._tag == "going_back":
            # The way back skips those that never went.
            return Landing(flight.child, moved=self._moved(flight, flight.former_hash))
        lost = replace(flight, is_lost=True)
        return self._again(lost, "there was no answer", is_fault=flight.is_fault)

    def _back(self, flight: Flight, answer: Answer) -> Landing:
        if answer.tag == "skipped":
            # It runs neither the release nor the former one: somebody else saw to it.
            return self._give_up(flight, answer.text, is_fault=False)
        self._changes["back"] += 1
        return Landing(flight.child, (flight.former_hash, flight.former_version))

    def _failed(self, flight: Flight, answer: Answer) -> Landing:
        reason = f"{answer.text} ({answer.error_code})" if answer.error_code else answer.text
        if answer.error_code in LOST_CODES or answer.code == RejectCode.DESTINATION_INVALID:
            given_up = self._give_up(flight, reason, is_fault=False)
            return replace(given_up, is_out_of_hand=answer.error_code == NO_CONTROLLER)
        is_fault = answer.code != RejectCode.SYS_TRANSIENT
        return self._again(replace(flight, is_lost=False), reason, is_fault=is_fault)

    def _again(self, flight: Flight, reason: str, *, is_fault: bool) -> Landing:
        """Let a flight wait for its next try, or give it up after its last one."""
        tries = flight.tries + 1
        flight = replace(flight, tries=tries, is_fault=is_fault)
        if tries >= self._order.rule.tries_max or not self._goes_on():
            return self._give_up(flight, reason, is_fault=is_fault)
        self._changes["waiting"] += 1
        self._changes["faults"] += is_fault
        due_ns = self._now_ns + _pause_ns(self._order, tries)
        reason = reason[:ROLLOUT_REASON_SIZE_CHARS_MAX]
        return Landing(
            flight.child, retry=Retry(flight, self._wave.stage, self._wave.is_back, due_ns, reason)
        )

    def _give_up(self, flight: Flight, reason: str, *, is_fault: bool) -> Landing:
        if self._wave.is_back and not self._goes_on():
            return Landing(flight.child, moved=self._moved(flight, flight.former_hash))
        is_quarantined = self._goes_on() or flight.is_lost
        flight = replace(flight, is_fault=is_fault)
        retry = Retry(flight, self._wave.stage, self._wave.is_back, self._now_ns, "")
        reason = reason[:ROLLOUT_REASON_SIZE_CHARS_MAX]
        failure = failure_of(self._order, retry, reason, self._now_ns, is_quarantined=is_quarantined)
        self._changes["quarantined" if is_quarantined else "given_up"] += 1
        self._changes["faults"] += failure.is_fault
        return Landing(flight.child, failure=failure)

    def _goes_on(self) -> bool:
        """Tell whether the rollout still goes where this wave went."""
        return self._tag == "going_back" if self._wave.is_back else self._tag in FORWARD


def _pause_ns(order: Order, tries: int) -> int:
    return min(order.rule.retry_ns << min(tries - 1, 20), PAUSE_NS_MAX)
