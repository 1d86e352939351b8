"""`cannery canister snapshot`, against a running node."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

BOOK = Path(__file__).resolve().parents[2] / "examples" / "guestbook.py"


def test_a_canister_goes_back_to_a_snapshot(cli: Cli, running_node: NodeUnderTest) -> None:
    def canister(*arguments: str) -> object:
        done = cli("canister", *arguments, "--json", node=running_node)
        assert done.code == 0, done.err
        return done.json

    canister("create", "--name", "saved")
    canister("install", "saved", str(BOOK), "--arg", "(null)")
    canister("call", "saved", "sign", '("before")')
    taken = canister("snapshot", "create", "saved")
    assert isinstance(taken, dict)
    snapshot = taken["snapshot_id"]
    canister("call", "saved", "sign", '("after")')
    listed = canister("snapshot", "list", "saved")
    assert listed == [{"snapshot_id": snapshot, "taken_ns": taken["taken_ns"], "size": taken["size"]}]
    assert snapshot in cli("canister", "snapshot", "list", "saved", node=running_node).out

    asked = cli("canister", "snapshot", "restore", "saved", snapshot, node=running_node)
    assert (asked.code, "has run messages since" in asked.error) == (1, True), "what it would undo is named"
    assert "after" in cli("canister", "call", "saved", "latest", "(9)", "--query", node=running_node).out
    canister("snapshot", "restore", "saved", snapshot, "--yes")
    read = cli("canister", "call", "saved", "latest", "(9)", "--query", node=running_node).out
    assert "before" in read
    assert "after" not in read

    second = cli("canister", "snapshot", "create", "saved", "--replace", snapshot, node=running_node)
    canister("snapshot", "restore", "saved", second.out.strip())
    gone = cli("canister", "snapshot", "restore", "saved", snapshot, node=running_node)
    assert (gone.code, "has no snapshot" in gone.error) == (1, True)
    canister("snapshot", "delete", "saved", second.out.strip())
    assert canister("snapshot", "list", "saved") == []
    wrong = cli("canister", "snapshot", "delete", "saved", "no-hex", node=running_node)
    assert (wrong.code, "is not the id of a snapshot" in wrong.error) == (2, True)
