"""`cannery fleet rollout start`: what is ordered, compared with what runs before anything begins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.fleet_rollouts import DEFAULT_CONCURRENCY, ConcurrencyOption, FollowOption
from cannery.cli.options import (
    DEFAULT_INDEX,
    DEFAULT_URL,
    CandidOption,
    IndexOption,
    JsonOption,
    NodeOption,
    OperatorOption,
)
from cannery.cli.output import emit, note

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cannery.cli.fleet_compare import Compared
    from cannery.cli.fleet_index import FleetSession
    from cannery.fleet.registry import ReleaseEntry
    from cannery.fleet.rollout_filter import RolloutFilter
    from cannery.fleet.rollout_types import RolloutArgs, RuleChange

Percent = float | None
NS_PER_S = 1_000_000_000


ReleasesArgument = Annotated[
    list[str],
    typer.Argument(metavar="RELEASE...", help="KIND:VERSION, or KIND for its newest; one after another."),
]
CanaryOption = Annotated[
    Percent, typer.Option("--canary", metavar="PERCENT", help="This share goes first; 1 unless given.")
]
CanaryFailuresOption = Annotated[
    Percent,
    typer.Option("--canary-failures", metavar="PERCENT", help="Take it back beyond; 25 unless given."),
]
FailuresOption = Annotated[
    Percent,
    typer.Option("--failures", metavar="PERCENT", help="Of all: take it back beyond; 5 unless given."),
]
TriesOption = Annotated[
    int | None, typer.Option("--tries", metavar="N", help="Tries per child; 4 unless given.")
]
RetryPauseOption = Annotated[
    int | None,
    typer.Option("--retry-pause", metavar="SECONDS", help="Before the second try, then doubled; 10."),
]
FromVersionOption = Annotated[
    list[int] | None,
    typer.Option("--from-version", metavar="N", help="Only children on it; may be repeated."),
]
IncludeOption = Annotated[
    list[str] | None,
    typer.Option("--include", metavar="CANISTER", help="Only these children; may be repeated."),
]
ExcludeOption = Annotated[
    list[str] | None,
    typer.Option("--exclude", metavar="CANISTER", help="Not these children; may be repeated."),
]
ActiveOption = Annotated[
    str | None,
    typer.Option("--active-since", metavar="WHEN", help="Only those active since 2h, 3d ago, or a time."),
]
HaltOption = Annotated[
    bool, typer.Option("--halt", help="On too many failures halt and wait, instead of going back.")
]
YesOption = Annotated[bool, typer.Option("--yes", help="Begin although there is no way back.")]
SkipOption = Annotated[
    bool,
    typer.Option(
        "--skip-pre-upgrade", help="Leave out the @pre_upgrade of what children run: where that one fails."
    ),
]
ForceOption = Annotated[bool, typer.Option("--force", help="Begin although interface or state do not fit.")]


def add_to(rollout: typer.Typer) -> None:
    """Hang this command into the group."""
    rollout.command(
        epilog="Examples: cannery fleet rollout start user:4 --follow; "
        "cannery fleet rollout start user --canary 2 --failures 1 --active-since 30d"
    )(start)


def start(
    releases: ReleasesArgument,
    concurrency: ConcurrencyOption = DEFAULT_CONCURRENCY,
    canary: CanaryOption = None,
    canary_failures: CanaryFailuresOption = None,
    failures: FailuresOption = None,
    tries: TriesOption = None,
    retry_pause: RetryPauseOption = None,
    version: FromVersionOption = None,
    include: IncludeOption = None,
    exclude: ExcludeOption = None,
    active_since: ActiveOption = None,
    arg: CandidOption = None,
    halt: HaltOption = False,
    yes: YesOption = False,
    force: ForceOption = False,
    skip_pre_upgrade: SkipOption = False,
    follow: FollowOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Compare a release with what children run, forward and back, and bring it to them in waves."""
    from cannery.cli.fleet_compare import find_release
    from cannery.cli.fleet_follow import follow_rollout
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import find_rollout
    from cannery.cli.fleet_rollouts import end_with
    from cannery.cli.fleet_spread import read_whole

    rule = _rule(canary, canary_failures, failures, tries, retry_pause, goes_back=not halt)
    with open_fleet(node, identity, index, "starting the rollout") as opened:
        chosen = [find_release(opened.index, text) for text in releases]
        narrowed = _filter(opened, version or [], include or [], exclude or [], active_since)
        _compare(opened, chosen, narrowed, yes=yes, force=force)
        order = _order(chosen, concurrency, narrowed, rule, arg, force=force, skip=skip_pre_upgrade)
        id = _begin(opened, order)
        found = find_rollout(opened.index, id)
        if follow:
            opened.session.line.stop()
            whole = follow_rollout(opened, found)
        else:
            whole = read_whole(opened, found, looks=True)
    emit(whole.as_data(), as_json, whole.lines())
    if follow:
        end_with(whole)


def _rule(
    canary: Percent,
    canary_failures: Percent,
    failures: Percent,
    tries: int | None,
    retry_pause: int | None,
    *,
    goes_back: bool,
) -> RuleChange:
    from cannery.fleet.rollout_types import RuleChange

    return RuleChange(
        canary_permille=_permille("--canary", canary),
        canary_fault_permille=_permille("--canary-failures", canary_failures),
        fault_permille=_permille("--failures", failures),
        tries_max=tries,
        retry_ns=None if retry_pause is None else retry_pause * NS_PER_S,
        goes_back=goes_back,
    )


def _permille(option: str, percent: Percent) -> int | None:
    """Read a share; a tenth of a percent is the finest."""
    from cannery.cli.problem import Problem

    if percent is None:
        return None
    permille = round(percent * 10)
    if not 0 <= percent <= 100 or abs(permille - percent * 10) > 1e-9:
        raise Problem(f"{option} is 0 to 100 percent, in tenths, not {percent:g}")
    return permille


def _filter(
    opened: FleetSession,
    versions: Sequence[int],
    include: Sequence[str],
    exclude: Sequence[str],
    active_since: str | None,
) -> RolloutFilter:
    import time

    from cannery.cli.log_lines import read_since
    from cannery.cli.problem import Problem
    from cannery.fleet.rollout_filter import RolloutFilter

    included = [opened.session.canister(text) for text in include]
    excluded = [opened.session.canister(text) for text in exclude]
    for canister in [*included, *excluded]:
        if opened.index.child(canister) is None:
            raise Problem(
                f"{canister} is no child of {opened.name}; see: cannery fleet list --index {opened.name}", 1
            )
    return RolloutFilter(
        list(versions),
        included,
        excluded,
        None if active_since is None else read_since(active_since, time.time_ns()),
    )


def _compare(
    opened: FleetSession,
    chosen: Sequence[ReleaseEntry],
    narrowed: RolloutFilter,
    *,
    yes: bool,
    force: bool,
) -> None:
    """Show how the releases go with what runs, and refuse what was not asked for in earnest."""
    from cannery.cli.fleet_compare import compare_with_running

    compared = [each for release in chosen for each in compare_with_running(opened.index, release, narrowed)]
    opened.session.line.hide()
    for each in compared:
        for line in each.lines():
            note(line)
    _require_will(compared, yes=yes, force=force)


def _require_will(compared: Sequence[Compared], *, yes: bool, force: bool) -> None:
    from cannery.cli.problem import Problem

    for each in compared:
        step = f"{each.kind} {each.from_version} to {each.to_version}"
        if not each.fits and not force:
            raise Problem(f"{step} does not fit: mend the release, or begin all the same with --force", 1)
        if not each.has_way_back and not (yes or force):
            raise Problem(
                f"from {step} there is no way back: a failure halts it. Begin all the same with --yes", 1
            )


def _order(
    chosen: Sequence[ReleaseEntry],
    concurrency: int,
    narrowed: RolloutFilter,
    rule: RuleChange,
    arg: str | None,
    *,
    force: bool,
    skip: bool,
) -> RolloutArgs:
    from cannery.cli.candid_arguments import read_arguments
    from cannery.fleet.rollout_types import KindVersion, RolloutArgs

    return RolloutArgs(
        releases=[KindVersion(release.kind, release.version) for release in chosen],
        concurrency=concurrency,
        filter=narrowed,
        rule=rule,
        arg=None if arg is None else read_arguments(arg, None, "the module").encoded,
        force=force,
        skip_pre_upgrade=skip,
    )


def _begin(opened: FleetSession, order: RolloutArgs) -> int:
    from cannery.cli.problem import Problem

    result = opened.index.rollout_start(order)
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)
    return int(result.ok)
