"""Agents whose node is killed, restarted or busy: they wait, and each call runs once."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

from cannery.cli.building import build_file
from cannery.cli.management import Management
from cannery.client import Agent, open_actor
from cannery.protocol.principal import Principal
from tests.node_under_test import NodeUnderTest
from tests.waiting import NEVER_S

SOURCE = """
from cannery import Canister, Context, StableLog, nat64, query, update

class Notes(Canister):
    notes = StableLog(nat64)

    @update
    def note(self, ctx: Context, number: nat64) -> nat64:
        return self.notes.append(number)

    @query
    def all(self, ctx: Context) -> list[nat64]:
        return [number for _, number in self.notes.page(limit=1000).items]
"""
CALLS = 60


def deploy_notes(node: NodeUnderTest, folder: Path) -> Principal:
    path = folder / "notes.py"
    path.write_text(SOURCE)
    built = build_file(str(path))
    with node.agent(node.operator) as agent:
        management = Management(agent)
        management.module_bring(built.module, built.hash)
        canister_id = management.create(None, None)
        management.install(canister_id, "install", built.hash, b"DIDL\0\0")
    return canister_id


def test_calls_outlast_a_killed_node_and_run_once_in_order(
    start_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    node = start_node()
    notes = deploy_notes(node, tmp_path)
    reached = threading.Semaphore(0)
    answers: list[object] = []

    def write() -> None:
        with node.agent() as agent:
            actor = open_actor(agent, notes)
            for number in range(CALLS):
                answers.append(actor.note(number))
                reached.release()

    writer = threading.Thread(target=write)
    writer.start()
    for _round in range(2):
        for _call in range(15):
            reached.acquire(timeout=NEVER_S)
        node.kill()
        start_node()
    writer.join(timeout=NEVER_S)
    assert answers == list(range(CALLS))
    with node.agent() as agent:
        assert open_actor(agent, notes).all() == list(range(CALLS))


def test_a_busy_node_s_retry_after_is_obeyed(
    start_node: Callable[..., NodeUnderTest], tmp_path: Path
) -> None:
    limits = "[gateway]\nrequests_per_address_per_s = 20.0\nrequests_per_address_burst = 20\n"
    node = start_node(settings=limits)
    notes = deploy_notes(node, tmp_path)
    reasons: list[str] = []
    with Agent(node.url, root_key=node.root_key, on_wait=reasons.append) as agent:
        actor = open_actor(agent, notes)
        for number in range(40):
            assert actor.note(number) == number
        assert actor.all() == list(range(40))
    assert "the node asks to wait" in reasons
