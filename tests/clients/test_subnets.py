"""Real agents against a canister on the second subnet: its certificates carry a delegation of the root's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery.candid.codec import decoder, encoder
from cannery.cli.building import build_file
from cannery.client.agent import Agent
from cannery.client.errors import Refused, Rejected
from cannery.node.backup.cut import subnet_of_canister
from cannery.node.data_dir import load_keys
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.keys import canister_id
from cannery.replica.management.dispatch import METHODS
from cannery.replica.management.types import InstallCodeArgs, InstallMode, ProvisionalCreateArgs
from cannery.replica.places import SubnetChoice
from tests.clients.conftest import PROBE, RunScript
from tests.clients.test_javascript import AGENT_CHECKS, PACKAGES
from tests.conftest import Cli
from tests.node_under_test import NodeUnderTest


@pytest.fixture(scope="module")
def far_probe(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[NodeUnderTest, Principal]]:
    """A node of two subnets, and the probe canister on the second."""
    folder = tmp_path_factory.mktemp("two")
    node = NodeUnderTest(folder / "data", folder / "home", settings="[node]\nsubnet_count = 2\n")
    try:
        node.start()
        with node.agent(node.operator) as agent:
            yield node, _install_far(node, agent)
    finally:
        node.close()


def _install_far(node: NodeUnderTest, agent: Agent) -> Principal:
    place = SubnetChoice.id(Principal(load_keys(Path(node.data)).routes[1].subnet_id))
    method = METHODS["provisional_create_canister_with_cycles"]
    reply = agent.call(MANAGEMENT, method.name, encoder(method.args)((ProvisionalCreateArgs(subnet=place),)))
    probe: Principal = decoder(method.results)(reply)[0].canister_id  # type: ignore[attr-defined]
    args = InstallCodeArgs(InstallMode.install(), probe, build_file(str(PROBE)).module, b"DIDL\x00\x00")
    install = METHODS["install_code"]
    agent.call(MANAGEMENT, install.name, encoder(install.args)((args,)), effective=probe)
    return probe


@pytest.mark.parametrize("package", PACKAGES)
def test_an_agent_verifies_what_the_second_subnet_says(
    package: str, run_script: RunScript, far_probe: tuple[NodeUnderTest, Principal]
) -> None:
    node, probe = far_probe
    done = run_script("agent.mjs", package, node.url, node.root_key.hex(), str(probe))
    done.demand(AGENT_CHECKS)


def _create(agent: Agent, args: ProvisionalCreateArgs, subnet: Principal | None = None) -> Principal:
    method = METHODS["provisional_create_canister_with_cycles"]
    arg = encoder(method.args)((args,))
    if subnet is None:
        reply = agent.call(MANAGEMENT, method.name, arg)
    else:
        reply = agent.send(agent._conversation.sign_call(MANAGEMENT, method.name, arg, subnet=subnet))
    canister_id: Principal = decoder(method.results)(reply)[0].canister_id  # type: ignore[attr-defined]
    return canister_id


def test_a_canister_is_made_on_the_subnet_whose_path_is_called(
    far_probe: tuple[NodeUnderTest, Principal],
) -> None:
    node, _ = far_probe
    routes = load_keys(Path(node.data)).routes
    with node.agent(node.operator) as agent:
        for route in routes:
            made = _create(agent, ProvisionalCreateArgs(), Principal(route.subnet_id))
            assert subnet_of_canister(made.raw) == route.subnet
        with pytest.raises(Refused):
            _create(agent, ProvisionalCreateArgs(), Principal(b"\x75" * 28 + b"\x02"))


def test_an_id_that_is_chosen_says_the_subnet(far_probe: tuple[NodeUnderTest, Principal]) -> None:
    node, _ = far_probe
    with node.agent(node.operator) as agent:
        for subnet in range(2):
            wanted = Principal(canister_id((subnet << 40) + 0x1234))
            assert _create(agent, ProvisionalCreateArgs(specified_id=wanted)) == wanted
            with pytest.raises(Rejected, match="in use, or was"):
                _create(agent, ProvisionalCreateArgs(specified_id=wanted))
        with pytest.raises(Rejected, match="not among this subnet's canister ids"):
            _create(agent, ProvisionalCreateArgs(specified_id=Principal(canister_id(2 << 40))))


def test_the_command_line_says_on_which_subnet(cli: Cli, far_probe: tuple[NodeUnderTest, Principal]) -> None:
    node, _ = far_probe
    routes = load_keys(Path(node.data)).routes
    for text, subnet in (("1", 1), ("0", 0), (str(Principal(routes[1].subnet_id)), 1)):
        done = cli("canister", "create", "--subnet", text, node=node)
        assert done.code == 0, done.err
        assert subnet_of_canister(Principal.parse(done.out.strip()).raw) == subnet
    assert cli("canister", "create", "--subnet", "any", node=node).code == 0
    for text in ("2", "moon", "aaaaa-aa"):
        done = cli("canister", "create", "--subnet", text, node=node)
        assert done.code == 2
        assert f"there is no subnet '{text}' here: say any, 0 to 1, or one of" in done.error
