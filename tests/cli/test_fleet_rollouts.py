"""Releases and rollouts by `cannery fleet` alone: one child that fails, a second try, a pause, a way back."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.cli.library_town import SHELF, SHELF_2, Town
from tests.cli.terminal import read_until
from tests.conftest import Cli
from tests.node_under_test import PROGRAM, NodeUnderTest
from tests.waiting import NEVER_S

COUNT = 50
BAD = 7

OTHER_TYPE = "    books = StableMap(nat64, nat64, counted=True)"


@pytest.fixture
def town(cli: Cli, running_node: NodeUnderTest, request: pytest.FixtureRequest) -> Town:
    made = Town(cli, running_node, f"{request.node.name[5:25]}_library")
    made.release()
    return made


def json_of(town: Town, *arguments: str, code: int = 0) -> Any:  # of the command's shape
    done = town.fleet(*arguments, "--json")
    assert done.code == code, done.err
    return done.json


def state_of(found: Any) -> str:  # a rollout as JSON
    (state,) = found["state"]
    assert isinstance(state, str)
    return state


def test_a_release_reaches_fifty_children_and_the_bad_one_is_put_aside_and_mended(town: Town) -> None:
    town.open_shelves(COUNT)
    for number in range(0, COUNT, 10):
        town.put(number, 1, "Walden")
    town.put(BAD, 1, "")
    added = town.fleet(
        "release", "add", SHELF_2, "--kind", "shelf", "--version", "2", "--note", "Finds books"
    )
    assert "shelf 1 to 2  interface fits, state fits" in added.out
    assert "shelf 2 to 1  interface does not fit (method 'find' is missing), state fits" in added.out

    begun = town.fleet("rollout", "start", "shelf:2", "--tries", "1", "--concurrency", "10", "--follow")
    assert begun.code == 0, begun.err
    assert "shelf 1 to 2  interface fits, state fits" in begun.err
    assert f"{COUNT - 1} forward, 1 quarantined" in begun.out
    status = json_of(town, "status")
    assert (status["quarantined"], status["drifted"], status["current"]) == (1, {"shelf": 1}, {"shelf": 2})
    (alarm,) = status["alarms"]
    assert alarm["kind"] == "quarantined"

    bad = str(town.shelves[BAD])
    failed = town.fleet("rollout", "failures")
    assert len(failed.out.splitlines()) == 2
    for text in (bad, "1 to 2", "quarantined", "book 1 has no title"):
        assert text in failed.out
    assert json_of(town, "show", bad)["child"]["version"] == 1
    (still,) = json_of(town, "list", "--version", "1")["children"]
    assert still["canister"] == bad

    town.put(BAD, 1, "Walden Two")
    assert town.fleet("rollout", "retry", bad).out == f"{bad} is tried again\n"
    done = json_of(town, "rollout", "show", "--follow")
    assert (state_of(done), done["counts"]["forward"], done["counts"]["quarantined"]) == ("done", COUNT, 0)
    assert json_of(town, "rollout", "failures") == []
    assert "nothing to try again" in town.fleet("rollout", "retry", "--all").out
    assert town.fleet("rollout", "failures").out == "no child failed in rollout 1\n"
    assert town.fleet("list", "--version", "1").out == "no such child\n"
    assert json_of(town, "list", "--version", "1")["children"] == []
    assert town.fleet("alarms").out == "no alarm is open\n"
    told = json_of(town, "alarms", "--all")
    assert [(each["subject"], each["is_over"]) for each in told] == [(bad, False), (bad, True)]


def test_a_rollout_pauses_goes_on_faster_and_is_cancelled(town: Town) -> None:
    town.open_shelves(12)
    town.release(SHELF_2, "Finds books")
    town.put(0, 1, "")
    begun = json_of(town, "rollout", "start", "shelf", "--canary", "100", "--canary-failures", "100",
                    "--failures", "100", "--retry-pause", "600", "--concurrency", "1")  # fmt: skip
    assert begun["id"] == 1
    paused = json_of(town, "rollout", "pause")
    assert (state_of(paused), paused["concurrency"]) == ("paused", 0)
    assert "paused" in town.fleet("rollout", "list").out
    assert "shelf:2 paused" in town.fleet("status").out
    second = town.fleet("rollout", "start", "shelf:2")
    assert (second.code, "rollout 1 of shelf is under way (paused)" in second.error) == (1, True)
    assert json_of(town, "rollout", "resume")["concurrency"] == 1, "as before the pause"
    assert json_of(town, "rollout", "speed", "3", "1")["concurrency"] == 3
    for _ in range(2):
        json_of(town, "rollout", "pause")
    assert json_of(town, "rollout", "resume")["concurrency"] == 3
    assert json_of(town, "rollout", "resume", "1", "--concurrency", "5")["concurrency"] == 5
    assert state_of(json_of(town, "rollout", "cancel", "1")) == "cancelled"
    over = town.fleet("rollout", "pause", "1")
    assert (over.code, "rollout 1 is over (cancelled)" in over.error) == (1, True)
    ended = town.fleet("rollout", "show", "1", "--follow")
    assert (ended.code, "state        cancelled" in ended.out) == (1, True)


def test_what_was_rolled_out_is_taken_back(town: Town) -> None:
    town.open_shelves(3)
    town.put(0, 1, "Walden")
    town.release(SHELF_2, "Finds books")
    json_of(town, "rollout", "start", "shelf:2", "--follow")
    assert town.fleet("rollout", "back").code == 0
    back = json_of(town, "rollout", "show", "--follow", code=1)
    assert (state_of(back), back["counts"]["back"]) == ("rolled_back", 3)
    assert len(json_of(town, "list", "--version", "1")["children"]) == 3
    rows = town.fleet("release", "list", "shelf").out.splitlines()
    assert [row.split()[:4] for row in rows[1:]] == [
        ["shelf:2", "0", "children", "20" + rows[1].split("20", 1)[1][:8]],
        ["shelf:1", "current", "3", "children"],
    ]


def test_a_release_that_is_bad_for_all_ends_at_the_canary(town: Town, tmp_path: Path) -> None:
    town.open_shelves(4)
    source = tmp_path / "burning.py"
    text = Path(SHELF_2).read_text().replace("for number, title in self.books.items():", "while True:")
    source.write_text(text.replace("if not title:", "if True:").replace("book {number}", "this shelf"))
    town.release(str(source), "Burns")
    ended = town.fleet("rollout", "start", "shelf:2", "--tries", "1", "--follow")
    assert ended.code == 1, ended.out
    assert "rolled back" in ended.out
    assert len(json_of(town, "list", "--version", "1")["children"]) == 4


def test_a_release_that_does_not_fit_wants_force_and_one_without_a_way_back_a_yes(
    town: Town, tmp_path: Path
) -> None:
    town.open_shelves(1)
    shelf = Path(SHELF.removesuffix(":Shelf")).read_text()
    other = tmp_path / "other.py"
    other.write_text(shelf.replace("    books = StableMap(nat64, str, counted=True)", OTHER_TYPE)
                     .replace("self.books.put(number, title)", "self.books.put(number, number)")
                     .replace("[title for _, title in", "[str(title) for _, title in"))  # fmt: skip
    town.release(f"{other}:Shelf", "Numbers")
    refused = town.fleet("rollout", "start", "shelf:2")
    assert refused.code == 1
    assert "with --force" in refused.error
    assert "shelf 1 to 2  interface fits, state does not fit (" in refused.err
    assert json_of(town, "rollout", "list") == []
    (child,) = json_of(town, "list")["children"]
    without = town.fleet("rollout", "start", "shelf:2", "--exclude", child["canister"], "--follow")
    assert without.code == 1, "new shelves are made with the release that it does not fit"
    elsewhere = town.fleet("rollout", "start", "shelf:2", "--from-version", "9", "--follow")
    assert (elsewhere.code, "does not fit" in elsewhere.err) == (0, False), elsewhere.err

    wider = tmp_path / "wider.py"
    wider.write_text(
        shelf.replace("StableMap(nat64, str, counted=True)", "StableMap(nat64, str | None, counted=True)")
    )
    town.release(f"{wider}:Shelf", "Unnamed books")
    asked = town.fleet("rollout", "start", "shelf:3")
    assert asked.code == 1, asked.out
    assert "there is no way back" in asked.error
    assert asked.error.endswith("with --yes")
    assert state_of(json_of(town, "rollout", "start", "shelf:3", "--yes", "--follow")) == "done"


@pytest.mark.parametrize(
    ("arguments", "code", "complaint"),
    [
        (("rollout", "start", "shelf:9"), 1, "there is no release shelf:9; see: cannery fleet release list"),
        (("rollout", "start", "desk"), 1, "there is no release of 'desk'; add one"),
        (("rollout", "start", "shelf:x"), 2, "say KIND:VERSION"),
        (("rollout", "start", "shelf", "--canary", "0.05"), 2, "--canary is 0 to 100 percent, in tenths"),
        (("rollout", "start", "shelf", "--failures", "101"), 2, "--failures is 0 to 100 percent"),
        (("rollout", "start", "shelf", "--tries", "99"), 1, "a child is tried 1 to 20 times"),
        (("rollout", "show"), 1, "there was no rollout yet; begin one: cannery fleet rollout start"),
        (("rollout", "show", "9"), 1, "there is no rollout 9; see: cannery fleet rollout list"),
        (("local", "list"), 1, "refusing_library has no local indexes: its children are its own"),
        (("rollout", "retry"), 2, "name the children to try again, or say --all"),
        (("rollout", "retry", "aaaaa-aa"), 1, "is not quarantined"),
        (("release", "add", SHELF, "--kind", "shelf", "--note", "again"), 1, "is shelf 1 already"),
        (("release", "add", SHELF_2, "--kind", "shelf", "--version", "1", "--note", "x"), 1, "versions rise"),
        (("release", "add", "no.py", "--kind", "shelf", "--note", "x"), 2, "no.py: there is no such file"),
    ],
)
def test_orders_that_do_not_fit_are_refused(
    cli: Cli, running_node: NodeUnderTest, arguments: tuple[str, ...], code: int, complaint: str
) -> None:
    town = Town(cli, running_node, "refusing_library")
    if not json_of(town, "release", "list"):
        town.release()
    done = town.fleet(*arguments)
    assert (done.code, complaint in done.error) == (code, True), done.err


def test_a_terminal_gets_a_bar(town: Town) -> None:
    town.open_shelves(2)
    town.release(SHELF_2, "Finds books")
    json_of(town, "rollout", "start", "shelf:2", "--follow")
    screen, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "fleet", "rollout", "show", "--follow", "--index", town.name],
        env={**town.node.environment(), "TERM": "xterm", "COLUMNS": "120"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=terminal,
    )
    try:
        os.close(terminal)
        read_until(screen, b"shelf:2 done", b"2/2", b"2 forward")
        assert process.wait(NEVER_S) == 0
    finally:
        process.kill()
        process.wait()
        os.close(screen)
