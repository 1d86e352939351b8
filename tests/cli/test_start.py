"""`cannery start`, `demo` and `trust`: what a start prints, how it ends, and what it refuses."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cannery.client.identity_store import PinStore
from tests.conftest import Cli
from tests.node_under_test import PROGRAM, NodeUnderTest
from tests.waiting import NEVER_S


def run_start(node: NodeUnderTest, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a start that ends by itself."""
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, "start", *arguments],
        env=node.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NEVER_S,
    )


def test_a_node_goes_on_from_its_data(cli: Cli, start_node: Callable[..., NodeUnderTest]) -> None:
    node = start_node()
    for name in ("ann", "bob"):
        cli("identity", "new", name)
        assert cli("register", name, "--identity", name, node=node).code == 0
    assert cli("send", "bob", "one", "--identity", "ann", node=node).code == 0
    assert node.stop() == 0
    first = (node.url, node.root_key, node.canisters)
    start_node()
    assert (node.url, node.root_key, node.canisters) == first
    assert cli("send", "bob", "two", "--identity", "ann", node=node).code == 0
    node.kill()
    gone = cli("inbox", "--identity", "bob", node=node)
    assert gone.code == 3
    assert "cannery start" in gone.error
    start_node()
    lines = cli("inbox", "--identity", "bob", node=node).out.splitlines()
    assert [line.rpartition("ann: ")[2] for line in lines] == ["one", "two"]


def test_a_start_says_where_and_who(running_node: NodeUnderTest, tmp_path: Path) -> None:
    data = tmp_path / "data"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "start", "--data", str(data), "--port", "0"],
        env=running_node.environment() | {"CANNERY_HOME": str(tmp_path / "home")},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith("ready in "):
            break
    process.terminate()
    rest, _errors = process.communicate(timeout=NEVER_S)
    text = "".join(lines)
    for word in (
        "url ",
        "http://127.0.0.1:",
        "root key ",
        "operator ",
        "user_index ",
        "processes   1 subnet and ",
    ):
        assert word in text
    assert rest == "stopped\n"
    assert process.returncode == 0
    assert (data / "operator.pem").stat().st_mode & 0o777 == 0o600


def test_a_taken_port_a_used_directory_and_another_version(
    running_node: NodeUnderTest, tmp_path: Path
) -> None:
    taken = run_start(running_node, "--data", str(tmp_path / "a"), "--port", str(running_node.port))
    used = run_start(running_node, "--data", str(running_node.data), "--port", "0")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "format").write_text("cannery 99\n")
    old = run_start(running_node, "--data", str(tmp_path / "old"), "--port", "0")
    (tmp_path / "file").write_text("x")
    file = run_start(running_node, "--data", str(tmp_path / "file"), "--port", "0")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "cannery.toml").write_text("[node]\nprot = 3\n")
    slip = run_start(running_node, "--data", str(tmp_path / "set"), "--port", "0")
    for done, complaint in [
        (taken, "taken"),
        (used, "in use by another node"),
        (old, "cannery 99"),
        (file, "is a file"),
        (slip, "prot"),
    ]:
        assert done.returncode in (1, 2)
        assert done.stdout == ""
        # A slow machine says that it is starting, too.
        (line,) = [line for line in done.stderr.splitlines() if " ... " not in line]
        assert line.startswith("cannery: ")
        assert complaint in line


def test_a_changed_root_key_is_refused_until_it_is_trusted(
    cli: Cli, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    pins = PinStore(tmp_path / "cli-home")
    other = running_node.root_key[:-1] + bytes([running_node.root_key[-1] ^ 1])
    pins.set(running_node.url, other)
    cli("identity", "new", "ann")
    refused = cli("inbox", node=running_node)
    assert refused.code == 4
    assert "another root key" in refused.error
    assert f"cannery trust --node {running_node.url}" in refused.error
    trusted = cli("trust", "--json", node=running_node)
    assert trusted.json == {"node": running_node.url, "root_key": running_node.root_key.hex()}
    assert pins.find(running_node.url) == running_node.root_key
    assert cli("operator", "list", node=running_node).code == 0


def test_the_first_use_pins(cli: Cli, running_node: NodeUnderTest, tmp_path: Path) -> None:
    assert cli("operator", "list", node=running_node).code == 0
    assert PinStore(tmp_path / "cli-home").find(running_node.url) == running_node.root_key


def test_what_is_no_node_is_told_apart(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        monkeypatch.setenv("CANNERY_URL", f"http://127.0.0.1:{deaf.getsockname()[1]}")
        done = cli("operator", "list")
    assert done.code == 3
    assert "no node answers" in done.error
    assert cli("operator", "list", "--node", "nonsense").code == 2


def test_a_demo_has_people_a_guestbook_and_a_store(
    cli: Cli, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    data = tmp_path / "demo"
    home = tmp_path / "demo" / "people"
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, "demo", "--data", str(data), "--port", "0", "--json"],
        env=running_node.environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        ready = json.loads(process.stdout.readline())
        node = NodeUnderTest(data, home, url=ready["url"])
        environment = {"CANNERY_HOME": str(home), "CANNERY_URL": node.url, "CANNERY_DATA": str(data)}
        assert set(ready["canisters"]) == {"guestbook", "frozen_book", "store_index", "user_index"}
        inbox = subprocess.run(
            [sys.executable, "-c", PROGRAM, "inbox", "--identity", "bob"],
            env=running_node.environment() | environment,
            capture_output=True,
            text=True,
            timeout=NEVER_S,
        )
        assert [line.split("  ")[2].split(":")[0] for line in inbox.stdout.splitlines()] == ["ann", "carol"]
        book = cli("canister", "call", "guestbook", "latest", "(9)", "--query", "--json", node=node)
        assert [entry["text"] for entry in book.json[0]] == [  # type: ignore[index]
            "A small durable server, all mine.",
            "First!",
        ]
        stored = cli("store", "stats", "--json", node=node).json
        assert stored["count"] == 60  # type: ignore[index]
        assert len(stored["buckets"]) >= 3  # type: ignore[index]
        frozen = cli("canister", "call", "frozen_book", "sign", '("let me")', node=node)
        assert frozen.code == 1
        assert "is out of cycles: please top up" in frozen.error
        kept = cli("canister", "call", "frozen_book", "latest", "(9)", "--query", "--json", node=node)
        assert [entry["text"] for entry in kept.json[0]] == ["What is written stays."]  # type: ignore[index]
        assert cli("canister", "top-up", "frozen_book", str(10**12), node=node).code == 0
        assert cli("canister", "call", "frozen_book", "sign", '("let me")', node=node).code == 0
    finally:
        process.terminate()
        process.communicate(timeout=NEVER_S)
    assert process.returncode == 0


def test_help_answers_at_once(running_node: NodeUnderTest) -> None:
    """It loads the command line and what that stands on, not a node, a client or a library of theirs."""
    show = (
        "import atexit, sys; had = {*sys.modules}; atexit.register(lambda: print(*({*sys.modules} - had))); "
    )
    loaded = subprocess.run(
        [sys.executable, "-c", show + PROGRAM, "--help"],
        env=running_node.environment(),
        check=True,
        capture_output=True,
        text=True,
    ).stdout.splitlines()[-1]
    names = {name for name in loaded.split() if not name.startswith("_")}
    rooms = {".".join(name.split(".")[:2]) for name in names if name.startswith("cannery.")}
    assert rooms == {"cannery.cli", "cannery.errors"}
    others = {name.split(".")[0] for name in names} - sys.stdlib_module_names
    assert others <= {"annotated_doc", "cannery", "shellingham", "typer"}
