"""`cannery backup` and a running node: it serves meanwhile; what comes back is what it had."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cannery.candid.codec import encoder
from cannery.candid.python import nat64, type_of
from cannery.node.backup.errors import BackupError
from cannery.node.backup.source import ask_checkpoints
from cannery.node.data_dir import DataDir
from cannery.protocol.principal import Principal
from tests.backup.stand import Stand
from tests.conftest import Cli, Ran
from tests.node_under_test import NodeUnderTest
from tests.waiting import wait_until

BOOK = Path(__file__).resolve().parents[2] / "examples" / "guestbook.py"
FOUNDER = Path(__file__).parent / "founder.py"
_SIGN = encoder((type_of(str),))
_LATEST = encoder((type_of(nat64),))


def run(cli: Cli, *arguments: str, node: NodeUnderTest | None = None) -> Any:
    """Run a command that must succeed; give its JSON (Any: each command has its own)."""
    done = cli(*arguments, "--json", node=node)
    assert done.code == 0, done.err
    return done.json


def entries(cli: Cli, node: NodeUnderTest, book: str) -> Any:
    return run(cli, "canister", "call", book, "latest", "(1000)", "--query", node=node)


@pytest.fixture
def place(tmp_path: Path) -> str:
    return str(tmp_path / "backups")


def make_book(cli: Cli, node: NodeUnderTest, name: str = "book") -> str:
    made = run(cli, "canister", "create", "--name", name, node=node)
    run(cli, "canister", "install", name, str(BOOK), "--arg", "(null)", node=node)
    return str(made["canister_id"])


class Load:
    """Signs a book again and again on a thread; remembers what was acknowledged."""

    def __init__(self, node: NodeUnderTest, book: str) -> None:
        self.acknowledged: list[str] = []
        self._node, self._book = node, Principal.parse(book)
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        with self._node.agent(self._node.operator) as agent:
            while not self._ends.is_set():
                text = f"entry {len(self.acknowledged)}"
                agent.call(self._book, "sign", _SIGN((text,)))
                self.acknowledged.append(text)

    def wait_for(self, count: int) -> None:
        """Wait until so many were acknowledged."""
        wait_until(lambda: len(self.acknowledged) >= count, "the load does not get on")

    def __enter__(self) -> Load:
        self._thread.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self._ends.set()
        self._thread.join()


def test_backup_under_load_wipe_restore_and_go_on(
    cli: Cli, start_node: Any, place: str, tmp_path: Path
) -> None:
    node: NodeUnderTest = start_node()
    book = make_book(cli, node)
    with Load(node, book) as load:
        load.wait_for(20)
        before = len(load.acknowledged)
        first = run(cli, "backup", "create", place, "--data", str(node.data))
        load.wait_for(before + 20)
        between = len(load.acknowledged)
        second = run(cli, "backup", "create", place, "--data", str(node.data))
        load.wait_for(between + 5)
    assert first["was_running"]
    assert second["follows"] == [1]
    assert second["written_bytes"] < first["written_bytes"]
    assert not DataDir(node.data).checkpoint.exists()
    checked = run(cli, "backup", "verify", place, "--drill")
    assert checked["problems"] == []
    assert checked["drill"]["replayed_from"] == 1
    assert checked["drill"]["replayed_blocks"] >= 1, "how many rounds 20 answers take is the machine's affair"

    node.stop()
    root_key = node.root_key
    done = run(cli, "backup", "restore", place, "--to", str(tmp_path / "again"))
    assert done["state_hash"] == second["state_hash"]
    assert Stand(tmp_path).state_hash(tmp_path / "again").hex() == second["state_hash"]
    restored: NodeUnderTest = start_node("again")
    assert restored.root_key == root_key
    texts = [entry["text"] for entry in reversed(entries(cli, restored, book)[0])]
    assert texts[:between] == load.acknowledged[:between], "what was acknowledged before is there"
    with restored.agent(restored.operator) as agent:
        agent.call(Principal.parse(book), "sign", _SIGN(("after",)))
    assert entries(cli, restored, book)[0][0]["text"] == "after"
    third = run(cli, "backup", "create", place, "--data", str(restored.data))
    assert third["block"] > second["block"]
    assert third["follows"] == [1, 2], "its blocks go on where the backup was"

    listed = run(cli, "backup", "list", place)
    (span,) = listed["points_in_time"]
    assert (span["first_block"], span["last_block"]) == (first["block"], third["block"])
    point = run(
        cli,
        "backup",
        "restore",
        place,
        "--to",
        str(tmp_path / "point"),
        "--until-block",
        str(first["block"] + 7),
    )
    assert (point["block"], point["replayed_blocks"]) == (first["block"] + 7, 7)


def test_canisters_go_back_into_a_running_node(cli: Cli, start_node: Any, place: str) -> None:
    node: NodeUnderTest = start_node()
    book, other = make_book(cli, node), make_book(cli, node, "other")

    def sign(canister: str, text: str) -> None:
        run(cli, "canister", "call", canister, "sign", f'("{text}")', node=node)

    def texts(canister: str) -> list[str]:
        return [entry["text"] for entry in entries(cli, node, canister)[0]]

    def restore(*arguments: str) -> Ran:
        return cli("backup", "restore", place, "--yes", *arguments, node=node)

    sign(book, "before")
    sign(other, "before")
    run(cli, "backup", "create", place, "--canister", "book", "--canister", other, node=node)
    run(cli, "backup", "create", place, node=node)
    sign(book, "after")
    sign(other, "after")
    refused = cli("backup", "restore", place, "--canister", book, "--canister", other, node=node)
    assert (refused.code, refused.out) == (1, "")
    assert refused.error.startswith("2 canisters, ")
    assert "have run messages since then, the last one at " in refused.error
    assert texts("book") == texts("other") == ["after", "before"]
    for number in ("1", "2"):
        sign(book, "later")
        done = restore("--canister", "book" if number == "2" else book, "--backup", number)
        assert (done.code, done.out) == (0, f"{book} is as it was\n"), done.err
        assert texts("book") == ["before"]
    assert texts("other") == ["after", "before"]
    copied = run(
        cli, "backup", "restore", place, "--canister", book, "--canister", "other", "--as-new", node=node
    )
    fresh = [moved["canister_id"] for moved in copied["restored"]]
    assert [texts(each) for each in fresh] == [["before"], ["before"]]
    assert not {book, other} & set(fresh)
    assert run(cli, "canister", "snapshot", "list", "book", node=node) == [], "nothing is left behind"

    sign(book, "second")
    back = run(cli, "backup", "create", place, node=node)
    done = cli("backup", "restore", place, "--canister", book, node=node)
    assert (done.code, texts("book")) == (0, ["second", "before"]), "nothing is undone, nothing is asked"
    sign(book, "third")
    run(cli, "backup", "create", place, node=node)
    done = restore("--canister", "book", "--until-block", str(back["block"]))
    assert texts("book") == ["second", "before"], done.err

    # What is not there fails in words, and the others are done.
    run(cli, "canister", "stop", "other", node=node)
    run(cli, "canister", "delete", other, node=node)
    done = restore("--canister", other)
    assert (done.code, "is not" in done.error or "not found" in done.error.lower()) == (1, True), done.err
    done = restore("--canister", book, "--canister", other)
    assert (done.code, f"{other} failed" in done.out, f"{book} is as it was" in done.out) == (1, True, True)
    wrong = restore("--canister", "nobody")
    assert (wrong.code, "neither a canister id nor the name" in wrong.error) == (1, True)


def test_a_fleet_goes_back_with_its_index(cli: Cli, start_node: Any, place: str, tmp_path: Path) -> None:
    node: NodeUnderTest = start_node()
    added = run(cli, "module", "add", str(BOOK), node=node)
    module = "".join(f"\\{byte:02x}" for byte in bytes.fromhex(added["hash"]))
    run(cli, "canister", "create", "--name", "index", node=node)
    run(cli, "canister", "install", "index", str(FOUNDER), node=node)

    def call(canister: str, method: str, arguments: str, *flags: str) -> Any:
        return run(cli, "canister", "call", canister, method, arguments, *flags, node=node)

    call("index", "found", f'(blob "{module}")')
    members = [call("index", "make", f'(blob "{module}")')[0] for _ in range(3)]
    call(members[0], "sign", '("before")')
    saved = run(cli, "backup", "create", place, "--fleet", "index", node=node)
    assert saved["canisters"] == 4
    assert not saved["has_keys"]

    for member in members:
        call(member, "sign", '("after")')
    call("index", "make", f'(blob "{module}")')
    done = cli("backup", "restore", place, "--fleet", "index", "--yes", node=node)
    assert done.code == 0, done.err
    assert done.out.count("is as it was") == 4
    assert [len(entries(cli, node, member)[0]) for member in members] == [1, 0, 0]
    assert call("index", "count", "()", "--query") == [3]
    # They are members still: what a fleet's backup holds of the fleet itself is as it was.
    again = run(cli, "backup", "create", place, "--fleet", "index", node=node)
    assert again["canisters"] == 5
    # The same fleet out of a node's backup; a node out of it, though a fleet's came after.
    missing = cli("backup", "restore", place, "--to", str(tmp_path / "none"))
    assert (missing.code, "no backup of a whole node here" in missing.error) == (1, True)
    whole = run(cli, "backup", "create", place, node=node)
    run(cli, "backup", "create", place, "--fleet", "index", node=node)
    assert run(cli, "backup", "restore", place, "--to", str(tmp_path / "whole"))["backup"] == whole["backup"]
    run(cli, "backup", "create", place, node=node)
    call(members[1], "sign", '("later")')
    done = cli("backup", "restore", place, "--fleet", "index", "--yes", node=node)
    assert (done.code, done.out.count("is as it was")) == (0, 5), done.err
    assert entries(cli, node, members[1])[0] == []
    wrong = cli("backup", "create", place, "--fleet", members[0], node=node)
    assert (wrong.code, "is no fleet" in wrong.error) == (1, True)


def test_a_lost_module_comes_back_with_its_canister(cli: Cli, start_node: Any, place: str) -> None:
    node: NodeUnderTest = start_node()
    book = make_book(cli, node)
    run(cli, "canister", "call", book, "sign", '("before")', node=node)
    run(cli, "backup", "create", place, "--canister", "book", node=node)
    other: NodeUnderTest = start_node("other")
    done = run(cli, "backup", "restore", place, "--canister", book, "--as-new", node=other)
    (moved,) = done["restored"]
    assert [entry["text"] for entry in entries(cli, other, moved["canister_id"])[0]] == ["before"]


def test_a_checkpoint_that_cannot_be_made_is_refused_in_words(start_node: Any) -> None:
    node: NodeUnderTest = start_node()
    folder = DataDir(node.data)
    folder.checkpoint.mkdir()
    with pytest.raises(BackupError, match=r"cannot make a copy of its store: .* there is something already"):
        ask_checkpoints([folder.socket])
    # A node that starts removes what a killed backup has left.
    node.stop()
    node.start()
    assert not folder.checkpoint.exists()
    assert ask_checkpoints([folder.socket])[0].block > 0


def test_commands_say_what_is_wrong(cli: Cli, tmp_path: Path, place: str) -> None:
    def error(code: int, *arguments: str) -> str:
        done = cli("backup", *arguments)
        assert done.code == code, done.err
        return done.error

    assert "is no data directory" in error(1, "create", place, "--data", str(tmp_path / "no"))
    assert "there are no backups here" in error(1, "list", str(tmp_path / "empty"))
    assert "there are no backups here" in error(1, "verify", str(tmp_path / "empty"))
    assert "say --fleet or --canister" in error(2, "create", place, "--fleet", "a", "--canister", "b")
    assert "say what to restore" in error(2, "restore", place)
    assert "say what to keep" in error(1, "prune", place)
    assert "cannot be opened" in error(1, "list", "nope://x")
