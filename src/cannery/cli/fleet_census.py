"""`cannery fleet census`: what all children have and did, added up by a sweep of the index."""

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
    from cannery.cli.fleet_index import FleetSession
    from cannery.fleet.census import CensusReport

LOOK_PAUSE_S = 0.3
STUCK_S_MAX = 90.0

census = typer.Typer(
    name="census",
    short_help="Look at every child and add up.",
    help="The census: a look at every child in turn; it adds up and puts right what the index has wrong.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


def add_to(fleet: typer.Typer) -> None:
    """Hang these commands into the group."""
    fleet.add_typer(census)


@census.command(epilog="Example: cannery fleet census show --json")
def show(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Show what the last census has found."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "asking for the census") as opened:
        found = opened.index.census()
    _emit(found, as_json)


@census.command(epilog="Example: cannery fleet census take")
def take(
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Take a census now and show what it has found."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "taking the census") as opened:
        found = _take(opened)
    _emit(found, as_json)


@census.command(epilog="Example: cannery fleet census every 600")
def every(
    seconds: Annotated[int, typer.Argument(metavar="SECONDS", min=1, help="From one census to the next.")],
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Set how often a census is taken."""
    from cannery.cli.fleet_index import open_fleet

    with open_fleet(node, identity, index, "setting the census") as opened:
        opened.index.census_set(seconds)
    emit({"every_s": seconds}, as_json, [f"a census is taken every {seconds} s"])


def _take(opened: FleetSession) -> CensusReport:
    """Begin a sweep and wait for its end, for as long as it gets on."""
    import time

    from cannery.cli.problem import Problem

    before = opened.index.census().ended_ns
    opened.index.census_take()
    place, moved_s = -1, time.monotonic()
    while True:
        found = opened.index.census()
        if found.ended_ns > before and found.sweeping_at is None:
            return found
        if found.sweeping_at is not None and found.sweeping_at != place:
            place, moved_s = found.sweeping_at, time.monotonic()
            opened.session.line.say(f"at child {place:,}")
        if time.monotonic() - moved_s > STUCK_S_MAX:
            raise Problem(
                f"the census stands still at child {place:,}; see: cannery fleet logs {opened.name}", 5
            )
        time.sleep(LOOK_PAUSE_S)


def _emit(found: CensusReport, as_json: bool) -> None:
    from cannery.cli.fleet_status import census_lines

    emit(found, as_json, census_lines(found))
