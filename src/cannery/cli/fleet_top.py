"""`cannery fleet top`: the frames, live on a terminal or printed one after the other."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from cannery.cli.fleet_board import HEADINGS, NUMBER_COLUMNS, Board, Order, Seen, cells, read_sort
from cannery.cli.fleet_index import FleetSession
from cannery.cli.fleet_lines import plural, table
from cannery.cli.output import emit, printable
from cannery.fleet.directory_types import ChildFilter, FleetStatus
from cannery.limits import FLEET_PAGE_COUNT_MAX

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Wanted", "read_sort", "run_top"]

REFRESH_S = 2.0
LINES_AROUND = 5
ROWS_WITHOUT_TERMINAL = 40
KEYS = {"c": "cycles", "m": "memory", "s": "messages", "a": "active"}
HELP = "c cycles  m memory  s messages  a active  r turn round  q quit"


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is shown, and how."""

    order: Order
    kind: str | None
    limit: int | None
    as_json: bool


@dataclass(frozen=True, slots=True)
class Frame:
    """What one look shows."""

    name: str
    status: FleetStatus
    battery: int
    seen: int
    order: Order
    rows: list[Seen]
    now_ns: int

    def head(self) -> list[str]:
        """Write what stands above the table."""
        status = self.status
        turned = ", turned round" if self.order.reverse else ""
        return [
            f"{self.name}: {plural(status.children, 'child', 'children')}, {status.pool} in the pool, "
            f"{status.making} being made, {status.leaving} leaving, "
            f"{plural(status.alarms_open, 'alarm')}, battery {self.battery:,}",
            f"{len(self.rows)} of {self.seen} seen, by {self.order.column}{turned}",
        ]

    def lines(self) -> Iterator[str]:
        """Write the frame as plain lines."""
        yield from self.head()
        yield from table(HEADINGS, cells(self.rows, self.now_ns))

    def fields(self) -> dict[str, object]:
        """Give the frame for programs."""
        children = [{"child": seen.child, "figures": seen.figures, "per_s": seen.per_s} for seen in self.rows]
        return {"time_ns": self.now_ns, "status": self.status, "seen": self.seen, "children": children}


class Watch:
    """Looks at a fleet, a page of children at a time, round and round."""

    def __init__(self, fleet: FleetSession, wanted: Wanted, page_count: int = FLEET_PAGE_COUNT_MAX) -> None:
        self._fleet = fleet
        self._page_count = page_count
        self._wanted = wanted
        self._board = Board()
        self._after: int | None = None
        self._round_ns = 0

    def look(self) -> None:
        """Look at the next page."""
        now_ns = time.time_ns()
        if self._after is None:
            self._board.forget_before(self._round_ns)
            self._round_ns = now_ns
        index = self._fleet.index
        page = index.page(ChildFilter(kind=self._wanted.kind), self._after, self._page_count)
        figures = index.figures([child.canister for child in page.items]) if page.items else {}
        self._board.take(page.items, figures, now_ns)
        self._after = page.next

    def look_at_all(self) -> None:
        """Look at every child once."""
        self.look()
        while self._after is not None:
            self._fleet.session.line.say(f"{len(self._board):,} children seen")
            self.look()

    def frame(self, order: Order) -> Frame:
        """Give the frame as things were seen."""
        index, now_ns = self._fleet.index, time.time_ns()
        rows = self._board.rows(order, self._wanted.limit or _rows_that_fit())
        return Frame(
            self._fleet.name,
            index.status(),
            index.funding().battery,
            len(self._board),
            order,
            rows,
            now_ns,
        )


def _rows_that_fit() -> int:
    if not sys.stdout.isatty():
        return ROWS_WITHOUT_TERMINAL
    return max(1, shutil.get_terminal_size().lines - LINES_AROUND)


def run_top(fleet: FleetSession, wanted: Wanted, *, once: bool) -> None:
    """Show frames until the reader has enough, or one."""
    watch = Watch(fleet, wanted)
    watch.look_at_all()
    fleet.session.line.stop()
    if once:
        _print(watch.frame(wanted.order), wanted)
    elif sys.stdin.isatty() and sys.stdout.isatty() and not wanted.as_json:
        _run_live(watch, wanted.order)
    else:
        _run_plain(watch, wanted)


def _run_plain(watch: Watch, wanted: Wanted) -> None:
    """Print frame after frame, for whoever reads them by a pipe."""
    while True:
        _print(watch.frame(wanted.order), wanted)
        time.sleep(REFRESH_S)
        watch.look()


def _print(frame: Frame, wanted: Wanted) -> None:
    emit(frame.fields(), wanted.as_json, frame.lines())
    sys.stdout.flush()


def _run_live(watch: Watch, order: Order) -> None:
    """Keep the terminal's screen up to date until `q`; keys choose the order."""
    from rich.console import Console
    from rich.live import Live

    from cannery.cli.fleet_keys import single_keys

    shown = watch.frame(order)
    with single_keys() as wait_key, Live(_drawn(shown), console=Console(), screen=True) as live:
        while True:
            key = wait_key(REFRESH_S)
            if key in ("q", "Q"):
                return
            order = _ordered(order, key)
            if not key:
                watch.look()
            shown = watch.frame(order)
            live.update(_drawn(shown), refresh=True)


def _ordered(order: Order, key: str) -> Order:
    """Give the order that a key asks for."""
    if key == "r":
        return replace(order, reverse=not order.reverse)
    return Order(KEYS[key]) if key in KEYS else order


def _drawn(frame: Frame) -> RenderableType:
    """Draw a frame for the terminal."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    rows = Table(box=None, pad_edge=False, header_style="bold", expand=True)
    for heading in HEADINGS:
        justify = "right" if heading in NUMBER_COLUMNS else "left"
        rows.add_column(heading, justify=justify, no_wrap=True)  # type: ignore[arg-type]  # one of two words
    for row in cells(frame.rows, frame.now_ns):
        rows.add_row(*(Text(printable(cell)) for cell in row))
    first, *others = (printable(line) for line in frame.head())
    return Group(Text(first, "bold"), *(Text(line) for line in others), rows, Text(HELP, "dim"))
