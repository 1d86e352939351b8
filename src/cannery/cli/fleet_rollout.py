"""Rollouts and their failures for the command line: found, read and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cannery.cdk.management import ModuleDifferences
from cannery.cli.fleet_compare import Compared
from cannery.cli.fleet_index import FleetIndex, FleetSession
from cannery.cli.fleet_lines import format_span, labelled, table
from cannery.cli.output import format_time
from cannery.cli.problem import Problem
from cannery.fleet.rollout import Failure
from cannery.fleet.rollout_types import OrderResult, RolloutInfo
from cannery.limits import FLEET_PAGE_COUNT_MAX
from cannery.protocol.principal import Principal

SHOWN_COUNTS = (
    "forward",
    "unchanged",
    "waiting",
    "quarantined",
    "skipped",
    "given_up",
    "back",
)


def find_rollout(index: FleetIndex, number: int | None) -> RolloutInfo:
    """Read a rollout, or the latest."""
    if number is not None:
        found = index.rollout(number)
        if found is None:
            raise Problem(f"there is no rollout {number}; see: cannery fleet rollout list", exit_code=1)
        return found
    latest = index.rollouts()
    if not latest:
        raise Problem("there was no rollout yet; begin one: cannery fleet rollout start", exit_code=1)
    return latest[0]


def require_ok(result: OrderResult) -> None:
    """Refuse to go on where an order was not taken."""
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)


def releases_of(found: RolloutInfo) -> str:
    """Write what is rolled out."""
    return " ".join(f"{target.kind}:{target.version}" for target in found.targets)


def progress_line(found: RolloutInfo) -> str:
    """Write how far a rollout is."""
    done = found.progress
    # Rounded down: what is not through is not at 100 %.
    share = f" ({100 * done.settled // done.expected} %)" if done.expected else ""
    text = f"{done.settled:,} of {done.expected:,}{share}"
    if found.ended_ns is None and done.left_ns:
        text += f", about {format_span(done.left_ns)} left"
    return text


def count_words(found: RolloutInfo) -> str:
    """Write what became of the children."""
    counts = {name: getattr(found.counts, name) for name in SHOWN_COUNTS}
    words = [f"{count:,} {name.replace('_', ' ')}" for name, count in counts.items() if count]
    if found.in_flight:
        words.insert(0, f"{found.in_flight:,} in flight")
    return ", ".join(words) or "none was sent yet"


def rollout_lines(found: RolloutInfo) -> Iterator[str]:
    """Write one rollout."""
    yield from labelled("rollout", [f"{found.id}: {releases_of(found)}"])
    yield from labelled("state", [found.state.tag.replace("_", " ")])
    yield from labelled("progress", [progress_line(found)])
    yield from labelled("children", [count_words(found)])
    ended = "" if found.ended_ns is None else f", ended {format_time(found.ended_ns)}"
    yield from labelled("started", [f"{format_time(found.started_ns)}{ended}"])
    yield from labelled("by", [str(found.by)])
    how = ", forced" if found.force else ""
    how += ", without @pre_upgrade" if found.skip_pre_upgrade else ""
    yield from labelled("concurrency", [f"{found.concurrency:,}{how}"])
    for label in ("reason", "problem"):
        text = getattr(found, label)
        if text:
            yield from labelled(label, [text])
    if found.no_way_back and found.no_way_back != found.problem:
        yield from labelled("way back", [found.no_way_back])
    checks = [line for comparison in checks_of(found) for line in comparison.lines()]
    yield from labelled("check", checks)


def checks_of(found: RolloutInfo) -> list[Compared]:
    """Give what the index found when it compared the releases before it began."""
    versions = {target.kind: target.version for target in found.targets}
    return [
        Compared(
            each.kind,
            each.version,
            versions[each.kind],
            ModuleDifferences(each.interface, each.state, each.back_interface, each.back_state),
        )
        for each in found.check
    ]


def rollout_rows(found: Sequence[RolloutInfo]) -> Iterator[str]:
    """Write a list of rollouts."""
    rows = [
        (
            str(each.id),
            releases_of(each),
            each.state.tag.replace("_", " "),
            progress_line(each),
            count_words(each),
            format_time(each.started_ns),
        )
        for each in found
    ]
    return table(("N", "release", "state", "progress", "children", "started"), rows)


def read_failures(index: FleetIndex, id: int, limit: int) -> list[Failure]:
    """Read the children of a rollout that did not get where they should, up to `limit`."""
    found: list[Failure] = []
    after: Principal | None = None
    while len(found) < limit:
        page = index.failures(id, after, min(limit - len(found), FLEET_PAGE_COUNT_MAX))
        found += page.items
        after = page.next
        if after is None:
            break
    return found


def failure_rows(found: Sequence[Failure]) -> Iterator[str]:
    """Write a list of failures."""
    rows = [
        (
            str(each.child),
            f"{each.from_version} to {each.to_version}",
            str(each.tries),
            "quarantined" if each.is_quarantined else "given up",
            format_time(each.at_ns),
            each.reason,
        )
        for each in found
    ]
    return table(("canister", "from to", "tries", "is", "failed", "why"), rows)


def retry_children(fleet: FleetSession, canisters: Sequence[str], *, everyone: bool) -> list[Principal]:
    """Have quarantined children tried again; return them."""
    if everyone == bool(canisters):
        raise Problem("name the children to try again, or say --all")
    index = fleet.index
    if everyone:
        id = find_rollout(index, None).id
        limit = index.status().children + 1
        targets = [each.child for each in read_failures(index, id, limit) if each.is_quarantined]
    else:
        targets = [fleet.session.canister(text) for text in canisters]
    for place, target in enumerate(targets, 1):
        fleet.session.line.say(f"{place} of {len(targets)}")
        require_ok(index.retry(target))
    return targets
