"""Users who write to each other at a steady rate, each envelope again until it is answered; and what their
operator sees of the fleet.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from bench import traffic
from cannery.apps.users.types import Body, InboxPage, Who
from cannery.candid.codec import encoder
from cannery.candid.python import nat32, nat64, type_of
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.client import Agent
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

INBOX_PAGE_COUNT = 500
CONNECTIONS = 64
_send = encoder((type_of(Who), type_of(bytes), type_of(Body)))


def identity_of(number: int) -> Ed25519Identity:
    """Give the identity of a user of the bench."""
    return Ed25519Identity((0x5EED0000 + number).to_bytes(32, "big"))


@dataclass
class Letters:
    """Letters from the first users to any, `rate_per_s` of them a second; `mailboxes` are the writers'."""

    url: str
    root_key: bytes
    mailboxes: Sequence[Principal]
    user_count: int
    rate_per_s: float
    batch_s: float = 5
    sent: list[tuple[int, bytes]] = field(default_factory=list)
    # When each left (seconds of the epoch), and how long it took.
    times: list[tuple[float, float]] = field(default_factory=list)
    is_over: bool = False

    def run(self) -> None:
        """Write until told to end; the last letters are waited for."""
        chance = random.Random(7)
        port = int(self.url.rpartition(":")[2])
        while not self.is_over:
            letters = [self._letter(chance) for _ in range(int(self.rate_per_s * self.batch_s))]
            requests = [request for _, request in letters]
            result = traffic.send(port, requests, CONNECTIONS, self.rate_per_s, resends=True)
            traffic.verify_updates(requests, result, self.root_key)
            self.sent += [letter for letter, _ in letters]
            self.times += [(began, took) for began, took in result.times]

    def _letter(self, chance: random.Random) -> tuple[tuple[int, bytes], traffic.Signed]:
        writer, receiver = chance.sample(range(self.user_count), 2)
        writer %= len(self.mailboxes)
        if receiver == writer:
            receiver = (receiver + 1) % self.user_count
        message_id = chance.randbytes(16)
        arg = _send((Who.owner(identity_of(receiver).principal), message_id, Body.text(message_id.hex())))
        nonce = int.from_bytes(message_id[:7], "big")
        request = traffic.sign("call", self.mailboxes[writer], "send", arg, identity_of(writer), nonce)
        return (receiver, message_id), request

    def quantile_ms(self, share: float, since: float = 0, until: float = float("inf")) -> float:
        """Give a quantile of the times of letters that left in an interval."""
        taken = sorted(took for began, took in self.times if since <= began < until)
        return taken[min(len(taken) - 1, int(len(taken) * share))] * 1000 if taken else 0.0

    def missing(self, mailbox_of: Mapping[int, Principal]) -> list[bytes]:
        """Give the acknowledged letters that do not lie in their mailbox exactly once."""
        wanted: dict[int, list[bytes]] = {}
        for receiver, message_id in self.sent:
            wanted.setdefault(receiver, []).append(message_id)
        wrong: list[bytes] = []
        for receiver, expected in wanted.items():
            found = _inbox(
                Agent(self.url, identity_of(receiver), root_key=self.root_key), mailbox_of[receiver]
            )
            wrong += [one for one in expected if found.count(one) != 1]
        return wrong


def _inbox(agent: Agent, mailbox: Principal) -> list[bytes]:
    with agent:
        page = TypedCanister(agent, mailbox).query("inbox", InboxPage, (0, INBOX_PAGE_COUNT), (nat64, nat32))
    return [message.message_id for message in page.messages]


class FleetOfUsers:
    """The operator's view of a node's users."""

    def __init__(self, agent: Agent, index: Principal) -> None:
        self.agent = agent
        self.index = TypedCanister(agent, index)

    def release(self, version: int, module: bytes, module_hash: bytes) -> None:
        """Bring a module and register it as a version."""
        Management(self.agent).module_bring(module, module_hash)
        args, hints = ("user", version, module_hash, "a bench"), (str, nat64, bytes, str)
        result = self.index.call("fleet_release_add", ReleaseResult, args, hints)
        assert result.tag == "ok", result

    def start(self, version: int, wave: int, rule: RuleChange | None = None) -> int:
        """Start a rollout to a version; give its number."""
        args = RolloutArgs([KindVersion("user", version)], wave, rule=rule)
        started = self.index.call("fleet_rollout_start", StartResult, (args,))
        assert started.tag == "ok", started
        return started.ok

    def rollout(self, id: int) -> RolloutInfo:
        """Give how a rollout stands."""
        found = self.index.query_option("fleet_rollout", RolloutInfo, (id,), (nat64,))
        assert found is not None
        return found

    def failures(self, id: int) -> list[Failure]:
        """Give the first failures of a rollout."""
        hints = (nat64, Principal | None, nat32)
        return self.index.query("fleet_failures", FailurePage, (id, None, 1000), hints).items

    def versions(self) -> dict[int, int]:
        """Count children by the version they are on."""
        counts = self.index.query("fleet_status", FleetStatus).counts
        return {count.version: count.count for count in counts if count.state == "active"}
