"""Canisters, modules and operators from the command line: each command at its work, and refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

BOOK = '''"""A guestbook."""
from cannery import Canister, Context, StableCell, StableLog, nat32, nat64, init, query, update

class Book(Canister):
    entries = StableLog(str)
    title = StableCell(str, "")

    @init
    def start(self, ctx: Context, title: str | None) -> None:
        self.title.set(title or "untitled")

    @update
    def sign(self, ctx: Context, text: str) -> nat64:
        ctx.log(f"signed: {text}")
        if not text:
            ctx.reject("an entry is not empty")
        return self.entries.append(text)

    @query
    def latest(self, ctx: Context, limit: nat32) -> list[str]:
        return [text for _, text in self.entries.page(limit=limit, reverse=True).items]

    @query
    def name(self, ctx: Context) -> str:
        return self.title.get()
'''


@pytest.fixture
def book(tmp_path: Path) -> Path:
    path = tmp_path / "book.py"
    path.write_text(BOOK)
    return path


def deployed(cli: Cli, node: NodeUnderTest, book: Path, name: str) -> str:
    done = cli("deploy", str(book), "--name", name, "--arg", '(opt "first")', node=node)
    assert done.code == 0, done.err
    return done.out.splitlines()[-1]


def test_a_deploy_prints_the_id_last_and_the_next_one_upgrades(
    cli: Cli, running_node: NodeUnderTest, book: Path
) -> None:
    canister_id = deployed(cli, running_node, book, "test_deploy")
    signed = cli("canister", "call", "test_deploy", "sign", '("hello")', node=running_node)
    assert signed.out == "(0 : nat64)\n"
    book.write_text(BOOK.replace("reverse=True", "reverse=False") + "# another version\n")
    again = cli("deploy", str(book), "--name", "test_deploy", "--json", node=running_node)
    assert again.json["action"] == "upgraded"  # type: ignore[index]
    assert again.json["canister_id"] == canister_id  # type: ignore[index]
    read = cli("canister", "call", canister_id, "latest", "(9)", "--query", node=running_node)
    assert read.out == '(vec { "hello" })\n'
    assert cli("canister", "call", canister_id, "name", "--query", node=running_node).out == '("first")\n'


def test_an_upgrade_that_is_refused_changes_nothing(
    cli: Cli, running_node: NodeUnderTest, book: Path
) -> None:
    deployed(cli, running_node, book, "test_refused")
    cli("canister", "call", "test_refused", "sign", '("kept")', node=running_node)
    book.write_text(BOOK.replace("entries = StableLog(str)", "entries = StableLog(nat64)"))
    refused = cli("deploy", str(book), "--name", "test_refused", node=running_node)
    assert refused.code == 1
    assert "entries" in refused.error
    read = cli("canister", "call", "test_refused", "latest", "9", "--query", "--json", node=running_node)
    assert read.json == [["kept"]]


def test_arguments_are_checked_before_anything_is_sent(
    cli: Cli, running_node: NodeUnderTest, book: Path
) -> None:
    deployed(cli, running_node, book, "test_arguments")
    for arguments, complaint in [
        (("sign", "(3)"), "sign takes (text)"),
        (("sign", "("), "does not fit"),
        (("sing", '("x")'), "did you mean 'sign'?"),
        (("sign", '("")'), "an entry is not empty"),
    ]:
        done = cli("canister", "call", "test_arguments", *arguments, node=running_node)
        assert done.code == (1 if complaint.startswith("an entry") else 2)
        assert complaint in done.error
    read = cli("canister", "call", "test_arguments", "latest", "-", "--query", node=running_node, stdin="(9)")
    assert read.out == "(vec {})\n"


def test_the_log_of_a_canister(cli: Cli, running_node: NodeUnderTest, book: Path) -> None:
    deployed(cli, running_node, book, "test_log")
    cli("canister", "call", "test_log", "sign", '("one")', node=running_node)
    assert cli("canister", "logs", "test_log", node=running_node).out.endswith("signed: one\n")
    (entry,) = cli("canister", "logs", "test_log", "--json", node=running_node).json  # type: ignore[misc]
    assert entry["text"] == "signed: one"


def test_the_life_of_a_canister(cli: Cli, running_node: NodeUnderTest, book: Path) -> None:
    created = cli("canister", "create", "--name", "test_life", "--cycles", "5000", node=running_node)
    canister_id = created.out.strip()
    status = cli("canister", "status", "test_life", "--json", node=running_node).json
    assert status["canister_id"] == canister_id  # type: ignore[index]
    assert (status["module_hash"], status["cycles"]) == (None, 5000)  # type: ignore[index]
    installed = cli("canister", "install", "test_life", str(book), "--arg", "(null)", node=running_node)
    assert installed.code == 0, installed.err
    assert installed.out.startswith("install of ")
    again = cli("canister", "install", "test_life", str(book), "--arg", "(null)", "--json", node=running_node)
    assert again.json["mode"] == "upgrade"  # type: ignore[index]
    topped = cli("canister", "top-up", "test_life", "77", "--json", node=running_node)
    assert topped.json["cycles"] == 5077  # type: ignore[index]
    early = cli("canister", "delete", "test_life", node=running_node)
    assert early.code == 1
    assert "stop it" in early.error
    assert cli("canister", "stop", "test_life", node=running_node).out == f"{canister_id} stopped\n"
    assert cli("canister", "call", "test_life", "name", node=running_node).code == 1
    assert cli("canister", "start", "test_life", node=running_node).code == 0
    assert cli("canister", "call", "test_life", "name", "--query", node=running_node).out == '("untitled")\n'
    assert cli("canister", "stop", "test_life", "--force", node=running_node).code == 0
    assert cli("canister", "delete", "test_life", node=running_node).code == 0
    gone = cli("canister", "status", "test_life", node=running_node)
    assert (gone.code, "no canister is named 'test_life'" in gone.error) == (2, True)
    assert cli("canister", "status", canister_id, node=running_node).code == 1


def test_settings_of_a_canister(cli: Cli, running_node: NodeUnderTest) -> None:
    cli("identity", "new", "ann")
    ann = cli("identity", "principal", "ann").out.strip()
    canister_id = cli("canister", "create", node=running_node).out.strip()
    changed = cli(
        "canister", "settings", canister_id, "--add-controller", "ann", "--freezing-threshold", "99",
        "--memory-allocation", "1000", "--memory-limit", "2000", "--log-visibility", "public", "--json",
        node=running_node,
    ).json  # fmt: skip
    assert ann in changed["controllers"]  # type: ignore[index]
    assert changed["freezing_threshold"] == 99  # type: ignore[index]
    assert changed["log_visibility"] == {"public": None}  # type: ignore[index]
    assert changed["wasm_memory_limit"] == 2000  # type: ignore[index]
    removed = cli("canister", "settings", canister_id, "--remove-controller", "ann", node=running_node)
    assert ann not in removed.out
    for option, value, code in [
        ("--remove-controller", "ann", 1),
        ("--add-controller", "nobody", 2),
        ("--log-visibility", "all", 2),
        ("--freezing-threshold", "-1", 2),
    ]:
        done = cli("canister", "settings", canister_id, option, value, node=running_node)
        assert (done.code, bool(done.error)) == (code, True)
    operator = str(running_node.operator.principal)
    last = cli("canister", "settings", canister_id, "--remove-controller", operator, node=running_node)
    assert "never be changed again" in last.error


def test_who_may_bring_modules_and_who_may_install_them(
    cli: Cli, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    for name in ("ann", "bob"):
        cli("identity", "new", name)
    book = tmp_path / "theirs.py"
    book.write_text(BOOK + "# a version that nobody has brought yet\n")
    as_ann = ("--identity", "ann")
    refused = cli("module", "add", str(book), *as_ann, node=running_node)
    assert refused.code == 1
    assert "operator" in refused.error
    assert "operator" in cli("canister", "create", *as_ann, node=running_node).error
    cli("canister", "create", "--name", "anns", "--controller", "ann", node=running_node)
    module_hash = cli("module", "add", str(book), node=running_node).out.strip()
    listed = cli("module", "list", "--json", node=running_node).json
    assert module_hash in [entry["hash"] for entry in listed]  # type: ignore[union-attr]
    by_hash = cli("canister", "install", "anns", module_hash, "--arg", "(null)", *as_ann, node=running_node)
    assert by_hash.code == 0, by_hash.err
    by_file = cli("canister", "install", "anns", str(book), *as_ann, "--arg", "(null)", node=running_node)
    assert by_file.code == 0, by_file.err
    assert f"{module_hash}  theirs:Book" in cli("module", "list", node=running_node).out
    stranger = cli("canister", "stop", "anns", "--identity", "bob", node=running_node)
    assert stranger.code == 1
    assert "ontroller" in stranger.error


def test_operators_come_and_go(cli: Cli, running_node: NodeUnderTest) -> None:
    cli("identity", "new", "ann")
    ann = cli("identity", "principal", "ann").out.strip()
    assert cli("operator", "add", "ann", node=running_node).out == f"{ann} is an operator\n"
    assert ann in cli("operator", "list", node=running_node).out.split()
    assert cli("canister", "create", "--identity", "ann", node=running_node).code == 0
    assert cli("operator", "remove", ann, "--json", node=running_node).json == {"removed": ann}
    assert ann not in cli("operator", "list", "--json", node=running_node).json  # type: ignore[operator]
    assert cli("operator", "add", "ann", "--identity", "ann", node=running_node).code == 1
    nobody = cli("operator", "add", "nobody", node=running_node)
    assert (nobody.code, "neither a principal nor" in nobody.error) == (2, True)


def test_the_last_operator_stays(cli: Cli, running_node: NodeUnderTest) -> None:
    last = str(running_node.operator.principal)
    assert cli("operator", "list", "--json", node=running_node).json == [last], "tests leave no other behind"
    done = cli("operator", "remove", last, node=running_node)
    assert done.code == 1
    assert done.error


def test_a_taken_name_is_refused(cli: Cli, running_node: NodeUnderTest) -> None:
    assert cli("canister", "create", "--name", "test_taken", node=running_node).code == 0
    done = cli("canister", "create", "--name", "test_taken", node=running_node)
    assert (done.code, "belongs to" in done.error) == (1, True)


def test_the_management_canister_is_called_by_its_interface(cli: Cli, running_node: NodeUnderTest) -> None:
    canister_id = cli("canister", "create", node=running_node).out.strip()
    argument = f'(record {{ canister_id = principal "{canister_id}" }})'
    done = cli("canister", "call", "aaaaa-aa", "canister_status", argument, node=running_node)
    assert done.code == 0, done.err
    assert "memory_metrics = record" in done.out
    unknown = cli("canister", "call", "aaaaa-aa", "make_coffee", node=running_node)
    assert (unknown.code, "no method 'make_coffee'" in unknown.error) == (2, True)


@pytest.mark.parametrize("text", ["xxxxx-xxxxx", "5v3p4-iyaaa-aaaaa-qaaaa-caa", "no_such_name"])
def test_what_is_no_canister_is_refused(cli: Cli, running_node: NodeUnderTest, text: str) -> None:
    done = cli("canister", "call", text, "name", node=running_node)
    assert (done.code, text in done.error) == (2, True)


# --- build ---


def test_a_build_writes_module_and_interface(cli: Cli, book: Path) -> None:
    done = cli("build", str(book), "--json")
    facts = done.json
    assert book.with_suffix(".wasm").read_bytes().startswith(b"\0asm")
    assert 'sign : ("text" : text) -> (nat64)' in book.with_suffix(".did").read_text()
    again = json.loads(cli("build", str(book), "--out", str(book.parent / "out"), "--json").out)
    assert again["hash"] == facts["hash"]  # type: ignore[index]
    assert (book.parent / "out" / "book.wasm").read_bytes() == book.with_suffix(".wasm").read_bytes()


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ("import time", "time"),
        ("import random", "random"),
        ("import os", "os"),
        ("import threading", "threading"),
        ("import socket", "socket"),
        ("cache = {}", "cache"),
        ("def broken(", "book.py:2"),
        ("raise ValueError('at load')", "at load"),
    ],
)
def test_a_build_refuses_what_canister_code_cannot_have(
    cli: Cli, book: Path, line: str, complaint: str
) -> None:
    book.write_text(BOOK.replace("\n", f"\n{line}\n", 1))
    done = cli("build", str(book))
    assert done.code == 2
    assert complaint in done.error
    assert not book.with_suffix(".wasm").exists()


def test_only_modules_are_brought(cli: Cli, running_node: NodeUnderTest, tmp_path: Path) -> None:
    bad = tmp_path / "bad.wasm"
    bad.write_bytes(b"\0asm\1\0\0\0")
    for arguments, code in [(("module", "add", str(bad)), 1), (("module", "add", "none.wasm"), 2)]:
        done = cli(*arguments, node=running_node)
        assert (done.code, bool(done.error)) == (code, True)
