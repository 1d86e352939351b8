"""The cycles of a fleet for the command line: rules and quotas read from options, reports written."""

from __future__ import annotations

import time
from collections.abc import Iterator

from cannery.cdk.management import CanisterReport
from cannery.cli.fleet_index import FleetIndex, FleetSession
from cannery.cli.fleet_lines import DAY_NS, format_left, format_span, labelled, plural
from cannery.cli.output import format_time
from cannery.cli.problem import Problem
from cannery.fleet.funding_types import (
    ChildFunding,
    FundingPolicy,
    FundingReport,
    FundingResult,
    KindFunding,
    QuotaScope,
    TopUp,
    TopUpResult,
)
from cannery.fleet.top_up import Refill, Threshold, TopUpRule
from cannery.fleet.top_up_quota import Quota, Rate

HOUR_NS = DAY_NS // 24
TOP_UPS_SHOWN = 5


# what is ordered


def read_rule(
    below: int | None, below_days: int | None, to: int | None, add: int | None, *, remove: bool
) -> TopUpRule | None:
    """Read a rule: under which line, and how far; None to remove it."""
    line, far = _threshold(below, below_days), _refill(to, add)
    if remove:
        if any(option is not None for option in (below, below_days, to, add)):
            raise Problem("--remove takes the rule away: give nothing beside it")
        return None
    if line is None or far is None:
        raise Problem("say --below CYCLES or --below-days DAYS, and --to CYCLES or --add CYCLES")
    return TopUpRule(line, far)


def _threshold(below: int | None, days: int | None) -> Threshold | None:
    if below is not None:
        return Threshold.cycles(below) if days is None else None
    return None if days is None else Threshold.days(days)


def _refill(to: int | None, add: int | None) -> Refill | None:
    if to is not None:
        return Refill.to_balance(to) if add is None else None
    return None if add is None else Refill.by_amount(add)


def read_quota(
    fixed: int | None, most: int | None, rate: int | None, per: int | None, *, remove: bool
) -> Quota | None:
    """Read a quota; None to remove it."""
    given = sum(option is not None for option in (fixed, most, rate)) + remove
    if given != 1 or (rate is None) != (per is None):
        raise Problem("say one of --fixed CYCLES, --max CYCLES, --rate CYCLES --per SECONDS, --remove")
    if fixed is not None:
        return Quota.fixed(fixed)
    if most is not None:
        return Quota.max(most)
    return None if rate is None or per is None else Quota.rate(Rate(rate, per))


def read_scope(fleet: FleetSession, kind: str | None, child: str | None) -> QuotaScope:
    """Read whom a quota is for: the fleet where nobody is named."""
    if kind is not None and child is not None:
        raise Problem("a quota is for --kind KIND, for --child CANISTER, or without either for the fleet")
    if child is not None:
        return QuotaScope.child(fleet.session.canister(child))
    return QuotaScope.fleet() if kind is None else QuotaScope.kind(kind)


def change_policy(index: FleetIndex, reserve: int | None, least: int | None, alarm: int | None) -> None:
    """Change what holds for all, where something is to change."""
    if reserve is None and least is None and alarm is None:
        return
    before = index.funding().policy
    wanted = FundingPolicy(
        request_min=before.request_min if least is None else least,
        reserve=before.reserve if reserve is None else reserve,
        battery_alarm=before.battery_alarm if alarm is None else alarm,
    )
    require_taken(index.funding_set(wanted))


def require_taken(result: FundingResult) -> None:
    """Refuse to go on where a setting was not taken."""
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)


def given(result: TopUpResult) -> int:
    """Return the cycles that arrived; raise `Problem` with why there are none."""
    if result.tag == "ok":
        return int(result.ok)
    if result.tag == "failed":
        raise Problem(str(result.failed), exit_code=1)
    refused = result.refused
    when = "" if refused.retry_at_ns is None else f"; ask again after {format_time(refused.retry_at_ns)}"
    raise Problem(f"{refused.text}{when}", exit_code=1)


# how it stands


def burned_per_day(report: CanisterReport, now_ns: int) -> int:
    """Return what a canister has burned in a day since it was made, in the mean."""
    return report.burned * DAY_NS // max(HOUR_NS, now_ns - report.created_ns)


def read_burn(index: FleetIndex) -> int:
    """Return what the index itself burns in a day; 0 where that is not shown."""
    report = index.figures([index.id]).get(index.id)
    return 0 if report is None else burned_per_day(report, time.time_ns())


def battery_text(found: FundingReport, burned: int) -> str:
    """Write what the index has, what goes out of it in a day, and how long that lasts."""
    spent = (found.granted_per_day or 0) + burned
    low = ", LOW" if found.is_battery_low else ""
    text = f"{plural(found.battery, 'cycle')}{low}, {found.spendable:,} to give"
    if not spent:
        return f"{text}; {'what is given per day is not known yet' if found.granted else 'nothing spent yet'}"
    given_text = "" if found.granted_per_day is None else f"{found.granted_per_day:,} given and "
    return f"{text}; {given_text}{burned:,} burned per day, {format_left(found.spendable, spent)}"


def funding_lines(found: FundingReport, burned: int) -> Iterator[str]:
    """Write the money of a fleet."""
    policy = found.policy
    yield from labelled("battery", [battery_text(found, burned)])
    yield from labelled("keeps", [f"{policy.reserve:,} in reserve, alarm under {policy.battery_alarm:,}"])
    underway = f"{found.on_the_way:,} top-ups under way, {found.waiting:,} waiting"
    least = f", {policy.request_min:,} at a time at least" if policy.request_min else ""
    yield from labelled("given", [f"{found.granted:,} in all{least}; {underway}"])
    yield from labelled("quota", list(quota_lines(found)))
    yield from labelled("rules", [kind_line(each) for each in found.kinds] or ["none: nobody is topped up"])


def read_kind(index: FleetIndex, kind: str) -> KindFunding:
    """Read what holds for a kind."""
    found = [each for each in index.funding().kinds if each.kind == kind]
    return found[0] if found else KindFunding(kind, None, None)


def read_bounds(index: FleetIndex, scope: QuotaScope) -> FundingReport | KindFunding | ChildFunding:
    """Read what bounds those whom a quota is for."""
    if scope.tag == "kind":
        return read_kind(index, scope.kind)
    found = index.child_funds(scope.child) if scope.tag == "child" else None
    return index.funding() if found is None else found


def quota_lines(found: FundingReport | KindFunding | ChildFunding) -> Iterator[str]:
    """Write what bounds a fleet, a kind or a child."""
    if isinstance(found, KindFunding):
        yield kind_line(found)
    elif isinstance(found, ChildFunding):
        yield f"{found.canister}: {quota_text(found.quota)}{_now(found.allowance)}"
    else:
        yield f"the fleet: {quota_text(found.fleet_quota)}{_now(found.allowance)}"


def kind_line(found: KindFunding) -> str:
    """Write what holds for a kind in one line."""
    rule = "no rule" if found.rule is None else rule_text(found.rule)
    quota = "" if found.quota is None else f"; each child {quota_text(found.quota)}"
    return f"{found.kind}: {rule}{quota}"


def rule_text(rule: TopUpRule) -> str:
    """Write a rule."""
    threshold, refill = rule.threshold, rule.refill
    line = f"{threshold.cycles:,} cycles" if threshold.tag == "cycles" else f"{threshold.days} days of burn"
    far = f"to {refill.to_balance:,}" if refill.tag == "to_balance" else f"by {refill.by_amount:,}"
    return f"below {line}, top up {far}"


def quota_text(quota: Quota) -> str:
    """Write a quota."""
    match quota.tag:
        case "fixed":
            return f"{quota.fixed:,} at a time"
        case "max":
            return f"{quota.max:,} in all"
        case "rate":
            return f"{quota.rate.cycles:,} in any {format_span(quota.rate.seconds * 1_000_000_000)}"
    return "unlimited"


def _now(allowance: int | None) -> str:
    return "" if allowance is None else f", {allowance:,} now"


def child_funding_lines(found: ChildFunding) -> Iterator[str]:
    """Write the money of a child."""
    burn = "not measured yet" if found.burned_per_day is None else f"{found.burned_per_day:,} per day"
    left = "" if found.left_ns is None else f", {format_span(found.left_ns)} until it is frozen"
    yield from labelled("burn", [f"{burn}{left}"])
    line = "not topped up by a rule" if found.line is None else f"topped up below {found.line:,}"
    yield from labelled("funding", [f"{line}; quota {quota_text(found.quota)}{_now(found.allowance)}"])
    latest = [_top_up_text(each) for each in found.history[: -TOP_UPS_SHOWN - 1 : -1]]
    yield from labelled("top-ups", [f"{found.granted:,} cycles in all", *latest])


def _top_up_text(top_up: TopUp) -> str:
    end = top_up.end.tag.replace("_", " ")
    return f"{format_time(top_up.at_ns)}  {top_up.cycles:,} by {top_up.cause.tag}, {end}"
