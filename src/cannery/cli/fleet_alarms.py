"""`cannery fleet alarms`: what is wrong with a fleet now, what was, and what comes up."""

from __future__ import annotations

from collections.abc import Callable, Iterator
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
    from cannery.cli.fleet_index import FleetIndex
    from cannery.fleet.alarms import Alarm

FOLLOW_PAUSE_S = 1.0


def add_to(fleet: typer.Typer) -> None:
    """Hang this command into the group."""
    fleet.command(epilog="Examples: cannery fleet alarms; cannery fleet alarms --follow --json")(alarms)


def alarms(
    everything: Annotated[
        bool, typer.Option("--all", help="All that the index has kept, with those that are over.")
    ] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", help="Then go on with new ones until Ctrl-C; --json: one document a line."),
    ] = False,
    index: IndexOption = DEFAULT_INDEX,
    identity: OperatorOption = None,
    node: NodeOption = DEFAULT_URL,
    as_json: JsonOption = False,
) -> None:
    """Print the alarms that are open; what to do about each kind stands in docs/runbooks.md."""
    import sys
    import time

    from cannery.cli.fleet_index import open_fleet
    from cannery.cli.fleet_status import alarm_line

    with open_fleet(node, identity, index, "asking for alarms") as opened:
        log = list(read_log(opened.index, None))
        found = log if everything else opened.index.alarms_open()
        if not follow:
            lines = [alarm_line(alarm) for alarm in found] or ["no alarm is open"]
            emit(found, as_json, lines)
            return
        opened.session.line.stop()
        after = log[-1].index if log else None
        for alarm in follow_log(opened.index, found, after, lambda: time.sleep(FOLLOW_PAUSE_S)):
            emit(alarm, as_json, [alarm_line(alarm)])
            sys.stdout.flush()


def read_log(index: FleetIndex, after: int | None) -> Iterator[Alarm]:
    """Read the log of alarms from the one behind `after` to its end."""
    from cannery.limits import ALARM_PAGE_COUNT_MAX

    while True:
        page = index.alarms(after, ALARM_PAGE_COUNT_MAX)
        yield from page
        if len(page) < ALARM_PAGE_COUNT_MAX:
            return
        after = page[-1].index


def follow_log(
    index: FleetIndex, found: list[Alarm], after: int | None, pause: Callable[[], None]
) -> Iterator[Alarm]:
    """Give alarms that are there, then each new one, for ever; `pause` waits between two looks."""
    yield from found
    while True:
        for alarm in read_log(index, after):
            after = alarm.index
            yield alarm
        pause()
