"""`icp canister snapshot` 1.5.0 against a running node: the whole round trip, and from node to node.

The tool itself wants a canister stopped before it takes or loads a snapshot; the node does not.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.protocol.principal import Principal
from tests.clients.conftest import NO_ARGUMENTS
from tests.clients.icp_tool import IcpTool, admit, admitted
from tests.node_under_test import NodeUnderTest

KEEPER = '''"""Keeps numbered texts."""

from cannery import Canister, Context, StableMap, nat64, query, update


class Keeper(Canister):
    """Keep and tell."""

    texts = StableMap(nat64, str, counted=True)

    @update
    def put(self, ctx: Context, first: nat64, count: nat64, text: str) -> None:
        """Keep a text under some numbers."""
        for number in range(first, first + count):
            self.texts.put(number, text)

    @query
    def text(self, ctx: Context, number: nat64) -> str | None:
        """Tell a text."""
        return self.texts.get(number)

    @query
    def count(self, ctx: Context) -> nat64:
        """Count."""
        return len(self.texts)
'''
Make = Callable[[NodeUnderTest], Principal]


@pytest.fixture(scope="module")
def tool(
    icp_tool: Path, running_node: NodeUnderTest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[IcpTool]:
    """The tool with two identities: `ann` is an operator of the node, `eve` is nobody."""
    folder = tmp_path_factory.mktemp("icp")
    tool = IcpTool(icp_tool, folder / "home", folder / "project", running_node)
    tool.new_identity("ann")
    tool.new_identity("eve")
    tool("identity", "default", "ann")
    with admitted(tool):
        yield tool


@pytest.fixture
def make_keeper(tool: IcpTool, tmp_path: Path) -> Make:
    """Make a canister on a node that is ann's and keeps texts."""
    source = tmp_path / "keeper.py"
    source.write_text(KEEPER)

    def make(node: NodeUnderTest) -> Principal:
        built = build_file(str(source))
        ann = Principal.parse(tool("identity", "principal", "--identity", "ann"))
        with node.agent(node.operator) as agent:
            management = Management(agent)
            management.module_bring(built.module, built.hash)
            keeper = management.create([ann, node.operator.principal], None)
            management.install(keeper, "install", built.hash, NO_ARGUMENTS)
        return keeper

    return make


def snapshot(tool: IcpTool, command: str, canister: Principal, *arguments: str) -> str:
    return tool("canister", "snapshot", command, str(canister), *arguments, *tool.target)


def ids(tool: IcpTool, canister: Principal) -> list[str]:
    """List the ids of a canister's snapshots."""
    found = json.loads(snapshot(tool, "list", canister, "--json"))
    return [entry["snapshot_id"] for entry in found["snapshots"]]


def call(tool: IcpTool, canister: Principal, method: str, arguments: str) -> str:
    return tool("canister", "call", *tool.target, str(canister), method, arguments)


def turn(tool: IcpTool, canister: Principal, word: str) -> None:
    tool("canister", word, str(canister), *tool.target)


def test_create_list_restore_delete(tool: IcpTool, make_keeper: Make, running_node: NodeUnderTest) -> None:
    keeper = make_keeper(running_node)
    call(tool, keeper, "put", '(1, 3, "before")')
    assert "running" in tool.refused("canister", "snapshot", "create", str(keeper), *tool.target)
    turn(tool, keeper, "stop")
    first = snapshot(tool, "create", keeper, "--quiet")
    second = json.loads(snapshot(tool, "create", keeper, "--json"))
    assert ids(tool, keeper) == [first, second["snapshot_id"]]
    assert first in snapshot(tool, "list", keeper)

    turn(tool, keeper, "start")
    call(tool, keeper, "put", '(2, 5, "after")')
    assert call(tool, keeper, "count", "()") == "(6 : nat64)"
    assert "running" in tool.refused("canister", "snapshot", "restore", str(keeper), first, *tool.target)
    turn(tool, keeper, "stop")
    snapshot(tool, "restore", keeper, first)
    turn(tool, keeper, "start")
    assert call(tool, keeper, "count", "()") == "(3 : nat64)"
    assert call(tool, keeper, "text", "(2)") == '(opt "before")'

    turn(tool, keeper, "stop")
    replaced = snapshot(tool, "create", keeper, "--replace", first, "--quiet")
    assert ids(tool, keeper) == [second["snapshot_id"], replaced]
    snapshot(tool, "delete", keeper, replaced)
    assert ids(tool, keeper) == [second["snapshot_id"]]
    text = tool.refused("canister", "snapshot", "delete", str(keeper), replaced, *tool.target)
    assert "has no snapshot" in text


def test_a_snapshot_goes_from_node_to_node(
    tool: IcpTool,
    make_keeper: Make,
    running_node: NodeUnderTest,
    start_node: Callable[..., NodeUnderTest],
    tmp_path: Path,
) -> None:
    keeper = make_keeper(running_node)
    # More than two of the chunks of 2,000,000 bytes in which the tool reads and writes.
    call(tool, keeper, "put", f'(0, 50, "{"x" * 100_000}")')
    call(tool, keeper, "put", '(50, 1, "the last")')
    turn(tool, keeper, "stop")
    taken = snapshot(tool, "create", keeper, "--quiet")
    folder = tmp_path / "downloaded"
    snapshot(tool, "download", keeper, taken, "--output", str(folder))
    assert (folder / "stable_memory.bin").stat().st_size > 4_000_000

    other = start_node("other")
    there = replace(tool, node=other)
    admit(there)
    home = make_keeper(other)
    uploaded = snapshot(there, "upload", home, "--input", str(folder), "--quiet").split()[-1]
    assert ids(there, home) == [uploaded]
    turn(there, home, "stop")
    snapshot(there, "restore", home, uploaded)
    turn(there, home, "start")
    assert call(there, home, "count", "()") == "(51 : nat64)"
    assert call(there, home, "text", "(50)") == '(opt "the last")'

    again, second = tmp_path / "again", tmp_path / "second"
    turn(there, home, "stop")
    snapshot(there, "download", home, uploaded, "--output", str(again))
    snapshot(there, "download", home, snapshot(there, "create", home, "--quiet"), "--output", str(second))
    for name in ("stable_memory.bin", "wasm_module.bin"):
        content = (folder / name).read_bytes()
        assert content == (again / name).read_bytes() == (second / name).read_bytes()


def test_a_damaged_file_is_refused(
    tool: IcpTool, make_keeper: Make, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    keeper = make_keeper(running_node)
    call(tool, keeper, "put", '(1, 3, "good")')
    turn(tool, keeper, "stop")
    folder = tmp_path / "downloaded"
    snapshot(tool, "download", keeper, snapshot(tool, "create", keeper, "--quiet"), "--output", str(folder))
    memory = folder / "stable_memory.bin"
    memory.write_bytes(memory.read_bytes().replace(b"good", b"\xff\xff\xff\xff"))
    uploaded = snapshot(tool, "upload", keeper, "--input", str(folder), "--quiet").split()[-1]
    text = tool.refused("canister", "snapshot", "restore", str(keeper), uploaded, *tool.target)
    assert "does not decode" in text
    turn(tool, keeper, "start")
    assert call(tool, keeper, "text", "(2)") == '(opt "good")'


def test_a_stranger_sees_and_changes_nothing(
    tool: IcpTool, make_keeper: Make, running_node: NodeUnderTest, tmp_path: Path
) -> None:
    keeper = make_keeper(running_node)
    turn(tool, keeper, "stop")
    taken = snapshot(tool, "create", keeper, "--quiet")
    as_eve = ("--identity", "eve", *tool.target)
    for command, arguments in (
        ("list", ()),
        ("delete", (taken,)),
        ("download", (taken, "--output", str(tmp_path / "stolen"))),
    ):
        text = tool.refused("canister", "snapshot", command, str(keeper), *arguments, *as_eve)
        assert "controllers" in text or "snapshot_visibility" in text
    assert ids(tool, keeper) == [taken]
