"""Funding, as operators and children see it: rules, quotas, requests, notices, and what the money does.

Rules are per kind, quotas per kind, child and fleet; `treasury` acts by them. Children are topped up when
the census or the node finds them low, and may ask themselves. docs/funding.md, "The treasury of a fleet".
"""

from __future__ import annotations

from cannery import Context, Outcome, Pending, Principal, Reject, continuation, nat, query, record, update
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import Management, StatusManyResult
from cannery.fleet.census import Census
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child
from cannery.fleet.funding_types import (
    NO_FUNDS,
    Cause,
    ChildFunding,
    FundingPolicy,
    FundingReport,
    FundingResult,
    KindFunding,
    QuotaScope,
    TopUpResult,
    Waiting,
)
from cannery.fleet.rights import require_operator
from cannery.fleet.top_up import TopUpRule, check_rule, line_of, refill_of
from cannery.fleet.top_up_burn import Reading, burned_per_day, time_left_ns
from cannery.fleet.top_up_quota import UNLIMITED, Quota, allowance, check_quota
from cannery.fleet.treasury import Treasury, need_of
from cannery.limits import CENSUS_KIND_COUNT_MAX, CYCLES_MINTED_MAX, FLEET_NAME_SIZE_BYTES_MAX


@record
class Order:
    """An operator's order for a top-up by the rule."""

    canister: Principal


class Funding(Component, prefix="fleet.funding"):
    """Set rules and quotas, take requests and notices, tell what the money does."""

    directory = Uses(Directory)
    treasury = Uses(Treasury)
    census = Uses(Census)

    # settings

    @update
    def fleet_rule_set(self, ctx: Context, kind: str, rule: TopUpRule | None) -> FundingResult:
        """Set when and how far children of a kind are topped up; without a rule they are not."""
        require_operator(ctx)
        if not 0 < len(kind.encode()) <= FLEET_NAME_SIZE_BYTES_MAX:
            return FundingResult.err(f"a kind's name has 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes")
        rules = self.treasury.rules
        wrong = None if rule is None else check_rule(rule)
        if rule is not None and kind not in rules and len(list(rules.keys())) >= CENSUS_KIND_COUNT_MAX:
            wrong = f"there are rules for {CENSUS_KIND_COUNT_MAX} kinds, as many as may be"
        if wrong is not None:
            return FundingResult.err(wrong)
        if rule is None:
            rules.delete(kind)
        else:
            rules.put(kind, rule)
        self._act(ctx)
        return FundingResult.ok()

    @update
    def fleet_quota_set(self, ctx: Context, scope: QuotaScope, quota: Quota | None) -> FundingResult:
        """Set what may be given to the fleet in all, to each child of a kind, or to one child."""
        require_operator(ctx)
        wrong = None if quota is None else check_quota(quota)
        if wrong is None and scope.tag == "child" and self.directory.get(scope.child) is None:
            wrong = f"{scope.child} is no child of this index"
        if wrong is None and scope.tag == "kind" and len(scope.kind.encode()) > FLEET_NAME_SIZE_BYTES_MAX:
            wrong = f"a kind's name has 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes"
        if wrong is not None:
            return FundingResult.err(wrong)
        treasury = self.treasury
        if scope.tag == "fleet":
            treasury.fleet_quota.set(UNLIMITED if quota is None else quota)
        elif scope.tag == "kind" and quota is not None:
            treasury.kind_quotas.put(scope.kind, quota)
        elif scope.tag == "kind":
            treasury.kind_quotas.delete(scope.kind)
        elif quota is not None:
            treasury.child_quotas.put(scope.child, quota)
        else:
            treasury.child_quotas.delete(scope.child)
        return FundingResult.ok()

    @update
    def fleet_funding_set(self, ctx: Context, policy: FundingPolicy) -> FundingResult:
        """Set the least top-up, what the index keeps for itself, and its own alarm."""
        require_operator(ctx)
        if max(policy.request_min, policy.reserve, policy.battery_alarm) > CYCLES_MINTED_MAX:
            return FundingResult.err(f"no balance ever reaches more than {CYCLES_MINTED_MAX} cycles")
        self.treasury.policy.set(policy)
        self._act(ctx)
        return FundingResult.ok()

    def _act(self, ctx: Context) -> None:
        """Let new settings count at once: the index's own alarm, and a look at every child."""
        self.treasury.watch_battery(ctx)
        self.census.keep(ctx)
        self.census.begin(ctx)

    # what the money does

    @query
    def fleet_funding(self, ctx: Context) -> FundingReport:
        """Return rules, quotas, the index's own battery and what was given."""
        require_operator(ctx)
        treasury = self.treasury
        rules, quotas = dict(treasury.rules.items()), dict(treasury.kind_quotas.items())
        books, spendable = treasury.fleet_books.get(), treasury.spendable(ctx)
        quota, now_ns = treasury.fleet_quota.get(), ctx.now_ns
        per_day = burned_per_day(treasury.fleet_readings.get(), Reading(now_ns, books.total))
        return FundingReport(
            policy=treasury.policy.get(),
            kinds=[
                KindFunding(kind, rules.get(kind), quotas.get(kind)) for kind in sorted({*rules, *quotas})
            ],
            fleet_quota=quota,
            allowance=allowance(quota, books, now_ns),
            battery=ctx.balance,
            spendable=spendable,
            is_battery_low=ctx.balance < treasury.battery_line(),
            granted=books.total,
            granted_per_day=per_day,
            battery_left_ns=_time_left_ns(spendable, per_day),
            on_the_way=len(treasury.bookings),
            waiting=len(treasury.waiting),
        )

    @query
    def fleet_child_funds(self, ctx: Context, canister: Principal) -> ChildFunding | None:
        """Return what is known of a child's cycles; the child and its owner may ask, and who operates the
        fleet."""
        child = self.directory.get(canister)
        if child is None or ctx.caller not in (child.owner, child.canister):
            require_operator(ctx)
        return None if child is None else self._funding(ctx, child)

    def _funding(self, ctx: Context, child: Child) -> ChildFunding:
        treasury = self.treasury
        funds = treasury.funds.get(child.canister) or NO_FUNDS
        rule, quota = treasury.rules.get(child.kind), treasury.quota_of(child)
        seen = funds.seen
        per_day = None if seen is None else burned_per_day(funds.readings, seen)
        return ChildFunding(
            canister=child.canister,
            kind=child.kind,
            balance=funds.balance,
            seen_ns=0 if seen is None else seen.at_ns,
            burned_per_day=per_day,
            left_ns=_time_left_ns(max(0, funds.balance - funds.freezing_limit), per_day),
            line=None if rule is None else line_of(rule, treasury.known_need(funds)),
            quota=quota,
            allowance=allowance(quota, funds.books, ctx.now_ns),
            granted=funds.books.total,
            on_the_way=funds.booking is not None,
            history=funds.history,
        )

    # requests

    @update
    def fleet_request_cycles(self, ctx: Context, cycles: nat) -> TopUpResult | Pending[TopUpResult]:
        """Ask for cycles: for children of this index. They get up to so many, as far as the quotas allow."""
        is_member = ctx.caller_fleet is not None and ctx.caller_fleet == ctx.fleet
        child = self.directory.get(ctx.caller) if is_member else None
        if child is None or child.state.tag != "active":
            ctx.reject("fleet_request_cycles is for the children of this index")
        return self.treasury.send(ctx, child, Waiting(cycles, Cause.request(), None))

    @update
    def fleet_top_up(
        self, ctx: Context, canister: Principal, cycles: nat | None
    ) -> TopUpResult | Pending[TopUpResult]:
        """Top a child up by an amount, or by the rule of its kind whether it is due or not; quotas hold."""
        require_operator(ctx)
        child = self.directory.get(canister)
        if child is None or child.state.tag != "active":
            return TopUpResult.failed(f"{canister} is no child of this index that could be topped up")
        if cycles is not None:
            return self.treasury.send(ctx, child, Waiting(cycles, Cause.order(), None))
        if self.treasury.rules.get(child.kind) is None:
            return TopUpResult.failed(f"there is no rule for {child.kind}: say how many cycles")
        call = Management().cannery_status_many([canister])
        return ctx.call(call, then=self.ordered, saved=Order(canister))

    @continuation
    def ordered(
        self, ctx: Context, outcome: Outcome[list[StatusManyResult]], saved: Order
    ) -> TopUpResult | Pending[TopUpResult]:
        """Top a child up by its rule, now that its balance is known."""
        child = self.directory.get(saved.canister)
        status = outcome.value[0].status if outcome.ok else None
        rule = None if child is None else self.treasury.rules.get(child.kind)
        if child is None or status is None or rule is None or child.state.tag != "active":
            return TopUpResult.failed(f"{saved.canister} cannot be looked at: {outcome.reject_message}")
        funds = self.treasury.funds.get(child.canister) or NO_FUNDS
        need = need_of(funds.readings, Reading(ctx.now_ns, status.burned), status)
        refill = refill_of(rule, status.cycles, need)
        return self.treasury.send(ctx, child, Waiting(refill, Cause.order(), status.cycles))

    # notices

    @update
    def fleet_notice(self, ctx: Context, members: list[Principal]) -> None:
        """Take the node's word that members have fallen under their alarm."""
        if ctx.caller != Principal.management():
            ctx.reject("fleet_notice is for the node")
        self.treasury.check_battery(ctx)
        try:
            ctx.call(Management().cannery_status_many(members), then=self.noticed)
        except Reject as reject:
            ctx.log(f"{len(members)} low balances wait for the census: {reject.message}")

    @continuation
    def noticed(self, ctx: Context, outcome: Outcome[list[StatusManyResult]]) -> None:
        """Look at the members that are low."""
        if not outcome.ok:
            ctx.log(f"low balances wait for the census: {outcome.reject_message}")
            return
        for result in outcome.value:
            child = self.directory.get(result.canister_id)
            if child is None or result.status is None:
                continue
            if self.treasury.rules.get(child.kind) is None:
                self.treasury.note_low(ctx, child.canister, result.status.cycles)
            self.treasury.look(ctx, child, result.status, Cause.notice())
        self.treasury.looked(ctx)


def _time_left_ns(balance: int, per_day: int | None) -> int | None:
    """Return how long a balance lasts, where that fits into the interface's 64 bits."""
    left_ns = time_left_ns(balance, per_day)
    return left_ns if left_ns is None or left_ns < 2**64 else None
