"""Children that leave: emptied for the pool, or deleted, or handed over to their owner.

Leaving goes in steps that may each be repeated: stop (calls under way end first, for a bounded time, then
they are turned into rejects), empty, take the cycles back, and start again for the pool or delete. A step
that fails is tried again with growing pauses, a deletion from the stop on; one whose answer was lost is sent
again. What an owner has taken control of is left to them.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableMap,
    continuation,
    nat16,
    nat64,
    record,
    timer,
    update,
)
from cannery.cdk.calls import Call
from cannery.cdk.component import Component, Uses, siblings_of
from cannery.cdk.management import (
    CanisterIdArg,
    CanisterSettings,
    Management,
    StopCanisterArgs,
    TakeCyclesArgs,
    UpdateSettingsArgs,
)
from cannery.errors import RejectCode
from cannery.fleet.alarms import Alarms
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child, ChildState, LeaveResult, Leaving
from cannery.fleet.nursery import Nursery
from cannery.fleet.rights import NO_CONTROLLER, require_operator
from cannery.fleet.treasury import Treasury
from cannery.limits import LEAVING_COUNT_MAX, LEAVING_PER_TICK_COUNT_MAX

SECOND_NS = 1_000_000_000
LOST_NS = 600 * SECOND_NS
PAUSE_S_MAX = 300
STEPS_RECYCLE = ("stop", "empty", "take", "start")
STEPS_DELETE = ("stop", "empty", "take", "delete")


@record
class Step:
    """A step that was sent."""

    canister: Principal
    step: nat16


@runtime_checkable
class Watcher(Protocol):
    """A component of the same index that wants to hear at once of a child that leaves."""

    def note_leaving(self, ctx: Context, canister: Principal) -> None:
        """Go on without a child."""


class Departures(Component, prefix="fleet.departures"):
    """Empty, delete and hand over children."""

    alarms = Uses(Alarms)
    directory = Uses(Directory)
    nursery = Uses(Nursery)
    treasury = Uses(Treasury)
    leaving = StableMap(Principal, Leaving, counted=True)
    handing = StableMap(Principal, nat64)

    # methods

    @update
    def fleet_recycle(self, ctx: Context, canister: Principal) -> LeaveResult:
        """Empty a child and put its canister into the pool; its owner may have another child at once."""
        require_operator(ctx)
        return self.begin(ctx, canister, recycle=True)

    @update
    def fleet_delete(self, ctx: Context, canister: Principal) -> LeaveResult:
        """Delete a child with all it holds; its cycles come back to the index."""
        require_operator(ctx)
        return self.begin(ctx, canister, recycle=False)

    # for the author

    def begin(self, ctx: Context, canister: Principal, *, recycle: bool) -> LeaveResult:
        """Send a child on its way out, once: asked again it goes on."""
        child = self.directory.get(canister)
        if child is None:
            return LeaveResult.unknown(f"{canister} is no child of this index")
        if child.state.tag == "in_custody":
            return LeaveResult.busy(f"{canister} is in its owner's custody: this index does not control it")
        if self.directory.replacing.get(canister) is not None:
            return LeaveResult.busy(f"{canister} is being replaced: ask again in a moment")
        if child.state.tag == "replaced" and recycle:
            return LeaveResult.unknown(f"{canister} was replaced by {child.state.replaced}: name that one")
        if self.directory.is_joint(canister) and recycle:
            return LeaveResult.busy(f"{canister} is controlled by its owner too: delete it instead")
        if self.leaving.get(canister) is not None:
            return LeaveResult.ok()
        if len(self.leaving) >= LEAVING_COUNT_MAX:
            return LeaveResult.busy(f"{LEAVING_COUNT_MAX} children are leaving already: ask again later")
        self.directory.set_state(child, ChildState.leaving())
        self.alarms.end(ctx, "quarantined", str(canister), "it leaves")
        self._send(ctx, canister, Leaving(recycle, 0, 0, ctx.now_ns, 0))
        for each in siblings_of(self):
            if isinstance(each, Watcher):
                each.note_leaving(ctx, canister)
        return LeaveResult.ok()

    def collect(self, ctx: Context, canister: Principal, *, recycle: bool = True) -> None:
        """Empty a canister that is no child and put it into the pool, or delete it."""
        if self.leaving.get(canister) is None and len(self.leaving) < LEAVING_COUNT_MAX:
            self._send(ctx, canister, Leaving(recycle, 0, 0, ctx.now_ns, 0))

    def note_custody(self, ctx: Context, child: Child, text: str) -> None:
        """Note that somebody else controls a child: the index has no power over it any more."""
        self.leaving.delete(child.canister)
        self.directory.set_state(child, ChildState.in_custody())
        self.alarms.end(ctx, "quarantined", str(child.canister), "somebody else controls it")
        self.alarms.begin(ctx, "custody_taken", str(child.canister), text)

    def note_return(self, ctx: Context, child: Child) -> Child:
        """Note that an owner lets the index control a child again."""
        self.directory.note_joint(child.canister)
        self.alarms.end(ctx, "custody_taken", str(child.canister), "its owner has given control back")
        return self.directory.set_state(child, ChildState.active())

    def joint_call(self, ctx: Context, canister: Principal, owners: list[Principal]) -> Call[None]:
        """Return the call that lets owners control a child beside the index, which goes on to fund, watch and
        upgrade it as long as it is among the controllers. The child is no member of the fleet from then on.
        """
        self.directory.note_joint(canister)
        return Management().update_settings(
            UpdateSettingsArgs(canister, CanisterSettings(controllers=[*owners, ctx.id]))
        )

    def hand_over_call(self, ctx: Context, canister: Principal, controllers: list[Principal]) -> Call[None]:
        """Return the call that gives a child's control to others; `handed_over` books its success."""
        self.handing.put(canister, ctx.now_ns)
        return Management().update_settings(
            UpdateSettingsArgs(canister, CanisterSettings(controllers=controllers))
        )

    def handed_over(self, ctx: Context, canister: Principal) -> None:
        """Note that a child's control was given to its owner, who asked for it: that is no alarm."""
        self.handing.delete(canister)
        child = self.directory.get(canister)
        if child is not None:
            self.directory.set_state(child, ChildState.in_custody())
            self.alarms.end(ctx, "quarantined", str(canister), "its owner controls it")

    def is_handed_over(self, ctx: Context, canister: Principal) -> bool:
        """Say whether a child is being handed over to its owner now."""
        begun_ns = self.handing.get(canister)
        return begun_ns is not None and ctx.now_ns - begun_ns < LOST_NS

    # steps

    def _send(self, ctx: Context, canister: Principal, leaving: Leaving) -> Pending[None] | None:
        """Send the step that is due, and look after it in case its answer is lost."""
        self.leaving.put(canister, _sent(leaving, ctx.now_ns))
        try:
            return ctx.call(_call(canister, leaving), then=self.stepped, saved=Step(canister, leaving.step))
        except Reject as reject:
            ctx.log(f"{canister} leaves later: {reject.message}")
            self._pause(ctx, canister, leaving)
            return None

    def _pause(self, ctx: Context, canister: Principal, leaving: Leaving) -> None:
        tries = leaving.tries + 1
        # Whoever could start it again meanwhile keeps it from being deleted: it is stopped once more.
        step = 0 if _steps(leaving)[leaving.step] == "delete" else leaving.step
        self.leaving.put(canister, Leaving(leaving.recycle, step, tries, leaving.since_ns, ctx.now_ns))
        ctx.timer_set(self.go_on, after_s=min(PAUSE_S_MAX, 2 ** min(tries, 10)), saved=canister)

    @continuation
    def stepped(self, ctx: Context, outcome: Outcome[None], saved: Step) -> None:
        """Go on with the next step, or try this one again."""
        canister = saved.canister
        leaving, child = self.leaving.get(canister), self.directory.get(canister)
        if leaving is None or leaving.step != saved.step:
            return
        if outcome.ok or outcome.reject_code == RejectCode.DESTINATION_INVALID:
            steps = _steps(leaving)
            if saved.step + 1 < len(steps) and outcome.ok:
                following = Leaving(leaving.recycle, saved.step + 1, 0, leaving.since_ns, 0)
                self._send(ctx, canister, following)
            else:
                self.alarms.end_of(ctx, canister)
                self._end(canister, leaving, child, is_gone=not outcome.ok)
        elif outcome.error_code == NO_CONTROLLER:
            self.leaving.delete(canister)
            if child is not None:
                self.note_custody(ctx, child, outcome.reject_message)
        else:
            ctx.log(f"{canister} is not out yet ({_steps(leaving)[leaving.step]}): {outcome.reject_message}")
            self._pause(ctx, canister, leaving)

    def _end(self, canister: Principal, leaving: Leaving, child: Child | None, *, is_gone: bool) -> None:
        self.leaving.delete(canister)
        if child is not None:
            self.directory.forget(child)
            self.treasury.forget(canister)
        if leaving.recycle and not is_gone:
            self.nursery.keep(canister)

    @timer
    def go_on(self, ctx: Context, saved: Principal) -> None:
        """Try a step again."""
        leaving = self.leaving.get(saved)
        if leaving is not None:
            self._send(ctx, saved, leaving)

    def recover(self, ctx: Context) -> int:
        """Send steps again whose answer a forced stop has dropped; return how many."""
        lost = [
            (canister, leaving)
            for canister, leaving in self.leaving.items(limit=LEAVING_COUNT_MAX)
            if ctx.now_ns - leaving.sent_ns > LOST_NS
        ]
        for canister, leaving in lost[:LEAVING_PER_TICK_COUNT_MAX]:
            self._send(ctx, canister, leaving)
        return min(len(lost), LEAVING_PER_TICK_COUNT_MAX)


def _sent(leaving: Leaving, now_ns: int) -> Leaving:
    return Leaving(leaving.recycle, leaving.step, leaving.tries, leaving.since_ns, now_ns)


def _steps(leaving: Leaving) -> tuple[str, ...]:
    return STEPS_RECYCLE if leaving.recycle else STEPS_DELETE


def _call(canister: Principal, leaving: Leaving) -> Call[None]:
    """Return the call of the step that is due; stopping is forced once it did not end in time."""
    management, target = Management(), CanisterIdArg(canister)
    match _steps(leaving)[leaving.step]:
        case "stop" if leaving.tries:
            return management.cannery_stop_canister(StopCanisterArgs(canister, force=True))
        case "stop":
            return management.stop_canister(target)
        case "empty":
            return management.uninstall_code(target)
        case "start":
            return management.start_canister(target)
        case "take":
            return management.cannery_cycles_take(TakeCyclesArgs(canister, None))
        case _:
            return management.delete_canister(target)
