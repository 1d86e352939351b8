"""JavaScript agents from npm, unpatched and with verification on, against a running node."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cannery.cli.building import build_file
from cannery.protocol.principal import Principal
from tests.clients.conftest import PROBE, RunScript
from tests.node_under_test import NodeUnderTest

PACKAGES = ["icp-sdk", "dfinity"]
AGENT_CHECKS = 24


@pytest.mark.parametrize("package", PACKAGES)
def test_an_agent_calls_queries_reads_and_verifies(
    package: str, run_script: RunScript, running_node: NodeUnderTest, probe: Principal
) -> None:
    done = run_script("agent.mjs", package, running_node.url, running_node.root_key.hex(), str(probe))
    done.demand(AGENT_CHECKS)


def test_messages_wait_while_the_node_is_killed(
    run_script: RunScript, start_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    node = start_node()
    assert node.canisters is not None
    arguments = (node.url, node.root_key.hex(), str(node.canisters["user_index"]))
    state = str(tmp_path / "people.json")
    run_script("users.mjs", *arguments, "write", state).demand(4)
    node.kill()
    start_node()
    run_script("users.mjs", *arguments, "read", state).demand(2)


def test_the_management_canister(run_script: RunScript, running_node: NodeUnderTest, tmp_path: Path) -> None:
    module = tmp_path / "probe.wasm"
    module.write_bytes(build_file(str(PROBE)).module)
    operator = running_node.data / "operator.pem"
    node = (running_node.url, running_node.root_key.hex())
    run_script("canisters/management.mjs", *node, str(operator), str(module)).demand(10)


@pytest.mark.parametrize("package", PACKAGES)
def test_a_call_that_takes_long_is_answered_by_polling(
    package: str, run_script: RunScript, polled_node: tuple[NodeUnderTest, Principal]
) -> None:
    node, probe = polled_node
    run_script("polling.mjs", package, node.url, node.root_key.hex(), str(probe)).demand(4)


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("minutes", ["-20", "20"])
def test_a_client_with_a_wrong_clock(
    package: str, minutes: str, run_script: RunScript, running_node: NodeUnderTest, probe: Principal
) -> None:
    node = (running_node.url, running_node.root_key.hex())
    run_script("clock.mjs", package, *node, str(probe), minutes).demand(3)
