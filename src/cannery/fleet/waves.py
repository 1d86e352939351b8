"""The waves of rollouts: sends them, books what they brought, and looks again when something is due.

`rollout_wave` and `rollout_results` decide; here their records are kept, the node is called, and the
directory, the registry and the alarms learn what happened. Each step is one message, so a crash finds either
all of it or nothing. One durable timer for each rollout wakes it: for the next try, or because a wave has no
answer. Which rollouts there are, and who may order them, is `rollouts`'.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import islice

from cannery import (
    Context,
    Outcome,
    Principal,
    Reject,
    StableMap,
    continuation,
    nat32,
    nat64,
    record,
    timer,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import Management, UpgradeManyArgs, UpgradeResult
from cannery.errors import RejectCode
from cannery.fleet.alarms import Alarms
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child, ChildState
from cannery.fleet.registry import Registry
from cannery.fleet.rollout import (
    FORWARD,
    Failure,
    Moved,
    Order,
    Retry,
    Rollout,
    Wave,
    is_stalled,
    plan_born,
)
from cannery.fleet.rollout_filter import Candidate, decode_place, encode_place
from cannery.fleet.rollout_results import (
    Answer,
    Landing,
    ResultStep,
    plan_no_answer,
    plan_refused,
    plan_results,
)
from cannery.fleet.rollout_wave import Ready, WaveStep, plan_wave
from cannery.limits import (
    ROLLOUT_ALARM_COUNT_MAX,
    ROLLOUT_STEPS_PER_MESSAGE_COUNT_MAX,
    ROLLOUT_SWEEP_COUNT_MAX,
)


@record
class SentWave:
    """A wave that was sent."""

    rollout: nat64
    wave: nat64


class Waves(Component, prefix="fleet.waves"):
    """Carry rollouts out."""

    alarms = Uses(Alarms)
    directory = Uses(Directory)
    registry = Uses(Registry)
    orders = StableMap(nat64, Order)
    rollouts = StableMap(nat64, Rollout, counted=True)
    latest = StableMap(str, nat64)
    waves = StableMap(nat64, Wave)
    retries = StableMap(tuple[nat64, nat64, Principal], Retry)
    moved = StableMap(tuple[nat64, nat32, bytes, Principal], nat64)
    failures = StableMap(tuple[nat64, Principal], Failure)
    timers = StableMap(nat64, tuple[nat64, nat64])
    forgetting = StableMap(nat64, bool)

    # driving

    def go_on(self, ctx: Context, id: int) -> None:
        """Do what is due of a rollout now, and see to it that the rest is done in its time."""
        for _ in range(ROLLOUT_STEPS_PER_MESSAGE_COUNT_MAX):
            order, rollout = self.orders[id], self.rollouts[id]
            if self.waves.get(id) is not None:
                self._wake(ctx, id, rollout.look_ns)
                return
            step = plan_wave(order, rollout, self._ready(order, rollout), ctx.now_ns)
            self._book_step(ctx, id, step)
            if step.wave is not None:
                self._send(ctx, id, order, step.wave)
            elif step.look_ns is None:
                return
            elif step.look_ns > ctx.now_ns:
                self._wake(ctx, id, step.look_ns)
                return
        self._wake(ctx, id, ctx.now_ns)

    def _send(self, ctx: Context, id: int, order: Order, wave: Wave) -> None:
        target = order.targets[wave.stage]
        args = UpgradeManyArgs(
            wave.to_hash,
            b"" if wave.is_back else order.arg,
            [flight.child for flight in wave.flights],
            wave.is_back or order.force,
            target.module_hash if wave.is_back else None,
            None if wave.is_back else order.filter.active_since_ns,
            None if wave.is_back else order.skip_pre_upgrade,
        )
        call = Management().cannery_upgrade_many(args)
        try:
            ctx.call(call, then=self.landed, saved=SentWave(id, wave.number))
        except Reject as reject:
            step = plan_refused(order, self.rollouts[id], wave, reject.message, ctx.now_ns)
            self._book_results(ctx, id, wave, step)

    @continuation
    def landed(self, ctx: Context, outcome: Outcome[list[UpgradeResult]], saved: SentWave) -> None:
        """Book what a wave brought and send the next; what comes too late says nothing."""
        id = saved.rollout
        wave = self.waves.get(id)
        if wave is None or wave.number != saved.wave:
            return
        order, rollout = self.orders[id], self.rollouts[id]
        if outcome.ok:
            answers = {each.canister_id: self._answer(each) for each in outcome.value}
            step = plan_results(order, rollout, wave, answers, ctx.now_ns)
        elif outcome.reject_code == RejectCode.SYS_UNKNOWN:
            step = plan_no_answer(order, rollout, wave, ctx.now_ns)
        else:
            step = plan_refused(order, rollout, wave, outcome.reject_message, ctx.now_ns)
        self._book_results(ctx, id, wave, step)
        self.go_on(ctx, id)

    def _answer(self, result: UpgradeResult) -> Answer:
        outcome = result.outcome
        if outcome.tag == "upgraded":
            return Answer("upgraded", outcome.upgraded.from_module)
        if outcome.tag == "unchanged":
            return Answer("unchanged")
        if outcome.tag == "skipped":
            return Answer("skipped", text=outcome.skipped)
        child = self.directory.get(result.canister_id)
        if child is None or child.state.tag != "active":
            return Answer("skipped", text="it left while it was waiting")
        failed = outcome.failed
        return Answer("failed", failed.from_module, failed.code, failed.text, failed.error_code)

    @timer
    def look(self, ctx: Context, saved: nat64) -> None:
        """Look after a rollout: something is due, or a wave has no answer."""
        self.timers.delete(saved)
        if saved in self.forgetting:
            self._forget(ctx, saved)
            return
        rollout, wave = self.rollouts.get(saved), self.waves.get(saved)
        if rollout is None:
            return
        if wave is not None and ctx.now_ns >= rollout.look_ns:
            step = plan_no_answer(self.orders[saved], rollout, wave, ctx.now_ns)
            self._book_results(ctx, saved, wave, step)
        self.go_on(ctx, saved)

    def _wake(self, ctx: Context, id: int, at_ns: int) -> None:
        """Set the rollout's timer, unless it rings before that anyway."""
        known = self.timers.get(id)
        if known is not None and ctx.now_ns < known[1] <= at_ns:
            return
        if known is not None:
            ctx.timer_cancel(known[0])
        self.timers.put(id, (ctx.timer_set(self.look, at_ns=at_ns, saved=id), at_ns))

    # what stands ready

    def _ready(self, order: Order, rollout: Rollout) -> Ready:
        id = rollout.id
        return Ready(
            (retry for _, retry in self.retries.items(prefix=(id,))),
            self._candidates(order, rollout),
            (Moved(key[3], key[1], key[2], version) for key, version in self.moved.items(prefix=(id,))),
        )

    def _candidates(self, order: Order, rollout: Rollout) -> Iterator[Candidate]:
        """Read the children of the stage that are not on its release, newest version first, by number."""
        target = order.targets[rollout.stage]
        if order.filter.include:
            yield from self._included(order.filter.include, target.kind, rollout.cursor)
            return
        version_after, number_after = decode_place(rollout.cursor)
        wanted = order.filter.versions or self.directory.versions(target.kind)
        for version in sorted(wanted, reverse=True):
            if version > version_after or version == target.version:
                continue
            start = (target.kind, version, number_after + 1 if version == version_after else 0)
            for _, canister in self.directory.by_version.items(start=start, prefix=(target.kind, version)):
                yield self.candidate(self.directory.children[canister])

    def _included(self, include: list[Principal], kind: str, cursor: bytes) -> Iterator[Candidate]:
        start = decode_place(cursor)[1] + 1 if cursor else 0
        for at, canister in islice(enumerate(include), start, None):
            child = self.directory.get(canister)
            if child is not None and child.kind == kind:
                yield replace(self.candidate(child), place=encode_place(0, at))

    def candidate(self, child: Child) -> Candidate:
        """Return a child as the plans see it."""
        release = self.registry.get(child.kind, child.version)
        return Candidate(
            encode_place(child.version, child.number),
            child.canister,
            child.version,
            b"" if release is None else release.module_hash,
            child.state.tag == "active",
        )

    # books

    def _book_step(self, ctx: Context, id: int, step: WaveStep) -> None:
        for retry in step.taken:
            self.retries.delete((id, retry.due_ns, retry.flight.child))
        for each in step.moved_out:
            self.moved.delete((id, each.stage, each.former_hash, each.child))
        for each in step.moved_in:
            self._put_moved(id, each)
        if step.wave is not None:
            self.waves.put(id, step.wave)
        self.put(ctx, step.rollout)
        for failure in step.failures:
            self._put_failure(ctx, id, failure)

    def _book_results(self, ctx: Context, id: int, wave: Wave, step: ResultStep) -> None:
        self.waves.delete(id)
        self.put(ctx, step.rollout)
        kind = self.orders[id].targets[wave.stage].kind
        version_of = cache(lambda module_hash: self.registry.version_of(kind, module_hash))
        arrived: list[tuple[Child, int]] = []
        for landing in step.landings:
            self._book_landing(ctx, id, landing, version_of, arrived)
        self.directory.set_versions(arrived)
        if self.alarms.open:
            for child, version in arrived:
                self.alarms.end(ctx, "quarantined", str(child.canister), f"it runs {kind} {version}")

    def _book_landing(
        self,
        ctx: Context,
        id: int,
        landing: Landing,
        version_of: Callable[[bytes], int],
        arrived: list[tuple[Child, int]],
    ) -> None:
        """Book what became of a child; one that is on a release now, with its version, joins `arrived`."""
        child = self.directory.get(landing.child)
        if landing.now_on is not None and child is not None:
            module_hash, version = landing.now_on
            arrived.append((child, version or version_of(module_hash)))
        if landing.moved is not None:
            known = version_of(landing.moved.former_hash)
            self._put_moved(id, replace(landing.moved, former_version=known))
        if landing.retry is not None:
            self.put_retry(id, landing.retry)
        if landing.failure is not None:
            self._put_failure(ctx, id, landing.failure)
            if landing.is_out_of_hand and child is not None:
                self.directory.set_state(child, ChildState.in_custody())
                self.alarms.end(ctx, "quarantined", str(child.canister), "somebody else controls it")
                self.alarms.begin(ctx, "custody_taken", str(child.canister), landing.failure.reason)

    def _put_moved(self, id: int, each: Moved) -> None:
        self.moved.put((id, each.stage, each.former_hash, each.child), each.former_version)

    def put_retry(self, id: int, retry: Retry) -> None:
        """Let a child wait for its next try."""
        self.retries.put((id, retry.due_ns, retry.flight.child), retry)

    def _put_failure(self, ctx: Context, id: int, failure: Failure) -> None:
        self.failures.put((id, failure.child), failure)
        child = self.directory.get(failure.child)
        if not failure.is_quarantined or child is None or child.state.tag != "active":
            return
        text = (
            f"rollout {id} leaves {failure.child} on {failure.from_version}, not on {failure.to_version}: "
            f"{failure.reason}"
        )
        is_one_of_few = self.rollouts[id].counts.quarantined <= ROLLOUT_ALARM_COUNT_MAX
        subject = str(failure.child) if is_one_of_few else f"rollout {id}"
        self.alarms.begin(ctx, "quarantined", subject, text)

    def put(self, ctx: Context, rollout: Rollout, *, is_ordered: bool = False) -> None:
        """Keep a rollout; tell the registry and the alarms what has changed about it, unless an operator did
        it."""
        id, order, before = rollout.id, self.orders[rollout.id], self.rollouts.get(rollout.id)
        self.rollouts.put(id, rollout)
        self._tell_alarms(ctx, order, before, rollout, is_ordered=is_ordered)
        tag = rollout.phase.tag
        if before is None or before.phase.tag == tag:
            return
        if tag == "rolled_back":
            for target in order.targets:
                if self.registry.currents.get(target.kind) == target.version and target.current_before:
                    self.registry.set_current(target.kind, target.current_before)
        if tag == "done" and is_for_all(order):
            for target in order.targets:
                self.registry.set_current(target.kind, target.version)

    def _tell_alarms(
        self, ctx: Context, order: Order, before: Rollout | None, rollout: Rollout, *, is_ordered: bool
    ) -> None:
        subject, tag = f"rollout {rollout.id}", rollout.phase.tag
        was = "" if before is None else before.phase.tag
        if rollout.halted or (tag == "going_back" and was in FORWARD and not is_ordered):
            what = f"it waits: {rollout.problem}" if rollout.halted else "it goes back"
            self.alarms.begin(ctx, "rollout_stopped", subject, f"{rollout.reason}; {what}")
        elif tag != "going_back":
            self.alarms.end(ctx, "rollout_stopped", subject, f"it is {tag}")
        if is_stalled(order, rollout, ctx.now_ns) and not rollout.halted:
            self.alarms.begin(ctx, "rollout_stalled", subject, rollout.problem or "nothing moves any more")
        else:
            self.alarms.end(ctx, "rollout_stalled", subject, f"it is {tag}")
        if not rollout.counts.quarantined:
            self.alarms.end(ctx, "quarantined", subject, "no child is quarantined any more")

    # children that are born meanwhile, rollouts that are forgotten

    def note_born(self, ctx: Context, child: Child) -> None:
        """Bring a child that was made with another release than the fleet is on along with the others."""
        id = self.latest.get(child.kind)
        if id is None:
            return
        order, rollout = self.orders[id], self.rollouts[id]
        if rollout.phase.tag == "done" and self.registry.currents.get(child.kind) == child.version:
            return
        stage = next(at for at, target in enumerate(order.targets) if target.kind == child.kind)
        step = plan_born(order, rollout, self.candidate(child), stage, ctx.now_ns)
        if step is not None:
            self.put_retry(id, step[1])
            self.put(ctx, step[0])
            self.go_on(ctx, id)

    def forget(self, ctx: Context, id: int, *, wholly: bool) -> None:
        """Drop what a rollout needs for its way back, or all of it, a page at a time."""
        self.forgetting.put(id, wholly or self.forgetting.get(id, False))
        self._wake(ctx, id, ctx.now_ns)

    def _forget(self, ctx: Context, id: int) -> None:
        page: list[object] = []
        for key in list(self.moved.keys(prefix=(id,), limit=ROLLOUT_SWEEP_COUNT_MAX)):
            page.append(key)
            self.moved.delete(key)
        if self.forgetting[id]:
            for failed in list(self.failures.keys(prefix=(id,), limit=ROLLOUT_SWEEP_COUNT_MAX)):
                page.append(failed)
                self.failures.delete(failed)
        if page:
            self._wake(ctx, id, ctx.now_ns)
            return
        if self.forgetting[id]:
            self.orders.delete(id)
            self.rollouts.delete(id)
            self.alarms.end(ctx, "quarantined", f"rollout {id}", "another rollout has taken over")
        self.forgetting.delete(id)
        if id in self.rollouts:
            self.go_on(ctx, id)


def is_for_all(order: Order) -> bool:
    """Tell whether a rollout leaves no child of its kinds out."""
    chosen = order.filter
    return not (chosen.versions or chosen.include or chosen.exclude or chosen.active_since_ns is not None)
