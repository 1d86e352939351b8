"""When a rollout turns back: too many of the canary failed, or too many of all.

Only failures that are the release's doing count. Where there is no way back, or none is wanted, it halts.
"""

from __future__ import annotations

from dataclasses import replace

from cannery.fleet.rollout import FORWARD, Order, Rollout, permitted_faults, turn_back


def tested_count(rollout: Rollout) -> int:
    """Return how many children of the canary have shown how the stage's release does."""
    canary, counts = rollout.canary, rollout.counts
    assert canary is not None, "asked in the canary only"
    return counts.forward + counts.faults - canary.forward_before - canary.faults_before


def plan_judgement(order: Order, rollout: Rollout) -> Rollout:
    """Return the rollout as it goes on: unchanged, on its way back, or halted."""
    if rollout.phase.tag not in FORWARD or rollout.accepts_faults or rollout.halted:
        return rollout
    reason = _reason(order, rollout)
    if reason is None:
        return rollout
    if order.rule.goes_back and not rollout.no_way_back:
        return turn_back(rollout, reason)
    problem = rollout.no_way_back or "it was started not to go back by itself"
    return replace(rollout, halted=True, reason=reason, problem=problem)


def _reason(order: Order, rollout: Rollout) -> str | None:
    counts, permitted = rollout.counts, permitted_faults(order, rollout.counts)
    if counts.faults > permitted:
        return f"{_children(counts.faults)} failed, {permitted} may"
    if rollout.phase.tag != "canary" or rollout.canary is None:
        return None
    failed, tested = counts.faults - rollout.canary.faults_before, tested_count(rollout)
    of = tested if rollout.is_scanned else rollout.canary.count
    if failed > of * order.rule.canary_fault_permille // 1_000:
        return f"{failed} of the canary's {_children(tested)} failed"
    return None


def _children(count: int) -> str:
    return "1 child" if count == 1 else f"{count} children"
