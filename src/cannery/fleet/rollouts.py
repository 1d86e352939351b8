"""Rollouts as operators order and see them: start, pause, cancel, go back, try again, list.

One rollout at a time moves a kind of children: of two operators who start at once the second is told of the
first. Starting checks the release against those that children are on (`rollout_check`); the waves are
`waves`'. docs/upgrades.md.
"""

from __future__ import annotations

from collections.abc import Callable

from cannery import Context, Pending, Principal, StableCell, StableMap, nat32, nat64, query, update
from cannery.cdk.component import Component, Uses
from cannery.fleet.directory import Directory
from cannery.fleet.registry import Registry
from cannery.fleet.rights import require_operator
from cannery.fleet.rollout import (
    ACTIVE,
    Order,
    Rollout,
    RolloutError,
    Target,
    fault_of_concurrency,
    fault_of_rule,
    new_rollout,
    plan_cancel,
    plan_concurrency,
    plan_going_back,
    plan_retry,
    progress_of,
    state_of,
)
from cannery.fleet.rollout_check import Checks
from cannery.fleet.rollout_filter import RolloutFilter, fault_of_filter
from cannery.fleet.rollout_types import (
    FailurePage,
    OrderResult,
    RolloutArgs,
    RolloutInfo,
    RolloutState,
    StartResult,
    filter_of,
    rule_of,
)
from cannery.fleet.waves import Waves
from cannery.limits import (
    FLEET_PAGE_COUNT_MAX,
    ROLLOUT_ARG_SIZE_BYTES_MAX,
    ROLLOUT_KEPT_COUNT_MAX,
    ROLLOUT_PAGE_COUNT_MAX,
    ROLLOUT_STAGE_COUNT_MAX,
)

Plan = Callable[[Rollout], Rollout]


class Rollouts(Component, prefix="fleet.rollouts"):
    """Order rollouts."""

    directory = Uses(Directory)
    registry = Uses(Registry)
    waves = Waves()
    checks = Checks()
    next_id = StableCell(nat64, 1)
    begun = StableMap(str, nat64)

    @update
    def fleet_rollout_start(self, ctx: Context, args: RolloutArgs) -> StartResult | Pending[StartResult]:
        """Check a release and bring it to children in waves; the answer comes once it was checked."""
        require_operator(ctx)
        fault = _fault(args) or self._conflict(ctx, args)
        if fault is not None:
            return StartResult.err(fault)
        targets: list[Target] = []
        for wanted in args.releases:
            release = self.registry.get(wanted.kind, wanted.version)
            if release is None:
                return StartResult.err(
                    f"there is no release {wanted.kind} {wanted.version}: add it with fleet_release_add"
                )
            expected = self._expected(wanted.kind, wanted.version, filter_of(args))
            before = self.registry.currents.get(wanted.kind, 0)
            targets.append(Target(wanted.kind, wanted.version, release.module_hash, expected, before))
        order = Order(
            targets,
            filter_of(args),
            rule_of(args.rule),
            args.arg or b"",
            bool(args.force),
            ctx.caller,
            ctx.now_ns,
            args.skip_pre_upgrade,
        )
        return self._begin(ctx, order, args.concurrency)

    def _begin(self, ctx: Context, order: Order, concurrency: int) -> StartResult | Pending[StartResult]:
        id = self.next_id.get()
        self.next_id.set(id + 1)
        self.waves.orders.put(id, order)
        self.waves.put(ctx, new_rollout(id, concurrency, ctx.now_ns))
        for target in order.targets:
            self.begun.put(target.kind, id)
        self._forget_oldest(ctx)
        return self.checks.begin(ctx, id)

    def _forget_oldest(self, ctx: Context) -> None:
        """Drop the oldest rollout that nobody needs any more, where too many are kept."""
        if len(self.waves.rollouts) <= ROLLOUT_KEPT_COUNT_MAX:
            return
        needed = {*(id for _, id in self.waves.latest.items()), *(id for _, id in self.begun.items())}
        oldest = next((id for id in self.waves.rollouts if id not in needed), None)
        if oldest is not None:
            self.checks.checks.delete(oldest)
            self.waves.forget(ctx, oldest, wholly=True)

    def _conflict(self, ctx: Context, args: RolloutArgs) -> str | None:
        """Say which rollout stands in the way, if one does."""
        for wanted in args.releases:
            id = self.begun.get(wanted.kind)
            other = None if id is None else self.waves.rollouts.get(id)
            if other is None or id is None:
                continue
            if other.phase.tag in ACTIVE:
                state = state_of(self.waves.orders[id], other, ctx.now_ns).replace("_", " ")
                return f"rollout {id} of {wanted.kind} is under way ({state}): wait for its end, or cancel it"
            if self.waves.waves.get(id) is not None or other.counts.waiting:
                return f"rollout {id} of {wanted.kind} is ending: ask again in a moment"
        return None

    def _expected(self, kind: str, version: int, chosen: RolloutFilter) -> int:
        """Return how many children a rollout will meet, without looking at them."""
        if chosen.include:
            found = [self.directory.get(canister) for canister in chosen.include]
            return sum(child is not None and child.kind == kind for child in found)
        versions = [each for each in chosen.versions or self.directory.versions(kind) if each != version]
        return sum(self.directory.count(kind, "active", each) for each in versions)

    # orders to a rollout

    @update
    def fleet_rollout_set_concurrency(self, ctx: Context, id: nat64, concurrency: nat32) -> OrderResult:
        """Change how many children are in flight at most: 0 pauses, more goes on, also after a halt."""
        require_operator(ctx)
        return self._order(ctx, id, lambda rollout: plan_concurrency(rollout, concurrency))

    @update
    def fleet_rollout_cancel(self, ctx: Context, id: nat64) -> OrderResult:
        """Send nothing more; what went forward stays there."""
        require_operator(ctx)
        reason = f"{ctx.caller} cancelled it"
        return self._order(ctx, id, lambda rollout: plan_cancel(rollout, reason, ctx.now_ns))

    @update
    def fleet_rollout_go_back(self, ctx: Context, id: nat64, force: bool) -> OrderResult:
        """Take the children that a rollout brought forward back to their former releases, with what they
        have stored since."""
        require_operator(ctx)
        reason = f"{ctx.caller} takes it back"
        return self._order(ctx, id, lambda rollout: self._plan_back(rollout, reason, force=force))

    def _plan_back(self, rollout: Rollout, reason: str, *, force: bool) -> Rollout:
        for target in self.waves.orders[rollout.id].targets:
            latest = self.waves.latest.get(target.kind)
            if latest != rollout.id:
                raise RolloutError(f"rollout {latest} of {target.kind} came after it: take that back first")
        return plan_going_back(rollout, reason, force=force)

    @update
    def fleet_retry(self, ctx: Context, child: Principal) -> OrderResult:
        """Try a quarantined child again, at once."""
        require_operator(ctx)
        known = self.directory.get(child)
        id = None if known is None else self.waves.latest.get(known.kind)
        failure = None if id is None else self.waves.failures.get((id, child))
        if id is None or failure is None:
            return OrderResult.err(f"{child} is not quarantined by the latest rollout of its kind")
        try:
            rollout, retry = plan_retry(self.waves.rollouts[id], failure, ctx.now_ns)
        except RolloutError as error:
            return OrderResult.err(str(error))
        self.waves.failures.delete((id, child))
        self.waves.alarms.end(ctx, "quarantined", str(child), "it is tried again")
        self.waves.put_retry(id, retry)
        self.waves.put(ctx, rollout)
        self.waves.go_on(ctx, id)
        return OrderResult.ok()

    def _order(self, ctx: Context, id: int, plan: Plan) -> OrderResult:
        rollout = self.waves.rollouts.get(id)
        if rollout is None:
            return OrderResult.err(f"there is no rollout {id}; fleet_rollouts lists those that are kept")
        try:
            changed = plan(rollout)
        except RolloutError as error:
            return OrderResult.err(str(error))
        self.waves.put(ctx, changed, is_ordered=True)
        self.waves.go_on(ctx, id)
        return OrderResult.ok()

    # how it stands

    @query
    def fleet_rollout(self, ctx: Context, id: nat64) -> RolloutInfo | None:
        """Return a rollout: what was ordered, what the check found, how far it is, and why it stands."""
        require_operator(ctx)
        rollout = self.waves.rollouts.get(id)
        return None if rollout is None else self.info(rollout, ctx.now_ns)

    @query
    def fleet_rollouts(self, ctx: Context) -> list[RolloutInfo]:
        """List the latest rollouts, newest first."""
        require_operator(ctx)
        kept = self.waves.rollouts.items(reverse=True, limit=ROLLOUT_PAGE_COUNT_MAX)
        return [self.info(rollout, ctx.now_ns) for _, rollout in kept]

    @query
    def fleet_failures(self, ctx: Context, id: nat64, after: Principal | None, limit: nat32) -> FailurePage:
        """List the children of a rollout that did not get where they should, and why."""
        require_operator(ctx)
        page = self.waves.failures.page(
            prefix=(id,),
            after=None if after is None else (id, after),
            limit=max(1, min(limit, FLEET_PAGE_COUNT_MAX)),
        )
        return FailurePage(
            [failure for _, failure in page.items], None if page.next is None else page.next[1]
        )

    def info(self, rollout: Rollout, now_ns: int) -> RolloutInfo:
        """Return what an operator sees of a rollout."""
        order, wave = self.waves.orders[rollout.id], self.waves.waves.get(rollout.id)
        return RolloutInfo(
            id=rollout.id,
            state=RolloutState(state_of(order, rollout, now_ns)),
            targets=order.targets,
            filter=order.filter,
            rule=order.rule,
            force=order.force,
            by=order.by,
            started_ns=order.at_ns,
            ended_ns=rollout.ended_ns,
            concurrency=rollout.concurrency,
            in_flight=0 if wave is None else len(wave.flights),
            counts=rollout.counts,
            progress=progress_of(order, rollout),
            reason=rollout.reason,
            problem=rollout.problem,
            no_way_back=rollout.no_way_back,
            check=self.checks.found(rollout.id),
            concurrency_before=rollout.concurrency_before,
            skip_pre_upgrade=order.skip_pre_upgrade,
        )


def _fault(args: RolloutArgs) -> str | None:
    """Say what is wrong with an order, if anything."""
    kinds = [wanted.kind for wanted in args.releases]
    if not 1 <= len(kinds) <= ROLLOUT_STAGE_COUNT_MAX or len(set(kinds)) < len(kinds):
        return f"name 1 to {ROLLOUT_STAGE_COUNT_MAX} releases, each of another kind"
    if len(args.arg or b"") > ROLLOUT_ARG_SIZE_BYTES_MAX:
        return f"arg has at most {ROLLOUT_ARG_SIZE_BYTES_MAX} bytes"
    return (
        fault_of_filter(filter_of(args))
        or fault_of_rule(rule_of(args.rule))
        or fault_of_concurrency(args.concurrency)
    )
