"""The `icp` tool 1.5.0, unpatched, against a running node: identities, canisters, deployments.

What the tool does through the ledgers of the Internet Computer (`canister top-up`, `cycles`, recovering the
cycles of a canister that is deleted) does not work here: a node has no ledgers. `cannery canister top-up`
mints cycles instead.
"""

from __future__ import annotations

import base64
import json
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery.protocol.principal import Principal
from tests.clients.icp_tool import IcpTool, admitted
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest

FIRST_VERSION = '''"""A tally."""

from cannery import Canister, Context, StableCell, nat64, query, update


class Tally(Canister):
    """Count and tell."""

    count = StableCell(nat64, 0)

    @update
    def add(self, ctx: Context, more: nat64) -> nat64:
        """Add and return the sum."""
        ctx.log(f"adding {more}")
        self.count.set(self.count.get() + more)
        return self.count.get()

    @update
    def refuse(self, ctx: Context, text: str) -> None:
        """Reject."""
        ctx.reject(text)

    @query
    def total(self, ctx: Context) -> nat64:
        """Return the sum."""
        return self.count.get()
'''
SECOND_VERSION = (
    FIRST_VERSION
    + '''
    @query
    def doubled(self, ctx: Context) -> nat64:
        """Return twice the sum."""
        return 2 * self.count.get()
'''
)
PROJECT = """
networks:
  - name: cannery
    mode: connected
    url: {url}
    root-key: {root_key}
environments:
  - name: here
    network: cannery
canisters:
  - name: tally
    build:
      steps:
        - type: script
          commands:
            - {cannery} build tally.py --out .
            - cp tally.wasm "$ICP_WASM_OUTPUT_PATH"
"""
HERE = ("--environment", "here")


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


def write_project(tool: IcpTool, root_key: str) -> None:
    cannery = Path(sys.executable).parent / "cannery"
    text = PROJECT.format(url=tool.node.url, root_key=root_key, cannery=cannery)
    (tool.project / "icp.yaml").write_text(text)


def write_source(tool: IcpTool, text: str) -> None:
    (tool.project / "tally.py").write_text(text)


def test_the_node_is_found(tool: IcpTool) -> None:
    seen = json.loads(tool("network", "ping", tool.node.url))
    assert seen["replica_health_status"] == "healthy"
    assert bytes(seen["root_key"]) == tool.node.root_key


@pytest.mark.parametrize("key_type", ["ed25519", "secp256k1"])
def test_identities_go_from_cannery_to_the_tool(
    key_type: str, tool: IcpTool, cli: Cli, tmp_path: Path
) -> None:
    name = f"{key_type}_{secrets.token_hex(4)}"
    assert cli("identity", "new", name, "--type", key_type).code == 0
    principal = cli("identity", "principal", name).out.strip()
    pem = tmp_path / "cli-home" / "identities" / f"{name}.pem"
    tool("identity", "import", name, "--from-pem", str(pem), "--storage", "plaintext")
    assert tool("identity", "principal", "--identity", name) == principal


def test_identities_go_from_the_tool_to_cannery(
    tool: IcpTool, cli: Cli, tmp_path: Path, running_node: NodeUnderTest
) -> None:
    pem = tmp_path / "ann.pem"
    pem.write_text(tool("identity", "export", "ann") + "\n")
    imported = cli("identity", "import", str(pem))
    assert imported.code == 0, imported.err
    assert imported.out.strip() == tool("identity", "principal", "--identity", "ann")
    listed = cli("operator", "list", "--identity", "ann", node=running_node)
    assert imported.out.strip() in listed.out


def test_calls(tool: IcpTool, probe: Principal) -> None:
    call = ("canister", "call", *tool.target)
    assert tool(*call, str(probe), "greet", '("icp")', "--query") == '("Hello, icp!")'
    before = int(tool(*call, str(probe), "value", "()", "--query").split()[0].strip("("))
    assert tool(*call, str(probe), "increment", "()") == f"({before + 1} : nat64)"
    ann = tool("identity", "principal", "--identity", "ann")
    assert tool(*call, str(probe), "whoami_update", "()") == f'(principal "{ann}")'
    assert "not today" in tool.refused(*call, str(probe), "refuse", '("not today")')
    assert "on purpose" in tool.refused(*call, str(probe), "fail", '("on purpose")')
    assert "no such thing" in tool.refused(*call, str(probe), "refuse_query", '("no such thing")', "--query")


def test_calls_by_polling(tool: IcpTool, polled_node: tuple[NodeUnderTest, Principal]) -> None:
    node, probe = polled_node
    call = ("canister", "call", "--network", node.url, "--root-key", node.root_key.hex(), str(probe))
    assert "nat64" in tool(*call, "increment", "()")
    assert "not today" in tool.refused(*call, "refuse", '("not today")')
    assert "absent" in tool.refused(*call, "absent", "()")


def test_a_session_key_speaks_for_an_identity(
    tool: IcpTool, probe: Principal, running_node: NodeUnderTest
) -> None:
    key, chain = tool.project / "session.pem", tool.project / "chain.json"
    key.write_text(tool("identity", "delegation", "request", "session", "--storage", "plaintext") + "\n")
    sign = ("identity", "delegation", "sign", "--key-pem", str(key), "--duration", "1h")
    chain.write_text(tool(*sign, "--canisters", str(probe), "--identity", "eve"))
    tool("identity", "delegation", "use", "--from-json", str(chain), "session")
    eve = tool("identity", "principal", "--identity", "eve")
    call = ("canister", "call", *tool.target, "--identity", "session")
    assert tool(*call, str(probe), "whoami_update", "()") == f'(principal "{eve}")'
    assert tool(*call, str(probe), "whoami", "()", "--query") == f'(principal "{eve}")'
    assert running_node.canisters is not None
    elsewhere = str(running_node.canisters["user_index"])
    assert "targets" in tool.refused(*call, elsewhere, "register", '("eve")')


def test_a_message_signed_elsewhere_runs_once(tool: IcpTool, probe: Principal) -> None:
    message = tool.project / "message.json"
    call = ("canister", "call", *tool.target, str(probe), "increment", "()")
    tool(*call, "--sign-only", str(message))
    first = tool("message", "send", str(message), "--yes").splitlines()[-1]
    assert tool("message", "send", str(message), "--yes").splitlines()[-1] == first
    assert tool("canister", "call", *tool.target, str(probe), "value", "()", "--query") == first


def test_another_root_key_is_not_believed(tool: IcpTool, probe: Principal) -> None:
    tampered = tool.node.root_key[:-1] + bytes([tool.node.root_key[-1] ^ 1])
    target = ("--network", tool.node.url, "--root-key", tampered.hex())
    assert "erification failed" in tool.refused("canister", "call", *target, str(probe), "increment", "()")


@pytest.mark.parametrize("is_fetched", [True, False], ids=["fetched root key", "root key in the project"])
def test_a_project_is_deployed_and_upgraded(tool: IcpTool, is_fetched: bool) -> None:
    write_project(tool, "fetch" if is_fetched else tool.node.root_key.hex())
    write_source(tool, FIRST_VERSION)
    (deployed,) = json.loads(tool("deploy", *HERE, "--json"))["canisters"]
    tool("canister", "call", *HERE, "tally", "add", "(20)")
    first = json.loads(tool("canister", "status", *HERE, "tally", "--json"))
    assert "doubled" in tool.refused("canister", "call", *HERE, "tally", "doubled", "()", "--query")

    write_source(tool, SECOND_VERSION)
    (upgraded,) = json.loads(tool("deploy", *HERE, "--json"))["canisters"]
    second = json.loads(tool("canister", "status", *HERE, "tally", "--json"))
    assert upgraded["canister_id"] == deployed["canister_id"]
    assert second["module_hash"] != first["module_hash"]
    assert tool("canister", "call", *HERE, "tally", "doubled", "()", "--query") == "(40 : nat64)"
    end_canister(tool)


def test_a_module_of_several_chunks_is_deployed(tool: IcpTool) -> None:
    write_project(tool, tool.node.root_key.hex())
    # 2.5 MB that no compression makes smaller than the 2 MiB which the tool sends at once.
    ballast = base64.b85encode(secrets.token_bytes(2_500_000)).decode()
    write_source(tool, f"{FIRST_VERSION}\n\nBALLAST = {ballast!r}\n")
    tool("deploy", *HERE)
    assert (tool.project / "tally.wasm").stat().st_size > 2 * 1024 * 1024
    assert tool("canister", "call", *HERE, "tally", "add", "(3)") == "(3 : nat64)"
    end_canister(tool)


def end_canister(tool: IcpTool) -> None:
    tool("canister", "stop", *HERE, "tally")
    tool("canister", "delete", "--no-recover-cycles", *HERE, "tally")


def test_the_life_of_a_canister(tool: IcpTool) -> None:
    write_project(tool, tool.node.root_key.hex())
    write_source(tool, FIRST_VERSION)
    tool("canister", "create", *HERE, "tally", "--freezing-threshold", "1000")
    empty = json.loads(tool("canister", "status", *HERE, "tally", "--json"))
    assert (empty["status"], empty["module_hash"]) == ("Running", None)
    assert empty["settings"]["controllers"] == [tool("identity", "principal")]
    tool("deploy", *HERE)
    assert "service" in tool("canister", "metadata", *HERE, "tally", "candid:service")
    assert "Module hash: 0x" in tool("canister", "status", *HERE, "tally")

    assert "Freezing threshold: 1_000" in tool("canister", "settings", "show", *HERE, "tally")
    tool("canister", "settings", "update", *HERE, "tally", "--freezing-threshold", "12345")
    assert "Freezing threshold: 12_345" in tool("canister", "settings", "show", *HERE, "tally")

    tool("canister", "call", *HERE, "tally", "add", "(7)")
    assert "adding 7" in tool("canister", "logs", *HERE, "tally")

    tool("canister", "stop", *HERE, "tally")
    assert "is stopped" in tool.refused("canister", "call", *HERE, "tally", "add", "(1)")
    tool("canister", "start", *HERE, "tally")
    assert tool("canister", "call", *HERE, "tally", "add", "(1)") == "(8 : nat64)"

    canister_id = json.loads(tool("canister", "status", *HERE, "tally", "--json"))["id"]
    end_canister(tool)
    assert "not found" in tool.refused("canister", "call", *tool.target, canister_id, "total", "()")


def test_a_stranger_is_told_why_not(tool: IcpTool, tmp_path: Path) -> None:
    write_project(tool, tool.node.root_key.hex())
    write_source(tool, FIRST_VERSION)
    eve = tool("identity", "principal", "--identity", "eve")
    create = ("canister", "create", "--detached", "--quiet", *tool.target)
    text = tool.refused(*create, "--identity", "eve")
    assert "only operators create canisters" in text
    assert "cannery operator add" in text

    # Even the controller of a canister brings no module that the node does not hold.
    canister_id = tool(*create, "--controller", eve)
    foreign = FIRST_VERSION.replace("adding", secrets.token_hex(8))
    write_source(tool, foreign)
    tool("build")
    install = ("canister", "install", canister_id, "--wasm", "tally.wasm", "--yes", *tool.target)
    text = tool.refused(*install, "--mode", "install", "--identity", "eve")
    assert "only operators bring modules" in text.lower()

    # An operator who does not control the canister cannot install into it either, but may end it.
    assert "controllers" in tool.refused(*install, "--mode", "install", "--identity", "ann")
    tool("canister", "stop", canister_id, *tool.target)
    tool("canister", "delete", "--no-recover-cycles", canister_id, *tool.target)


def test_what_is_not_there_says_so(tool: IcpTool, probe: Principal) -> None:
    text = tool.refused("canister", "top-up", str(probe), "--amount", "1t", *tool.target)
    assert "um5iw-rqaaa-aaaaq-qaaba-cai not found" in text
