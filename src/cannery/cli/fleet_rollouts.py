"""`cannery fleet rollout`: bring a release to children in waves, watch it, steer it, see what failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from cannery.cli.options import (
    DEFAULT_INDEX,
    DEFAULT_URL,
    IndexOption,
    JsonOption,
    NodeOption,
    OperatorOption,
)
from cannery.cli.output import emit

if TYPE_CHECKING:
    from cannery.cli.fleet_spread import WholeRollout
    from cannery.fleet.rollout_types import RolloutInfo

DEFAULT_CONCURRENCY = 100

rollout = typer.Typer(
    name="rollout",
    short_help="Bring a release to children, in waves.",
    help="Rollouts: a release brought to children, a canary first, then in waves; what fails is tried again "
    "and then put aside, and too many failures take it back. N is a rollout's number; without it the latest.",
    no_args_is_help=True,
    rich_markup_mode=None,
)
NumberArgument = Annotated[
    int | None, typer.Argument(metavar="N", min=1, help="The rollout's number; without it the latest.")
]
ConcurrencyOption = Annotated[
    int,
    typer.Option(
        "--concurrency", metavar="N", min=0, help="Children in flight at most; 0 begins in a pause."
    ),
]
FollowOption = Annotated[
    bool, typer.Option("--follow", help="Show progress until it ends; exit code 0 if it is done, else 1.")
]


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    from cannery.cli import fleet_rollout_start

    fleet_rollout_start.add_to(rollout)
    fleet.add_typer(rollout)


@rollout.command(epilog="Example: cannery fleet rollout pause")
def pause(
    number: NumberArgument = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Send nothing more for now; what is in flight is still booked."""
    _set_concurrency(number, 0, index, identity, node, as_json)


@rollout.command(epilog="Examples: cannery fleet rollout resume; cannery fleet rollout resume 7")
def resume(
    number: NumberArgument = None,
    concurrency: Annotated[
        int | None,
        typer.Option(
            "--concurrency",
            metavar="N",
            min=1,
            help="At most so many children in flight; as many as before unless given.",
        ),
    ] = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Go on after a pause, or, accepting its failures, after a halt."""
    _set_concurrency(number, concurrency, index, identity, node, as_json)


@rollout.command(epilog="Example: cannery fleet rollout speed 500")
def speed(
    concurrency: Annotated[
        int, typer.Argument(metavar="CONCURRENCY", min=0, help="Children in flight at most; 0 pauses.")
    ],
    number: NumberArgument = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Change how many children are in flight at most, while it runs."""
    _set_concurrency(number, concurrency, index, identity, node, as_json)


@rollout.command(epilog="Example: cannery fleet rollout cancel 7")
def cancel(
    number: NumberArgument = None,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """End it where it is: what went forward stays there."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import find_rollout
    from cannery.cli.fleet_spread import require_steered

    with open_fleet(node, identity, index, "cancelling") as opened:
        known = find_rollout(opened.index, number)
        require_steered(opened, known, opened.index.rollout_cancel(known.id))
        found = find_rollout(opened.index, known.id)
    _emit(found, as_json)


@rollout.command(epilog="Example: cannery fleet rollout back 7")
def back(
    number: NumberArgument = None,
    force: Annotated[
        bool, typer.Option("--force", help="Try even where the former release cannot read all.")
    ] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take children back to their former release, with what they have stored since."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import find_rollout, require_ok

    with open_fleet(node, identity, index, "going back") as opened:
        id = find_rollout(opened.index, number).id
        require_ok(opened.index.rollout_go_back(id, force=force))
        found = find_rollout(opened.index, id)
    _emit(found, as_json)


@rollout.command(epilog="Examples: cannery fleet rollout show; cannery fleet rollout show 7 --follow")
def show(
    number: NumberArgument = None,
    follow: FollowOption = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show one: what was ordered, how far it is, what became of the children, why it stands."""
    from cannery.cli.fleet_follow import follow_rollout
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import find_rollout
    from cannery.cli.fleet_spread import read_whole

    with open_fleet(node, identity, index, "asking for the rollout") as opened:
        found = find_rollout(opened.index, number)
        if follow:
            opened.session.line.stop()
            whole = follow_rollout(opened, found)
        else:
            whole = read_whole(opened, found)
    emit(whole.as_data(), as_json, whole.lines())
    if follow:
        end_with(whole)


@rollout.command(name="list", epilog="Example: cannery fleet rollout list")
def list_rollouts(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the latest rollouts, newest first."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import rollout_rows

    with open_fleet(node, identity, index, "listing rollouts") as opened:
        found = opened.index.rollouts()
    emit(found, as_json, rollout_rows(found))


@rollout.command(epilog="Examples: cannery fleet rollout failures; cannery fleet rollout failures 7 --json")
def failures(
    number: NumberArgument = None,
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="At most so many.")] = 100,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """List the children that did not get where they should: from, to, tries, why."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import failure_rows, find_rollout, read_failures

    with open_fleet(node, identity, index, "listing failures") as opened:
        id = find_rollout(opened.index, number).id
        found = read_failures(opened.index, id, limit)
    emit(found, as_json, failure_rows(found) if found else [f"no child failed in rollout {id}"])


@rollout.command(
    epilog="Examples: cannery fleet rollout retry 5s2ji-faaaa-aaaaa-qaaaq-cai; "
    "cannery fleet rollout retry --all"
)
def retry(
    canisters: Annotated[
        list[str] | None, typer.Argument(metavar="CANISTER...", help="Quarantined children: ids or names.")
    ] = None,
    everyone: Annotated[
        bool, typer.Option("--all", help="All that the latest rollout has put aside.")
    ] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Try quarantined children again, at once."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import retry_children

    with open_fleet(node, identity, index, "asking for another try") as opened:
        tried = retry_children(opened, canisters or [], everyone=everyone)
    lines = [f"{canister} is tried again" for canister in tried] or [
        "nothing is put aside: nothing to try again"
    ]
    emit({"tried": tried}, as_json, lines)


def _set_concurrency(
    number: int | None, concurrency: int | None, index: str, identity: str | None, node: str, as_json: bool
) -> None:
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_rollout import find_rollout
    from cannery.cli.fleet_spread import require_steered

    with open_fleet(node, identity, index, "steering the rollout") as opened:
        known = find_rollout(opened.index, number)
        if concurrency is None:
            concurrency = known.concurrency or known.concurrency_before or DEFAULT_CONCURRENCY
        order = opened.index.rollout_set_concurrency(known.id, concurrency)
        require_steered(opened, known, order)
        found = find_rollout(opened.index, known.id)
    _emit(found, as_json)


def _emit(found: RolloutInfo, as_json: bool) -> None:
    from cannery.cli.fleet_rollout import rollout_lines

    emit(found, as_json, rollout_lines(found))


def end_with(whole: WholeRollout) -> None:
    """End with the exit code that says how a rollout ended."""
    if not whole.is_done:
        raise typer.Exit(1)
