"""Following a rollout until it ends or needs somebody: a bar on a terminal, else a line for each change.

At a root it is followed through the local indexes, to the last one.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

from cannery.cli.fleet_index import FleetSession
from cannery.cli.fleet_rollout import count_words, find_rollout, progress_line, releases_of
from cannery.cli.fleet_spread import WholeRollout, read_whole
from cannery.cli.output import note
from cannery.fleet.rollout_types import RolloutInfo

LOOK_PAUSE_S = 0.5


@dataclass(frozen=True, slots=True)
class Look:
    """What there is to see at once: a rollout, and which local index it is one of ("": none)."""

    whole: WholeRollout
    found: RolloutInfo
    where: str

    def words(self) -> str:
        """Write it in one line."""
        found = self.found
        if not self.where and self.whole.passages:
            return "; ".join(passage.text() for passage in self.whole.passages)
        return (
            f"{self.where}{found.state.tag.replace('_', ' ')}, {progress_line(found)}: {count_words(found)}"
        )


def follow_rollout(opened: FleetSession, found: RolloutInfo) -> WholeRollout:
    """Show how a rollout gets on; return how it ended, or stands where it waits for an operator."""
    show = _show_bar if sys.stderr.isatty() else _show_lines
    last = show(_looks(opened, found)).whole
    return read_whole(opened, last.found)


def _looks(opened: FleetSession, found: RolloutInfo) -> Iterator[Look]:
    """Look again and again, until nothing changes by itself any more."""
    while True:
        whole = read_whole(opened, found, looks=True)
        yield _look(whole)
        if whole.is_over:
            return
        time.sleep(LOOK_PAUSE_S)
        found = find_rollout(opened.index, found.id)


def _look(whole: WholeRollout) -> Look:
    """Choose what is shown: the root's own part, or the local index that it is at."""
    for passage in whole.passages:
        for local in passage.locals:
            if local.rollout is not None:
                return Look(whole, local.rollout, f"local index {local.number}: ")
    return Look(whole, whole.found, "")


def _show_lines(looks: Iterator[Look]) -> Look:
    shown, last, begun_s = "", None, time.monotonic()
    for look in looks:
        text = look.words()
        if text != shown:
            note(f"rollout {look.whole.found.id} ... {time.monotonic() - begun_s:.0f} s - {text}")
        shown, last = text, look
    assert last is not None, "there is at least one look"
    return last


def _show_bar(looks: Iterator[Look]) -> Look:
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
                description=f"{last.where}{releases_of(last.found)} {last.found.state.tag.replace('_', ' ')}",
                completed=last.found.progress.settled,
                total=max(1, last.found.progress.expected),
                children=count_words(last.found),
            )
    assert last is not None, "there is at least one look"
    return last
