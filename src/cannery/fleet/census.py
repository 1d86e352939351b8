"""The census of a fleet: a look at every child, in pages, again and again.

A sweep asks the node for the figures of a page of children at a time, so that no message is long and nothing
waits for it. It adds up what the fleet has, notes when children were last active, puts right what its
directory has wrong (a child that was upgraded, deleted or taken over behind its back), and shows each child
to whom it concerns: funding above all. An idle child costs its share of a page, once in `every_s`.
"""

from __future__ import annotations

from dataclasses import replace

from cannery import (
    Context,
    Outcome,
    Principal,
    Reject,
    StableCell,
    StableMap,
    continuation,
    nat,
    nat32,
    nat64,
    query,
    record,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import (
    CanisterInfo,
    CanisterInfoArgs,
    CanisterReport,
    Management,
    StatusManyResult,
)
from cannery.errors import RejectCode
from cannery.fleet.alarms import Alarms
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child
from cannery.fleet.funding_types import Cause
from cannery.fleet.nursery import Nursery
from cannery.fleet.orphans import Orphans
from cannery.fleet.registry import Registry
from cannery.fleet.rights import require_operator
from cannery.fleet.treasury import Treasury
from cannery.limits import CENSUS_EVERY_S_MIN, CENSUS_KIND_COUNT_MAX, CENSUS_PAGE_COUNT

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS
STUCK_NS = 600 * SECOND_NS
EVERY_S = 3_600
RETRY_S = 60


@record
class Totals:
    """What the children of a kind have and did, added up by a sweep; `active_day` were active within a day
    of it. `burned` to `traps` count from each child's creation."""

    kind: str
    children: nat64
    frozen: nat64
    stopped: nat64
    active_day: nat64
    memory_size: nat
    key_count: nat64
    cycles: nat
    burned: nat
    messages: nat64
    rejects: nat64
    traps: nat64
    queued: nat64
    idle_burned_per_day: nat


@record
class CensusReport:
    """The last whole sweep, and how far the present one is (None: none is under way)."""

    every_s: nat32
    totals: list[Totals]
    begun_ns: nat64
    ended_ns: nat64
    sweeping_at: nat64 | None


@record
class Sweep:
    """Where the present sweep is: the children up to `after` are looked at."""

    is_on: bool
    after: nat64 | None
    begun_ns: nat64
    sent_ns: nat64


NO_SWEEP = Sweep(False, None, 0, 0)


class Census(Component, prefix="fleet.census"):
    """Look at every child, and add up what the fleet has."""

    alarms = Uses(Alarms)
    directory = Uses(Directory)
    departures = Uses(Departures)
    nursery = Uses(Nursery)
    orphans = Uses(Orphans)
    registry = Uses(Registry)
    treasury = Uses(Treasury)
    every_s = StableCell(nat32, EVERY_S)
    timer_number = StableCell(nat64 | None, None)
    sweep = StableCell(Sweep, NO_SWEEP)
    growing = StableMap(str, Totals)
    totals = StableMap(str, Totals)
    last_sweep = StableCell(tuple[nat64, nat64], (0, 0))

    # methods

    @query
    def fleet_census(self, ctx: Context) -> CensusReport:
        """Return what the fleet has in all, by kind, as the last whole sweep found it."""
        require_operator(ctx)
        sweep = self.sweep.get()
        begun_ns, ended_ns = self.last_sweep.get()
        return CensusReport(
            self.every_s.get(),
            list(self.totals.values()),
            begun_ns,
            ended_ns,
            (sweep.after or 0) if sweep.is_on else None,
        )

    @update
    def fleet_census_set(self, ctx: Context, every_s: nat32) -> None:
        """Sweep every so many seconds, from now on."""
        require_operator(ctx)
        if every_s < CENSUS_EVERY_S_MIN:
            ctx.reject(
                f"a sweep begins every {CENSUS_EVERY_S_MIN} s at the most often, not every {every_s} s"
            )
        self.every_s.set(every_s)
        self._set_timer(ctx)

    @update
    def fleet_census_take(self, ctx: Context) -> None:
        """Begin a sweep now, unless one is under way."""
        require_operator(ctx)
        self.begin(ctx)

    @update
    def fleet_left(self, ctx: Context, members: list[Principal]) -> None:
        """Hear from the node that canisters are no members any more; nobody else may say so."""
        if ctx.caller != Principal.management():
            ctx.reject("fleet_left is for the node")
        for canister in members[:CENSUS_PAGE_COUNT]:
            child = self.directory.get(canister)
            if child is None or child.state.tag != "active":
                continue
            if self.departures.is_handed_over(ctx, canister):
                self.departures.handed_over(ctx, canister)
            else:
                self._ask_after(ctx, child)

    # for the other components

    def keep(self, ctx: Context) -> None:
        """See that sweeps go on: whoever gives the fleet its first child or rule calls this."""
        if self.timer_number.get() is None:
            self._set_timer(ctx)

    def begin(self, ctx: Context) -> None:
        """Begin a sweep; one that has lost an answer goes on where it was."""
        sweep = self.sweep.get()
        if not sweep.is_on:
            self.growing.clear()
            self.departures.recover(ctx)
            self.treasury.recover(ctx)
            self.nursery.recover(ctx)
            self.orphans.look(ctx)
            self._ask(ctx, Sweep(True, None, ctx.now_ns, 0))
        elif ctx.now_ns - sweep.sent_ns >= STUCK_NS:
            self._ask(ctx, sweep)

    def look(self, ctx: Context, child: Child, report: CanisterReport) -> None:
        """Book what a report says of a child; whoever acts on it is called from here."""
        self.directory.note_active(child.canister, report.active_ns)
        self.treasury.look(ctx, child, report, Cause.census())
        if ctx.id not in report.controllers:
            if child.state.tag == "active":
                self.departures.note_custody(ctx, child, f"{ctx.id} is no controller of {child.canister}")
        elif report.kind == child.kind and report.version is not None and report.version != child.version:
            self.directory.set_versions([(child, report.version)])
        elif self.directory.is_joint(child.canister) and child.state.tag == "active":
            self._look_at_joint(ctx, child, report.module_hash)

    def _look_at_joint(self, ctx: Context, child: Child, module_hash: bytes | None) -> None:
        """Note what a child runs whose owner controls it too; with other code it is the owner's alone."""
        version = 0 if module_hash is None else self.registry.version_of(child.kind, module_hash)
        if not version:
            self.departures.note_custody(ctx, child, f"{child.canister} runs no release of {child.kind}")
        else:
            self.directory.set_versions([(child, version)])

    # a sweep

    def _set_timer(self, ctx: Context) -> None:
        number = self.timer_number.get()
        if number is not None:
            ctx.timer_cancel(number)
        self.timer_number.set(ctx.timer_set(self.tick, every_s=self.every_s.get()))

    @timer
    def tick(self, ctx: Context) -> None:
        """Begin a sweep."""
        self.begin(ctx)

    @timer
    def retry(self, ctx: Context) -> None:
        """Ask again for a page that could not be had."""
        sweep = self.sweep.get()
        if sweep.is_on:
            self._ask(ctx, sweep)

    def _ask(self, ctx: Context, sweep: Sweep) -> None:
        page = self.directory.by_number.page(after=sweep.after, limit=CENSUS_PAGE_COUNT)
        self.sweep.set(replace(sweep, sent_ns=ctx.now_ns))
        if not page.items:
            self._end(ctx, sweep)
            return
        call = Management().cannery_status_many([canister for _, canister in page.items])
        try:
            ctx.call(call, then=self.told, saved=replace(sweep, after=page.items[-1][0]))
        except Reject as reject:
            ctx.log(f"the census waits: {reject.message}")
            ctx.timer_set(self.retry, after_s=RETRY_S)

    @continuation
    def told(self, ctx: Context, outcome: Outcome[list[StatusManyResult]], saved: Sweep) -> None:
        """Look at a page of children, and ask for the next one."""
        if not self.sweep.get().is_on or self.sweep.get().begun_ns != saved.begun_ns:
            return
        if not outcome.ok:
            ctx.log(f"the census waits: {outcome.reject_message}")
            ctx.timer_set(self.retry, after_s=RETRY_S)
            return
        sums = dict(self.growing.items())
        for result in outcome.value:
            child = self.directory.get(result.canister_id)
            if child is not None and result.status is not None:
                self.look(ctx, child, result.status)
                _add_up(sums, child, result.status, ctx.now_ns)
            elif child is not None and result.is_gone and child.state.tag != "leaving":
                self._forget(ctx, child)
            elif child is not None and child.state.tag == "active":
                self._ask_after(ctx, child)
        for kind, totals in sums.items():
            self.growing.put(kind, totals)
        self.treasury.looked(ctx)
        self._ask(ctx, saved)

    def _end(self, ctx: Context, sweep: Sweep) -> None:
        self.totals.clear()
        for kind, totals in self.growing.items():
            self.totals.put(kind, totals)
        self.last_sweep.set((sweep.begun_ns, ctx.now_ns))
        self.sweep.set(NO_SWEEP)

    def _ask_after(self, ctx: Context, child: Child) -> None:
        """Find out whether a child without figures is gone, or somebody else's."""
        args = CanisterInfoArgs(child.canister, 0)
        try:
            ctx.call(Management().canister_info(args), then=self.found_out, saved=child.canister)
        except Reject as reject:
            ctx.log(f"{child.canister} is looked after in the next census: {reject.message}")

    @continuation
    def found_out(self, ctx: Context, outcome: Outcome[CanisterInfo], saved: Principal) -> None:
        """Forget a child that is gone; note one that somebody else controls."""
        child = self.directory.get(saved)
        if child is None or child.state.tag != "active":
            return
        if outcome.ok:
            if ctx.id not in outcome.value.controllers:
                self.departures.note_custody(ctx, child, f"{ctx.id} is no controller of {saved}")
            elif self.directory.is_joint(saved):
                self._look_at_joint(ctx, child, outcome.value.module_hash)
            elif self.directory.replacing.get(saved) is None:
                text = f"{saved} is no member any more: somebody else controls it too, or it runs other code"
                self.departures.note_custody(ctx, child, text)
        elif outcome.reject_code == RejectCode.DESTINATION_INVALID:
            self._forget(ctx, child)

    def _forget(self, ctx: Context, child: Child) -> None:
        """Forget a child that somebody else has deleted: its owner, where it was in their custody."""
        ctx.log(f"{child.canister}, the {child.kind} of {child.owner}, was deleted by somebody else")
        self.directory.forget(child)
        self.treasury.forget(child.canister)
        self.alarms.end_of(ctx, child.canister)


def _add_up(sums: dict[str, Totals], child: Child, report: CanisterReport, now_ns: int) -> None:
    """Add a child's figures to those of its kind; kinds beyond the bound are left out."""
    before = sums.get(child.kind)
    if before is None:
        if len(sums) >= CENSUS_KIND_COUNT_MAX:
            return
        before = Totals(child.kind, *(0,) * 13)
    sums[child.kind] = Totals(
        child.kind,
        before.children + 1,
        before.frozen + report.frozen,
        before.stopped + (report.running.tag != "running"),
        before.active_day + (now_ns - report.active_ns < DAY_NS),
        before.memory_size + report.memory_size,
        before.key_count + report.key_count,
        before.cycles + report.cycles,
        before.burned + report.burned,
        before.messages + report.messages,
        before.rejects + report.rejects,
        before.traps + report.traps,
        before.queued + report.queued,
        before.idle_burned_per_day + report.idle_burned_per_day,
    )
