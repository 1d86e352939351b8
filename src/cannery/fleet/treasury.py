"""The treasury of a fleet: it sees that children have cycles, and keeps the books of what it gave.

Whoever looks at a child (the census, the node's notice of a low balance) shows it here; a child that is due
by the rule of its kind is topped up, within the quotas and what the index can spare. A top-up is booked in
the message that sends it and released where its cycles come back, so that the books agree with the balances
whatever fails on the way. Few are under way at a time; the others wait and follow one by one. What a rule
is, and a quota, is `top_up`'s and `top_up_quota`'s; who may ask is `funding`'s.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    nat,
    nat64,
    record,
)
from cannery.cdk.calls import Call
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import (
    AlarmSetArgs,
    CanisterIdArg,
    CanisterReport,
    Management,
    StatusManyResult,
)
from cannery.cdk.waiter import Continued, Waiter
from cannery.fleet.alarms import Alarms
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child
from cannery.fleet.funding_types import (
    NO_FUNDS,
    NO_POLICY,
    AlarmOrder,
    Booking,
    Cause,
    ChildFunds,
    FundingPolicy,
    TopUp,
    TopUpEnd,
    TopUpResult,
    Waiting,
)
from cannery.fleet.top_up import (
    Need,
    Purse,
    Reason,
    Refused,
    TopUpRule,
    alarm_of,
    due_cycles,
    line_of,
    plan_top_up,
)
from cannery.fleet.top_up_burn import Reading, add_reading, burned_per_day
from cannery.fleet.top_up_quota import NO_BOOKS, UNLIMITED, Books, Quota, release
from cannery.limits import (
    CYCLES_MINTED_MAX,
    TOP_UP_ALARM_GROUP_COUNT_MAX,
    TOP_UP_HISTORY_COUNT_MAX,
    TOP_UP_LOST_NS,
    TOP_UP_OPEN_COUNT_MAX,
    TOP_UP_WAITING_COUNT_MAX,
)

LOW_BALANCE: Final = "low_balance"
BATTERY_LOW: Final = "battery_low"
QUOTA_REACHED: Final = "fleet_quota_reached"


@record
class DepositFor:
    """A deposit whose outcome goes to a waiter."""

    booking: nat64
    waiter: Waiter


class Treasury(Component, prefix="fleet.treasury"):
    """Top children up, and keep the books."""

    alarms = Uses(Alarms)
    directory = Uses(Directory)
    policy = StableCell(FundingPolicy, NO_POLICY)
    rules = StableMap(str, TopUpRule)
    kind_quotas = StableMap(str, Quota)
    child_quotas = StableMap(Principal, Quota)
    fleet_quota = StableCell(Quota, UNLIMITED)
    fleet_books = StableCell(Books, NO_BOOKS)
    fleet_readings = StableCell(list[Reading], [])
    funds = StableMap(Principal, ChildFunds)
    bookings = StableMap(nat64, Booking, counted=True)
    next_booking = StableCell(nat64, 1)
    waiting = StableMap(Principal, Waiting, counted=True)
    alarms_due = StableSet(tuple[nat64, Principal])
    message_fee = StableCell(nat | None, None)
    dearest_birth = StableCell(nat, 0)

    # for the other components

    def welcome(self, ctx: Context, child: Child, *, is_new: bool = False) -> None:
        """Begin the books of a new child, and let the node watch over its balance from now on. Of a canister
        that `is_new` there are no earlier ones.

        Where no child was looked at before, this one is: what messages cost is not known yet.
        """
        if not is_new:
            self.forget(child.canister)
        self._watch(ctx, child, NO_FUNDS)
        if self.message_fee.get() is None:
            try:
                ctx.call(Management().cannery_status_many([child.canister]), then=self.met)
            except Reject as reject:
                ctx.log(f"{child.canister} is looked at in the next census: {reject.message}")

    @continuation
    def met(self, ctx: Context, outcome: Outcome[list[StatusManyResult]]) -> None:
        """Look at a child that is new."""
        for result in outcome.value if outcome.ok else ():
            child = self.directory.get(result.canister_id)
            if child is not None and result.status is not None:
                self.look(ctx, child, result.status, Cause.census())
        self.looked(ctx)

    def known_need(self, funds: ChildFunds) -> Need:
        """Return what a child needs as it was last seen, at the prices that were last seen."""
        per_day = None if funds.seen is None else burned_per_day(funds.readings, funds.seen)
        return Need(per_day or 0, funds.freezing_limit, self.message_fee.get() or 0)

    def look(self, ctx: Context, child: Child, report: CanisterReport, cause: Cause) -> None:
        """Note what a child has and burns, and top it up where it is due; `looked` follows at the end.

        Of a child without a rule somebody is told who can top it up.
        """
        if report.message_fee != self.message_fee.get():
            self.message_fee.set(report.message_fee)
        rule, before = self.rules.get(child.kind), self.funds.get(child.canister)
        is_priced = report.freezing_limit > 0 or report.message_fee > 0
        is_of_interest = rule is not None or before is not None or is_priced
        if child.state.tag != "active" or not is_of_interest:
            return
        funds = NO_FUNDS if before is None else before
        seen = Reading(ctx.now_ns, report.burned)
        readings = add_reading(funds.readings, seen)
        need = need_of(readings, seen, report)
        alarm = alarm_of(rule, need, funds.alarm_cycles)
        if alarm != funds.alarm_cycles:
            self.alarms_due.add((alarm, child.canister))
        is_low = report.cycles < line_of(rule, need)
        noted = replace(
            funds,
            balance=report.cycles,
            freezing_limit=report.freezing_limit,
            seen=seen,
            readings=readings,
            is_low=is_low,
        )
        if replace(noted, seen=funds.seen) != funds or funds.seen is None or seen.burned != funds.seen.burned:
            self.funds.put(child.canister, noted)
        if funds.is_low and not is_low:
            self.alarms.end(ctx, LOW_BALANCE, str(child.canister), f"it has {report.cycles} cycles")
        if is_low and rule is None:
            self.note_low(ctx, child.canister, report.cycles)
        elif rule is not None and is_low:
            self._push(ctx, child, Waiting(due_cycles(rule, report.cycles, need), cause, report.cycles))

    def looked(self, ctx: Context) -> None:
        """Do what concerns all children that were looked at in this message."""
        self._set_alarms(ctx)
        total = Reading(ctx.now_ns, self.fleet_books.get().total)
        readings = self.fleet_readings.get()
        kept = add_reading(readings, total)
        if kept != readings:
            self.fleet_readings.set(kept)
        self.check_battery(ctx)

    def note_low(self, ctx: Context, canister: Principal, balance: int) -> None:
        """Raise the alarm for a member that the node has told of and no rule takes care of."""
        self.alarms.begin(ctx, LOW_BALANCE, str(canister), f"it has {balance} cycles, and no rule")

    def forget(self, canister: Principal) -> None:
        """Drop what is kept of a child that is gone, or begins anew; a booking under way is settled by
        itself.
        """
        self.waiting.delete(canister)
        self.child_quotas.delete(canister)
        self.funds.delete(canister)

    def move(self, ctx: Context, before: Principal, child: Child) -> None:
        """Let a child that has a new canister go on with its books and its quota."""
        funds, quota = self.funds.get(before), self.child_quotas.get(before)
        self.forget(before)
        self.forget(child.canister)
        self._watch(ctx, child, funds or NO_FUNDS)
        if quota is not None:
            self.child_quotas.put(child.canister, quota)
        if funds is None:
            return
        self.funds.put(child.canister, replace(funds, seen=None, readings=[], alarm_cycles=0))
        booking = None if funds.booking is None else self.bookings.get(funds.booking)
        if funds.booking is not None and booking is not None:
            self.bookings.put(funds.booking, replace(booking, canister=child.canister))

    def recover(self, ctx: Context) -> int:
        """Close bookings whose answer a forced stop has dropped; they count as given. Return how many."""
        lost = [
            (number, booking)
            for number, booking in self.bookings.items(limit=TOP_UP_OPEN_COUNT_MAX)
            if ctx.now_ns - booking.at_ns >= TOP_UP_LOST_NS
        ]
        for number, booking in lost:
            self._close(number, booking, TopUpEnd.unknown())
        if not self.bookings:
            self._go_on(ctx)
        return len(lost)

    # what is there to give

    def spendable(self, ctx: Context) -> int:
        """Return what the index can give now."""
        return max(0, ctx.balance - self.policy.get().reserve)

    def battery_line(self) -> int:
        """Return the index's own balance under which it raises an alarm; 0: none."""
        policy = self.policy.get()
        line = max(policy.battery_alarm, self.dearest_birth.get())
        if self.rules.first() is None:
            return line
        return max(line, policy.reserve + max(1, policy.request_min))

    def watch_battery(self, ctx: Context) -> None:
        """Let the node tell of the index's own balance, and look at it now."""
        line = min(self.battery_line(), CYCLES_MINTED_MAX)
        ctx.notify(Management().cannery_alarm_set(AlarmSetArgs([ctx.id], line)))
        self.check_battery(ctx)

    def note_birth(self, ctx: Context, cycles: int) -> None:
        """Note the most that a new child costs: an index that cannot pay it makes none, which is an alarm."""
        if self.dearest_birth.get() != cycles:
            self.dearest_birth.set(cycles)
            self.watch_battery(ctx)
        else:
            self.check_battery(ctx)

    def check_battery(self, ctx: Context) -> None:
        """Raise or end the alarm of the index's own balance."""
        line, subject = self.battery_line(), str(ctx.id)
        if ctx.balance < line:
            text = f"the index has {ctx.balance} cycles, less than its alarm of {line}: top it up"
            self.alarms.begin(ctx, BATTERY_LOW, subject, text)
        else:
            self.alarms.end(ctx, BATTERY_LOW, subject, f"the index has {ctx.balance} cycles")

    def quota_of(self, child: Child) -> Quota:
        """Return a child's quota: its own, that of its kind, or none."""
        return self.child_quotas.get(child.canister) or self.kind_quotas.get(child.kind) or UNLIMITED

    # top-ups

    def send(self, ctx: Context, child: Child, wanted: Waiting) -> Pending[TopUpResult] | TopUpResult:
        """Send a child cycles, or say why not; what is returned is the answer of whoever asked."""

        def deposit(call: Call[None], number: int, cycles: int) -> Pending[Any]:
            return ctx.call(call, then=self.deposited, saved=number, cycles=cycles)

        return self._send(ctx, child, wanted, deposit)

    def send_for(
        self, ctx: Context, child: Child, wanted: Waiting, *, then: Callable[..., object], saved: object
    ) -> Pending[Any] | TopUpResult:  # of what `then` answers
        """Send a child cycles like `send`, for a method with an answer of its own: `then` is a continuation
        of the canister, which takes an `Outcome[TopUpResult]` and `saved`. What is refused at once is
        returned.
        """
        waiter = ctx.waiter(then, saved)

        def deposit(call: Call[None], number: int, cycles: int) -> Pending[Any]:
            order = DepositFor(number, waiter)
            return ctx.call_for(call, then, then=self.deposited_for, saved=order, cycles=cycles)

        return self._send(ctx, child, wanted, deposit)

    def _send(
        self, ctx: Context, child: Child, wanted: Waiting, deposit: Callable[..., Pending[Any]]
    ) -> Pending[Any] | TopUpResult:
        funds = self.funds.get(child.canister) or NO_FUNDS
        if funds.booking is not None or child.canister in self.waiting:
            text = "a top-up of this child is under way"
            return TopUpResult.refused(Refused(Reason.in_progress(), text, None))
        policy = self.policy.get()
        purse = Purse(
            self.spendable(ctx),
            policy.request_min,
            self.fleet_quota.get(),
            self.fleet_books.get(),
            self.quota_of(child),
            funds.books,
        )
        plan = plan_top_up(wanted.cycles, purse, ctx.now_ns)
        if isinstance(plan, Refused):
            return TopUpResult.refused(plan)
        number = self.next_booking.get()
        call = Management().deposit_cycles(CanisterIdArg(child.canister))
        try:
            sent = deposit(call, number, plan.cycles)
        except Reject as reject:
            return TopUpResult.failed(reject.message)
        self.next_booking.set(number + 1)
        self.fleet_books.set(plan.fleet_books)
        slices = (plan.fleet_slice_ns, plan.child_slice_ns)
        self.bookings.put(number, Booking(child.canister, plan.cycles, ctx.now_ns, *slices))
        entry = TopUp(ctx.now_ns, plan.cycles, wanted.cause, wanted.balance, TopUpEnd.sent())
        history = [*funds.history, entry][-TOP_UP_HISTORY_COUNT_MAX:]
        booked = replace(funds, books=plan.child_books, booking=number, history=history)
        self.funds.put(child.canister, booked)
        return sent

    @continuation
    def deposited(self, ctx: Context, outcome: Outcome[None], saved: nat64) -> TopUpResult:
        """Close a booking: the cycles are there, or have come back."""
        return self._deposited(ctx, outcome, saved)

    @continuation
    def deposited_for(self, ctx: Context, outcome: Outcome[None], saved: DepositFor) -> Continued:
        """Close a booking, and let whoever asked go on."""
        return ctx.resume(saved.waiter, Outcome(self._deposited(ctx, outcome, saved.booking)))

    def _deposited(self, ctx: Context, outcome: Outcome[None], saved: int) -> TopUpResult:
        booking = self.bookings.get(saved)
        if booking is None:
            return TopUpResult.failed("the answer came after the top-up was given up as lost")
        if outcome.ok:
            self._close(saved, booking, TopUpEnd.done())
            result = TopUpResult.ok(booking.cycles)
        else:
            self._close(saved, booking, TopUpEnd.came_back(outcome.reject_message))
            result = TopUpResult.failed(outcome.reject_message)
        self._go_on(ctx)
        self.check_battery(ctx)
        return result

    def _close(self, number: int, booking: Booking, end: TopUpEnd) -> None:
        """End a booking in the books of the fleet and of the child, if it is still the same one."""
        self.bookings.delete(number)
        comes_back = end.tag == "came_back"
        if comes_back:
            books = release(self.fleet_books.get(), booking.cycles, booking.fleet_slice_ns)
            self.fleet_books.set(books)
        funds = self.funds.get(booking.canister)
        if funds is None or funds.booking != number:
            return
        books = funds.books
        if comes_back:
            books = release(books, booking.cycles, booking.child_slice_ns)
        history = [*funds.history[:-1], replace(funds.history[-1], end=end)]
        balance = funds.balance + booking.cycles if end.tag == "done" else funds.balance
        self.funds.put(
            booking.canister, replace(funds, balance=balance, books=books, booking=None, history=history)
        )

    def _push(self, ctx: Context, child: Child, wanted: Waiting) -> None:
        """Top a child up that did not ask, now or when others are done; say so where it gets nothing."""
        if len(self.bookings) >= TOP_UP_OPEN_COUNT_MAX:
            if len(self.waiting) < TOP_UP_WAITING_COUNT_MAX:
                self.waiting.put(child.canister, wanted)
            return
        self.waiting.delete(child.canister)
        result = self.send(ctx, child, wanted)
        if not isinstance(result, TopUpResult):
            self.alarms.end(ctx, LOW_BALANCE, str(child.canister), "it is topped up")
            self.alarms.end(ctx, QUOTA_REACHED, "fleet", "top-ups go on")
            return
        text = result.refused.text if result.tag == "refused" else result.failed
        reason = result.refused.reason.tag if result.tag == "refused" else "failed"
        if reason == "aggregate_quota_reached":
            self.alarms.begin(ctx, QUOTA_REACHED, "fleet", f"children wait for cycles: {text}")
        elif reason not in ("battery_low", "in_progress"):
            text = f"the {child.kind} of {child.owner} has {wanted.balance} cycles and gets none: {text}"
            self.alarms.begin(ctx, LOW_BALANCE, str(child.canister), text)

    def _go_on(self, ctx: Context) -> None:
        """Send what waits, as far as there is room."""
        room = TOP_UP_OPEN_COUNT_MAX - len(self.bookings)
        for canister, wanted in list(self.waiting.items(limit=max(0, room))):
            self.waiting.delete(canister)
            child = self.directory.get(canister)
            if child is not None and child.state.tag == "active":
                self._push(ctx, child, wanted)

    # alarms of the node

    def _watch(self, ctx: Context, child: Child, funds: ChildFunds) -> None:
        """Let the node watch over a canister that is new, by what is known."""
        alarm = alarm_of(self.rules.get(child.kind), self.known_need(funds))
        if alarm:
            self.alarms_due.add((alarm, child.canister))
            self._set_alarms(ctx)

    def _set_alarms(self, ctx: Context) -> None:
        """Ask the node to watch over the balances that were seen in this message, one call for each line.

        What cannot be asked now is found missing at the next look.
        """
        groups: dict[int, list[Principal]] = {}
        for cycles, canister in self.alarms_due:
            groups.setdefault(cycles, []).append(canister)
        self.alarms_due.clear()
        for cycles, targets in list(groups.items())[:TOP_UP_ALARM_GROUP_COUNT_MAX]:
            call = Management().cannery_alarm_set(AlarmSetArgs(targets, cycles))
            try:
                ctx.call(call, then=self.watched, saved=AlarmOrder(cycles, targets))
            except Reject as reject:
                ctx.log(f"alarms are set later: {reject.message}")
                return

    @continuation
    def watched(self, ctx: Context, outcome: Outcome[list[Principal]], saved: AlarmOrder) -> None:
        """Note which children the node watches over now."""
        if not outcome.ok:
            ctx.log(f"alarms are set later: {outcome.reject_message}")
            return
        left_out = set(outcome.value)
        for canister in saved.targets:
            if canister not in left_out and self.directory.get(canister) is not None:
                funds = self.funds.get(canister) or NO_FUNDS
                self.funds.put(canister, replace(funds, alarm_cycles=saved.cycles))


def need_of(readings: list[Reading], seen: Reading, report: CanisterReport) -> Need:
    """Return what a child needs: its burn as measured, but its storage at the least."""
    measured = burned_per_day(readings, seen) or 0
    return Need(max(measured, report.idle_burned_per_day), report.freezing_limit, report.message_fee)
