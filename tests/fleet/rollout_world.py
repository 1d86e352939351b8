"""A fleet in miniature for tests of rollouts: dictionaries for stores, a node that obeys orders, wires that
lose and delay answers. Everything that a step keeps goes through the records' own encoding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from random import Random
from typing import TypeVar

from cannery import Principal
from cannery.candid.codec import value_decoder, value_encoder
from cannery.candid.python import type_of
from cannery.errors import RejectCode
from cannery.fleet.rollout import (
    Failure,
    Moved,
    Order,
    Retry,
    RolloutRule,
    Target,
    Wave,
    new_rollout,
    plan_checked,
)
from cannery.fleet.rollout_filter import EVERY_CHILD, Candidate, RolloutFilter
from cannery.fleet.rollout_results import (
    Answer,
    ResultStep,
    plan_no_answer,
    plan_refused,
    plan_results,
)
from cannery.fleet.rollout_wave import Ready, WaveStep, plan_wave

T = TypeVar("T")
SECOND_NS = 1_000_000_000
OLD, OLDER, NEW = b"old", b"older", b"new"
VERSIONS = {OLDER: 1, OLD: 2, NEW: 3}
OPERATOR = Principal(b"\x01")


def saved(value: T) -> T:
    """Write a record as a stable collection does, and read it back, as after a crash."""
    type_ = type_of(type(value))
    return value_decoder(type_)(value_encoder(type_)(value))  # type: ignore[return-value]


def named(number: int) -> Principal:
    return Principal(number.to_bytes(2, "big") + b"\x01")


def order_of(
    expected: int,
    rule: RolloutRule = RolloutRule(),
    chosen: RolloutFilter = EVERY_CHILD,
    kinds: tuple[str, ...] = ("user",),
) -> Order:
    """Make an order for release 3 of each kind."""
    targets = [Target(kind, 3, NEW, expected) for kind in kinds]
    return Order(targets, chosen, rule, b"", False, OPERATOR, 0)


@dataclass
class Child:
    """A canister: its module, and how it takes upgrades. `faults` answers come first, then `ends`."""

    kind: str
    module_hash: bytes
    faults: list[Answer] = field(default_factory=list)
    ends: Answer | None = None
    is_there: bool = True


TRAP = Answer("failed", OLD, RejectCode.CANISTER_ERROR, "it trapped", "IC0503")
FROZEN = Answer("failed", OLD, RejectCode.SYS_TRANSIENT, "it is out of cycles", "IC0207")
CUSTODY = Answer("failed", OLD, RejectCode.CANISTER_ERROR, "you do not control it", "IC0512")
GONE = Answer("failed", None, RejectCode.DESTINATION_INVALID, "there is no such canister", "IC0301")
IDLE = Answer("skipped", None, 0, "it has run nothing since")


class World:
    """A rollout over children in a directory; what happens in which order is the test's."""

    def __init__(self, order: Order, children: list[Child], concurrency: int = 5) -> None:
        self.now_ns = 1_000 * SECOND_NS
        self.order = saved(order)
        self.children = {named(number): child for number, child in enumerate(children)}
        self.original = {id: child.module_hash for id, child in self.children.items()}
        self.rollout = plan_checked(order, new_rollout(1, concurrency, self.now_ns), [], self.now_ns)
        self.wave: Wave | None = None
        self.retries: list[Retry] = []
        self.moved: list[Moved] = []
        self.failures: dict[Principal, Failure] = {}
        self.wire: deque[Wave] = deque()
        self.answers: deque[tuple[Wave, dict[Principal, Answer]]] = deque()
        self.touched: set[Principal] = set()
        self.went_forward: set[Principal] = set()
        self.faulty: set[Principal] = set()
        self.read_count = 0

    # what stands ready

    def _counted(self, items: Iterable[T]) -> Iterator[T]:
        for item in items:
            self.read_count += 1
            yield item

    def _candidates(self) -> list[Candidate]:
        kind = self.order.targets[self.rollout.stage].kind
        return [
            Candidate(id.raw, id, VERSIONS[child.module_hash], child.module_hash)
            for id, child in self.children.items()
            if child.kind == kind and id.raw > self.rollout.cursor
        ]

    # steps; each is one message: it is kept whole, or a crash leaves no trace of it

    def look(self, *, crashes: bool = False) -> WaveStep | None:
        """Plan what comes next; None where a wave is in flight."""
        if self.wave is not None:
            return None
        self.retries.sort(key=lambda retry: (retry.due_ns, retry.flight.child))
        self.moved.sort(key=lambda each: (each.stage, each.former_hash, each.child))
        self.read_count = 0
        ready = Ready(
            self._counted(self.retries), self._counted(self._candidates()), self._counted(self.moved), 7
        )
        step = plan_wave(self.order, self.rollout, ready, self.now_ns)
        assert self.read_count <= max(2 * self.rollout.concurrency + 2 + 7, 500)
        if crashes:
            return None
        self.rollout = saved(step.rollout)
        for retry in step.taken:
            self.retries.remove(retry)
        for each in step.moved_out:
            self.moved.remove(each)
        self.moved.extend(saved(each) for each in step.moved_in)
        self._keep_failures(step.failures)
        if step.wave is not None:
            self.wave = saved(step.wave)
            self.wire.append(step.wave)
            assert len(step.wave.flights) <= self.rollout.concurrency
        return step

    def carry_out(self, *, is_lost: bool = False, is_refused: bool = False) -> None:
        """Let the node carry out the first wave on the wire."""
        if not self.wire:
            return
        wave = self.wire.popleft()
        if is_refused:
            if self.wave is not None and self.wave.number == wave.number:
                self._keep(plan_refused(self.order, self.rollout, self.wave, "the node is full", self.now_ns))
            return
        answers = {flight.child: self._upgrade(flight.child, wave) for flight in wave.flights}
        if not is_lost:
            self.answers.append((wave, answers))

    def _upgrade(self, id: Principal, wave: Wave) -> Answer:
        child = self.children[id]
        self.touched.add(id)
        if not child.is_there:
            return GONE
        if child.module_hash == wave.to_hash:
            return Answer("unchanged")
        if wave.is_back and child.module_hash != NEW:
            return Answer("skipped", None, 0, "it runs another module")
        if child.faults:
            return child.faults.pop()
        if child.ends is not None:
            return child.ends
        former, child.module_hash = child.module_hash, wave.to_hash
        if wave.is_back:
            assert id in self.went_forward, "going back touches only those that went forward"
        else:
            self.went_forward.add(id)
        return Answer("upgraded", former)

    def hear(self, at: int = 0, *, crashes: bool = False) -> ResultStep | None:
        """Take an answer from the wire; one of a wave that nobody waits for any more says nothing."""
        if not self.answers:
            return None
        self.answers.rotate(-at)
        wave, answers = self.answers.popleft()
        if self.wave is None or self.wave.number != wave.number:
            return None
        step = plan_results(self.order, self.rollout, self.wave, answers, self.now_ns)
        if crashes:
            self.answers.appendleft((wave, answers))
            return None
        for id, answer in answers.items():
            is_build = answer.tag == "failed" and answer.code == 5 and answer.error_code != "IC0512"
            self.faulty = self.faulty | {id} if is_build else self.faulty - {id}
        self._keep(step)
        return step

    def wait(self, seconds: int) -> None:
        self.now_ns += seconds * SECOND_NS
        wave = self.wave
        if wave is not None and self.now_ns - wave.sent_ns > self.order.rule.deadline_ns and not self.wire:
            self.answers.clear()
            self._keep(plan_no_answer(self.order, self.rollout, wave, self.now_ns))

    def _keep(self, step: ResultStep) -> None:
        self.rollout = saved(step.rollout)
        self.wave = None
        for landing in step.landings:
            assert sum(x is not None for x in (landing.moved, landing.retry, landing.failure)) <= 1
            if landing.moved is not None:
                self.moved.append(saved(landing.moved))
            if landing.retry is not None:
                self.retries.append(saved(landing.retry))
            if landing.failure is not None:
                self._keep_failures((landing.failure,))

    def _keep_failures(self, failures: Iterable[Failure]) -> None:
        for failure in failures:
            self.failures[failure.child] = saved(failure)

    # to the end

    def finish(self) -> str:
        """Let everything run without losses until nothing is left to do; return the phase."""
        for _ in range(2_000):
            while self.wire:
                self.carry_out()
            while self.answers:
                self.hear()
            self.check()
            if self.wave is not None:
                self.wait(1)
                continue
            step = self.look()
            assert step is not None
            if step.wave is None and step.look_ns is None and step.rollout == self.rollout:
                return str(self.rollout.phase.tag)
            if step.look_ns is not None and step.wave is None:
                self.now_ns = max(self.now_ns, step.look_ns)
        raise AssertionError("the rollout does not end")

    # laws

    def check(self) -> None:
        """Check what holds between any two steps."""
        counts = self.rollout.counts
        in_flight = 0 if self.wave is None else len(self.wave.flights)
        settled = counts.forward + counts.unchanged + counts.skipped + counts.quarantined + counts.given_up
        assert counts.selected == settled + counts.back + counts.waiting + in_flight
        assert counts.waiting == len(self.retries)
        assert counts.forward == len(self.moved)
        assert counts.quarantined == sum(failure.is_quarantined for failure in self.failures.values())
        assert all(failure.reason for failure in self.failures.values())

    def check_end(self) -> None:
        """Check that each child ended on the release, on its former one, or quarantined with its reason."""
        self.check()
        assert not self.retries
        assert self.wave is None
        tag = self.rollout.phase.tag
        for id, child in self.children.items():
            failure = self.failures.get(id)
            if failure is not None and failure.is_quarantined:
                continue
            wanted = {self.original[id]}
            if tag in ("done", "cancelled") and id in self.touched:
                wanted.add(NEW)
            assert child.module_hash in wanted, (tag, id, child, failure)
            if tag == "done" and id in self.touched and child.is_there and child.ends is None:
                assert child.module_hash == NEW


def randomly(world: World, chance: Random, steps: int) -> None:
    """Let anything happen in any order: losses, crashes, late answers, refusals, time."""
    for _ in range(steps):
        match chance.randrange(8):
            case 0 | 1:
                world.look(crashes=chance.random() < 0.2)
            case 2 | 3:
                world.carry_out(is_lost=chance.random() < 0.2, is_refused=chance.random() < 0.1)
            case 4 | 5:
                at = chance.randrange(max(1, len(world.answers)))
                world.hear(at, crashes=chance.random() < 0.2)
            case 6:
                world.wait(chance.choice([1, 10, 40, 700]))
            case _:
                if chance.random() < 0.05:
                    chance.choice(list(world.children.values())).is_there = False
        world.check()
