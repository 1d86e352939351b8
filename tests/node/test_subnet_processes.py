"""Two subnets in processes of their own, each killed under load: nothing is lost, doubled or reordered."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import nat64, type_of
from cannery.cdk.build import build_module
from cannery.node.data_dir import load_keys
from cannery.node.python_runtime import SourceLoader
from cannery.protocol.principal import MANAGEMENT, Principal
from cannery.replica.management.subnets import SubnetInfo
from cannery.replica.management.types import InstallCodeArgs, InstallMode, ProvisionalCreateArgs
from cannery.replica.places import SubnetChoice
from cannery.testing.class_source import source_of
from tests.node.process_node import ProcessNode, wait_until_gone
from tests.testing.test_subnets import Far, Near, Summer

CALL_COUNT = 60
SEND = encoder((type_of(Principal), type_of(nat64)))
NUMBERS = decoder((type_of(list[nat64]),))
EMPTY = b"DIDL\x00\x00"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[ProcessNode]:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "cannery.toml").write_text("[node]\nsubnet_count = 2\n")
    node = ProcessNode(tmp_path / "data")
    yield node
    if node.process.poll() is None:
        node.kill()


def build(cls: type) -> bytes:
    source = source_of(cls)
    loader = SourceLoader(frozenset())
    try:
        return build_module(source.files, source.entry, loader.load, frozenset()).module
    finally:
        loader.discard()


def install(node: ProcessNode, cls: type, subnet: int) -> Principal:
    place = SubnetChoice.id(Principal(load_keys(node.data).routes[subnet].subnet_id))
    wanted = ProvisionalCreateArgs(amount=10**6, subnet=place)
    created = node.manage("provisional_create_canister_with_cycles", wanted)
    canister_id: Principal = created.canister_id  # type: ignore[attr-defined]
    args = InstallCodeArgs(InstallMode.install(), canister_id, build(cls), EMPTY)
    node.manage("install_code", args, effective=canister_id)
    return canister_id


def numbers(node: ProcessNode, canister_id: Principal) -> list[int]:
    (found,) = NUMBERS(node.agent.query(canister_id, "all", EMPTY))
    assert isinstance(found, list)
    return found


def test_nothing_is_lost_doubled_or_reordered_when_either_subnet_is_killed(node: ProcessNode) -> None:
    near, far = install(node, Near, 0), install(node, Far, 1)
    reply = node.agent.query(MANAGEMENT, "cannery_subnets", EMPTY, effective=far)
    (subnets,) = decoder((type_of(list[SubnetInfo]),))(reply)
    assert isinstance(subnets, list)
    assert [info.answers for info in subnets] == [False, True]
    ranges = [(info.first_canister, info.last_canister) for info in subnets]
    assert ranges[0][0] <= near <= ranges[0][1] < ranges[1][0] <= far <= ranges[1][1]

    def load() -> None:
        for number in range(CALL_COUNT):
            node.agent.call(near, "send", SEND((far, number)))

    sender = threading.Thread(target=load)
    sender.start()
    for which in (1, 0, 1):
        victim = node.child(f"--subnet {which}")
        victim.kill()
        wait_until_gone(victim)
        assert node.report().startswith(f"the subnet {which} ended unexpectedly (signal SIGKILL)")
        assert node.report() == f"the subnet {which} serves again"
    sender.join()
    # The last call's answer may be on its way still.
    node.agent.call(near, "send", SEND((far, CALL_COUNT)))
    while len(numbers(node, near)) <= CALL_COUNT:
        node.agent.call(far, "take", encoder((type_of(nat64),))((10**6,)))
    assert [number for number in numbers(node, far) if number < 10**6] == list(range(CALL_COUNT + 1))
    assert numbers(node, near) == list(range(CALL_COUNT + 1))
    summer = install(node, Summer, 0)
    ask = encoder((type_of(list[Principal]),))
    (found,) = decoder((type_of(list[str]),))(node.agent.query(summer, "sum_up", ask(([near, far],))))
    assert found == [str(sum(numbers(node, id))) for id in (near, far)]
    code, errors = node.stop()
    assert code == 0, errors


def test_a_node_goes_on_with_the_subnets_that_it_has_and_gets_more(tmp_path: Path) -> None:
    first = ProcessNode(tmp_path / "data")
    near = install(first, Near, 0)
    assert first.stop()[0] == 0
    (tmp_path / "data" / "cannery.toml").write_text("[node]\nsubnet_count = 2\n")
    second = ProcessNode(tmp_path / "data")
    far = install(second, Far, 1)
    second.agent.call(near, "send", SEND((far, 5)))
    while numbers(second, near) != [5]:
        second.agent.call(far, "take", encoder((type_of(nat64),))((10**6,)))
    assert second.stop()[0] == 0
    (tmp_path / "data" / "cannery.toml").write_text("[node]\nsubnet_count = 1\n")
    with pytest.raises(AssertionError, match="has 2 subnets, and canisters live on each"):
        ProcessNode(tmp_path / "data")
