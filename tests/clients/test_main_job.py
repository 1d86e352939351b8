"""The main job from the command line, on a node whose processes are killed between one step and the next.

What a kill cannot show, that answers wait for the disk, `test_sync_trace` does.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import pytest

from cannery.candid.codec import decoder
from cannery.candid.types import Nat64
from cannery.client.agent import Agent
from cannery.protocol.principal import Principal
from tests.clients.conftest import NO_ARGUMENTS, deploy_probe
from tests.conftest import Cli
from tests.node_under_test import PROGRAM, NodeUnderTest
from tests.waiting import NEVER_S, wait_until

StartNode = Callable[..., NodeUnderTest]

CYCLES = 20
KILLS = 2
CALLERS = 4
CALLS_EACH = 150
# A message whose first attempt met a stopped canister is tried again after 10 s, or 20 s after the second.
decode_count = decoder((Nat64(),))


def run(node: NodeUnderTest, *arguments: str) -> str:
    """Run `cannery` as a process of its own; give what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments],
        env=node.environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=NEVER_S,
        check=False,
    )
    assert done.returncode == 0, f"cannery {' '.join(arguments)}:\n{done.stderr}"
    return done.stdout


def test_a_message_waits_while_the_node_is_killed(start_node: StartNode) -> None:
    node = start_node()
    for name in ("ann", "bob"):
        run(node, "identity", "new", name)
        run(node, "register", name, "--identity", name)
    run(node, "send", "bob", "see you at eight", "--identity", "ann")
    node.kill()
    start_node()
    (line,) = run(node, "inbox", "--identity", "bob").splitlines()
    assert line.endswith("ann: see you at eight")


@dataclass
class People:
    """Somebody who writes, somebody who reads after each kill, and those who are away for a while."""

    cli: Cli
    node: NodeUnderTest
    mailboxes: dict[str, str] = field(default_factory=dict)

    def join(self, name: str) -> None:
        assert self.cli("identity", "new", name).code == 0
        done = self.cli("register", name, "--identity", name, "--json", node=self.node)
        assert done.code == 0, done.err
        self.mailboxes[name] = str(done.json["canister"])  # type: ignore[index]

    def send(self, to: str, text: str) -> str:
        """Send as the writer; give the state of the message."""
        done = self.cli("send", to, text, "--identity", "writer", node=self.node)
        assert done.code == 0, done.err
        return done.out.split(":")[0]

    def read(self, name: str) -> list[str]:
        """Read a whole mailbox."""
        done = self.cli("inbox", "--identity", name, "--json", node=self.node)
        assert done.code == 0, done.err
        return [message["body"]["text"] for message in done.json["messages"]]  # type: ignore[index]

    def operate(self, command: str, name: str) -> None:
        """Stop or start somebody's mailbox, as the operator."""
        done = self.cli("canister", command, self.mailboxes[name], node=self.node)
        assert done.code == 0, done.err


@pytest.fixture
def people(cli: Cli, start_node: StartNode) -> People:
    """A node of the test's own with its people; `writer` and `reader` are always there."""
    people = People(cli, start_node())
    for name in ("writer", "reader"):
        people.join(name)
    return people


def test_twenty_kills_lose_nothing_and_repeat_nothing(people: People, start_node: StartNode) -> None:
    expected: list[str] = []
    for cycle in range(CYCLES):
        # Between send and inbox: this message is in the reader's mailbox when the node dies.
        expected.append(f"cycle {cycle}")
        assert people.send("reader", expected[-1]) == "delivered"
        # Between the acknowledged send and its delivery: these wait in the writer's outbox.
        away = f"away_{cycle}"
        people.join(away)
        people.operate("stop", away)
        assert [people.send(away, text) for text in away_texts(cycle)] == ["stored"] * 3
        people.node.kill()
        start_node()
        people.operate("start", away)
        assert people.read("reader") == expected

    for cycle in range(CYCLES):
        wait_until_read(people, f"away_{cycle}", away_texts(cycle))
    # All has arrived, and after one more kill it is still there once.
    people.node.kill()
    start_node()
    for cycle in range(CYCLES):
        assert people.read(f"away_{cycle}") == away_texts(cycle)
    assert people.read("reader") == expected


def test_calls_under_way_when_the_node_is_killed_run_once(start_node: StartNode) -> None:
    node = start_node()
    probe = deploy_probe(node)
    with node.agent() as agent, ThreadPoolExecutor(CALLERS) as pool:
        callers = [pool.submit(count_up, node, probe) for _ in range(CALLERS)]
        for kill in range(KILLS):
            wait_until_counted(agent, probe, (kill + 1) * CALLERS * CALLS_EACH // (KILLS + 1))
            node.kill()
            start_node()
        counts = [count for caller in callers for count in caller.result()]
        # Each call ran once: every caller got numbers of its own, and there are no others.
        assert sorted(counts) == list(range(1, CALLERS * CALLS_EACH + 1))
        assert read_count(agent, probe) == len(counts)


def count_up(node: NodeUnderTest, probe: Principal) -> list[int]:
    """Call `increment` again and again; give the numbers that came back."""
    with node.agent() as agent:
        replies = [agent.call(probe, "increment", NO_ARGUMENTS) for _ in range(CALLS_EACH)]
    return [decode_count(reply)[0] for reply in replies]


def read_count(agent: Agent, probe: Principal) -> int:
    return int(decode_count(agent.query(probe, "value", NO_ARGUMENTS))[0])


def wait_until_counted(agent: Agent, probe: Principal, count: int) -> None:
    wait_until(lambda: read_count(agent, probe) >= count, f"the count does not reach {count}")


def away_texts(cycle: int) -> list[str]:
    return [f"cycle {cycle}, letter {number}" for number in range(3)]


def wait_until_read(people: People, name: str, texts: list[str]) -> None:
    """Read a mailbox until all is there; on the way there is only ever a beginning of it."""

    def is_all_there() -> bool:
        seen = people.read(name)
        assert seen == texts[: len(seen)], f"{name} reads {seen}"
        return seen == texts

    wait_until(is_all_there, f"{name} does not get {texts}")
