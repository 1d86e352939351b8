"""`cannery fleet top`: what it sorts and forgets, its frames without a terminal, and its keys on one."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from dataclasses import fields

import pytest

from cannery.cdk.management import CanisterReport, CanisterState
from cannery.cli.fleet_board import Board, Order, cells
from cannery.cli.fleet_index import open_fleet
from cannery.cli.fleet_top import Wanted, Watch
from cannery.fleet.directory_types import Child, ChildState
from cannery.protocol.principal import Principal
from tests.cli.library_town import Town
from tests.cli.terminal import read_until
from tests.conftest import Cli
from tests.node_under_test import PROGRAM, NodeUnderTest
from tests.waiting import NEVER_S

SECOND_NS = 1_000_000_000


def child(number: int) -> Child:
    canister = Principal(bytes([number, 1]))
    return Child(canister, "shelf", Principal(b"owner"), number, 1, 1, ChildState.active())


def report(**figures: int) -> CanisterReport:
    idle = dict.fromkeys((field.name for field in fields(CanisterReport)), 0)
    nothing = {"fleet": None, "kind": None, "version": None, "module_hash": None, "replaced_by": None}
    running = {"running": CanisterState.running(), "frozen": False, "controllers": []}
    return CanisterReport(**{**idle, **nothing, **running, **figures})  # type: ignore[arg-type]  # by name


def board_of(**columns: tuple[int, ...]) -> Board:
    """Fill a board: `cycles=(3, 1)` are those of child 0 and child 1."""
    board = Board()
    count = len(next(iter(columns.values())))
    rows = [report(**{name: values[at] for name, values in columns.items()}) for at in range(count)]
    children = [child(number) for number in range(count)]
    board.take(children, {each.canister: row for each, row in zip(children, rows, strict=True)}, SECOND_NS)
    return board


@pytest.mark.parametrize(
    ("column", "figures", "wanted"),
    [
        ("cycles", "cycles", [1, 2, 0]),
        ("memory", "memory_size", [0, 2, 1]),
        ("messages", "messages", [0, 2, 1]),
        ("active", "active_ns", [0, 2, 1]),
    ],
)
def test_the_most_notable_come_first_and_ties_by_number(column: str, figures: str, wanted: list[int]) -> None:
    board = board_of(**{figures: (9, 3, 5)})
    assert [seen.child.number for seen in board.rows(Order(column), 10)] == wanted
    assert [seen.child.number for seen in board.rows(Order(column, True), 2)] == wanted[::-1][:2]
    level = board_of(**{figures: (4, 4, 4)})
    assert [seen.child.number for seen in level.rows(Order(column), 2)] == [0, 1]


def test_two_looks_give_a_rate_and_what_a_round_does_not_meet_is_forgotten() -> None:
    board = board_of(messages=(10, 20))
    board.take([child(0)], {child(0).canister: report(messages=16)}, 4 * SECOND_NS)
    first, second = board.rows(Order("messages", True), 10)
    assert (first.child.number, first.per_s, second.per_s) == (0, 2.0, None)
    assert [row[7] for row in cells([first, second], 5 * SECOND_NS)] == ["2.0", ""]
    board.forget_before(2 * SECOND_NS)
    assert [seen.child.number for seen in board.rows(Order("cycles"), 10)] == [0]


def test_a_frame_without_a_terminal(cli: Cli, running_node: NodeUnderTest) -> None:
    town = Town(cli, running_node, "top_library")
    town.release()
    town.open_shelves(3)
    town.put(2, 1, "Walden")
    done = town.fleet("top", "--once", "--sort", "messages", "--limit", "2")
    assert done.code == 0, done.err
    first, second, headings, *rows = done.out.splitlines()
    assert first.startswith("top_library: 3 children, 0 in the pool")
    assert second == "2 of 3 seen, by messages"
    assert headings.split()[:4] == ["canister", "kind", "version", "state"]
    assert rows[0].split()[0] == str(town.shelves[2])
    assert len(rows) == 2
    found = town.fleet("top", "--once", "--json").json
    assert len(found["children"]) == found["seen"] == 3  # type: ignore[index, call-overload]
    assert town.fleet("top", "--once", "--kind", "desk").out.splitlines()[1] == "0 of 0 seen, by cycles"
    wrong = town.fleet("top", "--sort", "colour")
    assert (wrong.code, "sort by cycles, memory, messages or active" in wrong.error) == (2, True)


def test_a_pipe_gets_frame_after_frame_until_its_reader_leaves(cli: Cli, running_node: NodeUnderTest) -> None:
    Town(cli, running_node, "piped_library").release()
    command = [sys.executable, "-c", PROGRAM, "fleet", "top", "--index", "piped_library", "--json"]
    with subprocess.Popen(
        command,
        env=running_node.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as process:
        assert process.stdout is not None
        times = [json.loads(process.stdout.readline())["time_ns"] for _ in range(2)]
        assert times[1] > times[0]
        process.stdout.close()
        assert process.wait(NEVER_S) == 1


def test_keys_sort_and_leave(cli: Cli, running_node: NodeUnderTest) -> None:
    town = Town(cli, running_node, "live_library")
    town.release()
    town.open_shelves(1)
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "fleet", "top", "--index", "live_library"],
        env={**running_node.environment(), "TERM": "xterm", "COLUMNS": "150", "LINES": "20"},
        stdin=terminal,
        stdout=terminal,
        stderr=subprocess.DEVNULL,
    )
    try:
        os.close(terminal)
        read_until(screen, b"q quit")
        for key, text in ((b"m", b"by memory"), (b"r", b"by memory, turned round"), (b"a", b"by active")):
            os.write(screen, key)
            read_until(screen, text)
        os.write(screen, b"q")
        assert process.wait(NEVER_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)


def test_each_look_goes_on_where_the_last_one_was(cli: Cli, running_node: NodeUnderTest) -> None:
    town = Town(cli, running_node, "paged_library")
    town.release()
    town.open_shelves(3)
    with open_fleet(running_node.url, None, "paged_library", "looking") as opened:
        watch = Watch(opened, Wanted(Order("cycles"), None, 9, False), page_count=2)
        watch.look()
        assert watch.frame(Order("cycles")).seen == 2
        watch.look()
        assert watch.frame(Order("cycles")).seen == 3
        assert town.fleet("delete", str(town.shelves[0]), "--yes").code == 0
        for _ in range(3):
            watch.look()
        assert watch.frame(Order("cycles")).seen == 2
