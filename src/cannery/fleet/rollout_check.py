"""The check before a rollout: can the release follow each one that children are on, and be taken back?

The node compares two modules, their interfaces and their state types, in both directions; the index asks for
one pair after the other and keeps what it learns with the rollout. A question whose answer is lost is asked
again. What cannot be compared is not allowed.
"""

from __future__ import annotations

from cannery import (
    Context,
    Outcome,
    Pending,
    Reject,
    StableMap,
    continuation,
    nat32,
    nat64,
    record,
    timer,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import Management, ModuleCompareArgs, ModuleDifferences
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child
from cannery.fleet.registry import Registry
from cannery.fleet.rollout import Comparison, Order, plan_checked
from cannery.fleet.rollout_filter import versions_met
from cannery.fleet.rollout_types import StartResult
from cannery.fleet.waves import Waves
from cannery.limits import ROLLOUT_COMPARISON_COUNT_MAX

SECOND_NS = 1_000_000_000


@record
class Pair:
    """A former release, and the module that is to follow it."""

    kind: str
    version: nat64
    former_hash: bytes
    module_hash: bytes


@record
class Check:
    """The pairs of a rollout, and what was found about the first of them."""

    pairs: list[Pair]
    found: list[Comparison]
    sent_ns: nat64


@record
class Asked:
    """A pair that the node was asked about."""

    rollout: nat64
    at: nat32


class Checks(Component, prefix="fleet.checks"):
    """Check releases before they are rolled out."""

    directory = Uses(Directory)
    registry = Uses(Registry)
    waves = Uses(Waves)
    checks = StableMap(nat64, Check)

    def begin(self, ctx: Context, id: int) -> StartResult | Pending[StartResult]:
        """Check a rollout's order and begin with it; return what the method that started it returns."""
        self.checks.put(id, Check(self._pairs(self.waves.orders[id]), [], ctx.now_ns))
        return self._ask(ctx, id)

    def found(self, id: int) -> list[Comparison]:
        """Return what the check of a rollout has found."""
        check = self.checks.get(id)
        return [] if check is None else check.found

    def _pairs(self, order: Order) -> list[Pair]:
        pairs: list[Pair] = []
        for target in order.targets:
            for version in reversed(self._versions(order, target.kind)):
                former = self.registry.get(target.kind, version)
                if former is not None and former.module_hash != target.module_hash:
                    pairs.append(Pair(target.kind, version, former.module_hash, target.module_hash))
        return pairs[:ROLLOUT_COMPARISON_COUNT_MAX]

    def _versions(self, order: Order, kind: str) -> list[int]:
        """Return the versions from which children are brought along."""
        running = {each: self.directory.count(kind, "active", each) for each in self.directory.versions(kind)}
        named = [self.directory.get(id) for id in order.filter.include or order.filter.exclude]
        ours = [child.version for child in named if child is not None and _is_active(child, kind)]
        current = self.registry.current(kind)
        return versions_met(
            order.filter,
            {version: count for version, count in running.items() if count},
            ours,
            None if current is None else current.version,
        )

    def _ask(self, ctx: Context, id: int) -> StartResult | Pending[StartResult]:
        """Ask about the next pair; without one, begin with the rollout or refuse it."""
        check, order = self.checks[id], self.waves.orders[id]
        at = len(check.found)
        if at == len(check.pairs):
            return self._decide(ctx, id)
        pair = check.pairs[at]
        call = Management().cannery_module_compare(ModuleCompareArgs(pair.former_hash, pair.module_hash))
        self.checks.put(id, Check(check.pairs, check.found, ctx.now_ns))
        try:
            pending = ctx.call(call, then=self.compared, saved=Asked(id, at))
        except Reject as reject:
            return self._note(ctx, id, _unknown(pair, reject.message))
        ctx.timer_set(self.ask_again, at_ns=ctx.now_ns + order.rule.deadline_ns, saved=Asked(id, at))
        return pending

    def _note(self, ctx: Context, id: int, comparison: Comparison) -> StartResult | Pending[StartResult]:
        check = self.checks[id]
        self.checks.put(id, Check(check.pairs, [*check.found, comparison], check.sent_ns))
        return self._ask(ctx, id)

    def _decide(self, ctx: Context, id: int) -> StartResult:
        check, order = self.checks[id], self.waves.orders[id]
        rollout = plan_checked(order, self.waves.rollouts[id], check.found, ctx.now_ns)
        self.waves.put(ctx, rollout)
        if rollout.phase.tag in ("refused", "cancelled"):
            return StartResult.err(rollout.reason)
        for target in order.targets:
            before = self.waves.latest.get(target.kind)
            self.waves.latest.put(target.kind, id)
            if before is not None:
                self.waves.forget(ctx, before, wholly=False)
        self.waves.go_on(ctx, id)
        return StartResult.ok(id)

    @continuation
    def compared(
        self, ctx: Context, outcome: Outcome[ModuleDifferences], saved: Asked
    ) -> StartResult | Pending[StartResult]:
        """Note what the node found about a pair, and go on with the next."""
        check, rollout = self.checks.get(saved.rollout), self.waves.rollouts.get(saved.rollout)
        if check is None or rollout is None or rollout.phase.tag != "checking":
            return StartResult.err(f"rollout {saved.rollout} was cancelled meanwhile")
        if saved.at != len(check.found):
            return StartResult.err(f"rollout {saved.rollout} is being checked: ask for it in a moment")
        pair = check.pairs[saved.at]
        if outcome.ok:
            found = outcome.value
            comparison = Comparison(
                pair.kind,
                pair.version,
                pair.former_hash,
                found.interface,
                found.state,
                found.back_interface,
                found.back_state,
            )
        else:
            comparison = _unknown(pair, outcome.reject_message)
        return self._note(ctx, saved.rollout, comparison)

    @timer
    def ask_again(self, ctx: Context, saved: Asked) -> None:
        """Ask about a pair again whose answer was lost."""
        check, rollout = self.checks.get(saved.rollout), self.waves.rollouts.get(saved.rollout)
        is_open = check is not None and rollout is not None and rollout.phase.tag == "checking"
        if is_open and check is not None and len(check.found) == saved.at:
            self._ask(ctx, saved.rollout)


def _is_active(child: Child, kind: str) -> bool:
    return child.kind == kind and child.state.tag == "active"


def _unknown(pair: Pair, text: str) -> Comparison:
    why = f"it cannot be compared: {text}"
    return Comparison(pair.kind, pair.version, pair.former_hash, why, why, why, why)
