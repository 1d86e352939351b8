"""Following a rollout until it ends or needs somebody: a bar on a terminal, else a line for each change."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator

from cannery.cli.fleet_index import FleetIndex
from cannery.cli.fleet_rollout import count_words, find_rollout, progress_line, releases_of
from cannery.cli.output import note
from cannery.fleet.rollout_types import RolloutInfo

LOOK_PAUSE_S = 0.5


def follow_rollout(index: FleetIndex, found: RolloutInfo) -> RolloutInfo:
    """Show how a rollout gets on; return how it ended, or stands where it waits for an operator."""
    show = _show_bar if sys.stderr.isatty() else _show_lines
    return show(_looks(index, found))


def _looks(index: FleetIndex, found: RolloutInfo) -> Iterator[RolloutInfo]:
    """Look again and again, until nothing changes by itself any more."""
    yield found
    while found.ended_ns is None and found.state.tag != "stalled":
        time.sleep(LOOK_PAUSE_S)
        found = find_rollout(index, found.id)
        yield found


def _show_lines(looks: Iterator[RolloutInfo]) -> RolloutInfo:
    shown, last, begun_s = "", None, time.monotonic()
    for found in looks:
        text = f"{found.state.tag.replace('_', ' ')}, {progress_line(found)}: {count_words(found)}"
        if text != shown:
            note(f"rollout {found.id} ... {time.monotonic() - begun_s:.0f} s - {text}")
        shown, last = text, found
    assert last is not None, "there is at least one look"
    return last


def _show_bar(looks: Iterator[RolloutInfo]) -> RolloutInfo:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    last = None
    state, children = TextColumn("{task.description}"), TextColumn("{task.fields[children]}")
    console = Console(stderr=True)
    with Progress(
        state, BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), children, console=console
    ) as bar:
        task = bar.add_task("", total=None, children="")
        for last in looks:
            bar.update(
                task,
                description=f"{releases_of(last)} {last.state.tag.replace('_', ' ')}",
                completed=last.progress.settled,
                total=max(1, last.progress.expected),
                children=count_words(last),
            )
    assert last is not None, "there is at least one look"
    return last
