"""A rollout on a real node under load: builds that trap, hang and corrupt, and a `kill -9` in the middle."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bench import traffic
from bench.user_builds import build_bad_for_all, build_user
from cannery.apps.users.types import Body, InboxPage, IndexSettings, Profile, SendResult, Who
from cannery.apps.users.user import User
from cannery.apps.users.user_index import UserIndex
from cannery.candid.python import nat32, nat64
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.client import Agent, AsyncAgent
from cannery.fleet.directory_types import FleetStatus
from cannery.fleet.registry import ReleaseResult
from cannery.fleet.rollout import Failure
from cannery.fleet.rollout_types import (
    FailurePage,
    KindVersion,
    RolloutArgs,
    RolloutInfo,
    RuleChange,
    StartResult,
)
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal
from tests.node_under_test import NodeUnderTest
from tests.sim.world import shape

USER_COUNT = 500
WRITER_COUNT = 30
RATE_PER_S = 100
BAD = {f"{what}_{number}": what for what in ("trap", "hang", "rot") for number in range(5)}
SETTINGS = "[limits]\nhook_cpu_ms_max = 100\n[gateway]\nrequests_per_address_per_s = 1e9\n" + (
    "requests_per_address_burst = 1000000000\n"
)
RULE = RuleChange(fault_permille=60, tries_max=2, retry_ns=1_000_000_000)


def identity_of(number: int) -> Ed25519Identity:
    return Ed25519Identity((0x5EED0000 + number).to_bytes(32, "big"))


def names() -> list[str]:
    """Give the users' names: the bad ones among the others, behind those of the canary."""
    found = [f"user_{number}" for number in range(USER_COUNT)]
    for place, name in enumerate(BAD, 1):
        found[place * 30] = name
    return found


@dataclass
class Load:
    """Writers that send letters at a steady rate, each envelope again until it is answered."""

    url: str
    root_key: bytes
    index: Principal
    mailboxes: list[Principal]
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    is_over: bool = False

    async def run(self) -> None:
        """Write until told to end, then wait for what is under way."""
        agents = [AsyncAgent(self.url, identity_of(n), root_key=self.root_key) for n in range(WRITER_COUNT)]
        chance, tasks = random.Random(7), set[asyncio.Task[None]]()
        while not self.is_over:
            task = asyncio.ensure_future(self._write(agents, chance.randrange(WRITER_COUNT), chance))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(1 / RATE_PER_S)
        await asyncio.gather(*tasks)
        for agent in agents:
            await agent.close()

    async def _write(self, agents: Sequence[AsyncAgent], writer: int, chance: random.Random) -> None:
        receiver = chance.randrange(USER_COUNT)
        if receiver == writer:
            return
        message_id, method = chance.randbytes(16), shape(User, "send")
        who = Who.owner(identity_of(receiver).principal)
        arg = method.encode_args((who, message_id, Body.text(message_id.hex())))
        try:
            reply = await agents[writer].call(self.mailboxes[writer], "send", arg)
        except Exception as error:
            self.errors.append(repr(error))
            return
        result = method.decode_results(reply)
        assert isinstance(result, SendResult)
        if result.tag == "ok":
            self.sent.append((receiver, message_id))
        else:
            self.errors.append(repr(result))


class Fleet:
    """The operator's view of the node's fleet of users."""

    def __init__(self, agent: Agent, index: Principal) -> None:
        self.agent = agent
        self.index = TypedCanister(agent, index)

    def release(self, version: int, module: bytes, module_hash: bytes) -> None:
        Management(self.agent).module_bring(module, module_hash)
        args, hints = ("user", version, module_hash, "a test"), (str, nat64, bytes, str)
        assert self.index.call("fleet_release_add", ReleaseResult, args, hints).tag == "ok"

    def start(self, version: int) -> int:
        args = RolloutArgs([KindVersion("user", version)], 25, rule=RULE)
        started = self.index.call("fleet_rollout_start", StartResult, (args,))
        assert started.tag == "ok", started
        return started.ok

    def rollout(self, id: int) -> RolloutInfo:
        found = self.index.query_option("fleet_rollout", RolloutInfo, (id,), (nat64,))
        assert found is not None
        return found

    def failures(self, id: int) -> list[Failure]:
        hints = (nat64, Principal | None, nat32)
        return self.index.query("fleet_failures", FailurePage, (id, None, 1000), hints).items

    def versions(self) -> dict[int, int]:
        """Count children by the version they are on."""
        counts = self.index.query("fleet_status", FleetStatus).counts
        return {count.version: count.count for count in counts if count.state == "active"}


def wait_for(condition: Callable[[], bool], seconds: float = 90) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come to be in time"
        time.sleep(0.05)


def register_all(node: NodeUnderTest, index: Principal) -> list[Principal]:
    """Register the users; give their mailboxes in order."""
    operator = TypedCanister(node.agent(node.operator), index)
    operator.call_for_effect("configure", (IndexSettings(2**32 - 1),))
    encode = shape(UserIndex, "register").encode_args
    requests = [
        traffic.sign("call", index, "register", encode((name,)), identity_of(number), number)
        for number, name in enumerate(names())
    ]
    assert traffic.send(node.port, requests, 32).statuses == {"200": USER_COUNT}
    asked = [Who.owner(identity_of(number).principal) for number in range(USER_COUNT)]
    found = operator.query("lookup_many", list[Profile | None], (asked,), (list[Who],))
    return [profile.canister for profile in found if profile is not None]


def check_letters(node: NodeUnderTest, load: Load) -> None:
    """See that each acknowledged letter is in its mailbox, once."""
    wanted: dict[int, list[bytes]] = {}
    for receiver, message_id in load.sent:
        wanted.setdefault(receiver, []).append(message_id)
    for receiver, expected in wanted.items():
        with node.agent(identity_of(receiver)) as agent:
            page = TypedCanister(agent, load.mailboxes[receiver]).query(
                "inbox", InboxPage, (0, 500), (nat64, nat32)
            )
        assert sorted(message.message_id for message in page.messages) == sorted(expected)


def test_a_rollout_under_load_loses_nothing_and_leaves_the_bad_ones_as_they_were(
    start_node: Callable[..., NodeUnderTest],
) -> None:
    node = start_node(settings=SETTINGS)
    assert node.canisters is not None
    index = node.canisters["user_index"]
    mailboxes = register_all(node, index)
    assert len(mailboxes) == USER_COUNT
    load = Load(node.url, node.root_key, index, mailboxes)
    writing = threading.Thread(target=lambda: asyncio.run(load.run()))
    writing.start()
    try:
        with node.agent(node.operator) as agent:
            fleet = Fleet(agent, index)
            _roll_out_a_partly_bad_build(node, fleet, mailboxes)
            _roll_out_a_bad_build(fleet)
    finally:
        load.is_over = True
        writing.join()
    assert load.errors == []
    assert len(load.sent) > 200
    check_letters(node, load)


def _roll_out_a_partly_bad_build(node: NodeUnderTest, fleet: Fleet, mailboxes: list[Principal]) -> None:
    built = build_user("partly bad")
    fleet.release(2, built.module, built.hash)
    id = fleet.start(2)
    wait_for(lambda: fleet.rollout(id).counts.forward > USER_COUNT // 4)
    node.kill()
    node.start()
    wait_for(lambda: fleet.rollout(id).ended_ns is not None)
    rollout = fleet.rollout(id)
    assert (rollout.state.tag, rollout.counts.quarantined) == ("done", len(BAD)), rollout
    assert rollout.counts.forward == USER_COUNT - len(BAD)
    assert fleet.versions() == {1: len(BAD), 2: USER_COUNT - len(BAD)}
    reasons = {
        "trap": "the old letters cannot be read",
        "hang": "more than 0.1 s of CPU",
        "rot": "answered false",
    }
    failures = fleet.failures(id)
    by_mailbox = dict(zip(mailboxes, names(), strict=True))
    assert {by_mailbox[failure.child] for failure in failures} == set(BAD)
    for failure in failures:
        assert reasons[BAD[by_mailbox[failure.child]]] in failure.reason
        assert (failure.from_version, failure.to_version, failure.is_quarantined) == (1, 2, True)


def _roll_out_a_bad_build(fleet: Fleet) -> None:
    before = fleet.versions()
    built = build_bad_for_all("bad for all")
    fleet.release(3, built.module, built.hash)
    id = fleet.start(3)
    wait_for(lambda: fleet.rollout(id).ended_ns is not None)
    rollout = fleet.rollout(id)
    assert rollout.state.tag == "rolled_back", rollout
    assert rollout.counts.selected <= USER_COUNT // 20, "it stopped at the canary"
    assert fleet.versions() == before
