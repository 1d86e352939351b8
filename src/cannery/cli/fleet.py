"""`cannery fleet`: look after the canisters that an index has made. This module holds the tree of commands,
`status` and `top`; the others lie beside it, an area each.
"""

from __future__ import annotations

from typing import Annotated

import typer

from cannery.cli.options import (
    DEFAULT_INDEX,
    DEFAULT_URL,
    IndexOption,
    JsonOption,
    NodeOption,
    OperatorOption,
)

fleet = typer.Typer(
    name="fleet",
    short_help="Look after a fleet: the canisters of an index.",
    help="Fleets: the canisters that an index has made. Watch, configure, upgrade, fund and end them. "
    "CANISTER is a canister id, or a name that the node knows.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(app: typer.Typer) -> None:
    """Hang these commands into the tree."""
    from cannery.cli import (
        fleet_alarms,
        fleet_census,
        fleet_children,
        fleet_config,
        fleet_funds,
        fleet_locals,
        fleet_releases,
        fleet_rollouts,
    )

    for area in (
        fleet_children,
        fleet_releases,
        fleet_rollouts,
        fleet_funds,
        fleet_locals,
        fleet_config,
        fleet_census,
        fleet_alarms,
    ):
        area.add_to(fleet)
    app.add_typer(fleet)


@fleet.command(epilog="Examples: cannery fleet status; cannery fleet status --index zone_index --json")
def status(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show a fleet on one screen: children, pool, battery, alarms, census."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_status import read_report, report_lines
    from cannery.cli.output import emit

    with open_fleet(node, identity, index, "asking the fleet") as opened:
        report = read_report(opened)
    emit(report, as_json, report_lines(report))


@fleet.command(epilog="Examples: cannery fleet top; cannery fleet top --sort memory --once")
def top(
    sort: Annotated[
        str,
        typer.Option(
            "--sort",
            metavar="COLUMN",
            help="Sort by cycles (least first), memory, messages or active (most first).",
        ),
    ] = "cycles",
    kind: Annotated[
        str | None, typer.Option("--kind", metavar="KIND", help="Only children of this kind.")
    ] = None,
    limit: Annotated[
        int | None,
        typer.Option("--limit", metavar="N", min=1, help="Rows to show; without it as many as fit."),
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="Look once at all children, print, and end.")] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show the children live, the most notable first; keys: c, m, s, a sort, r turns round, q quits."""
    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_top import Wanted, read_sort, run_top

    wanted = Wanted(read_sort(sort), kind, limit, as_json)
    with open_fleet(node, identity, index, "looking at the children") as opened:
        run_top(opened, wanted, once=once)
