"""Rollouts over fleets of users under load: how fast, and what their users notice of it.

The peer does what the systems before us did: five canisters at a time, each stopped, upgraded and started
again by a client that waits for every answer, here over canisters of the same module on the same node.
"""

from __future__ import annotations

import random
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from bench import traffic
from bench.fleet_of_users import check_count, open_the_gate, registrations
from bench.report import Line
from bench.servers import RunningNode, running_node
from bench.user_builds import build_user
from cannery.apps.users.types import Profile, UserInit, Who
from cannery.candid.codec import encoder
from cannery.candid.python import nat64, type_of
from cannery.candid.types import Nat64
from cannery.cdk.build import BuiltModule
from cannery.cli.app_install import build_users_app
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.registry import ReleaseResult
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, StartResult
from cannery.protocol.identity import Ed25519Identity
from cannery.protocol.principal import Principal

SMALL, LARGE = 10_000, 100_000
WAVE = 200
RATE_PER_S = 100
LOAD_S = 10
PEER_COUNT = 100
_acknowledge = encoder((Nat64(),))
_init = encoder((type_of(UserInit),))


def run_rollouts() -> Iterator[Line]:
    """Measure rollouts of 10,000 and 100,000 users."""
    plain, hooked = build_users_app().user, build_user("with hooks")
    for count in (SMALL, LARGE):
        yield from _run(count, plain, hooked)


def _run(count: int, plain: BuiltModule, hooked: BuiltModule) -> Iterator[Line]:
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data") as node:
        index = open_the_gate(node)
        for first in range(0, count, 20_000):
            traffic.send(node.port, registrations(index, first, min(20_000, count - first)), 64)
        check_count(node, index, count)
        mailboxes = _sample_mailboxes(node, index, count)
        before = _load(node, mailboxes, lambda: True)
        peer = _stop_and_wait(node, plain, hooked) if count == SMALL else None
        seconds, during = _roll_out(node, index, hooked, mailboxes)
        yield Line(
            "rollouts",
            f"rollout over {count:,} users under load",
            count / seconds,
            "per s",
            "five at a time, stopped and waited for" if peer else "",
            peer,
            {
                "seconds": seconds,
                "p99 ms before": before.p99_ms,
                "p99 ms during": during.p99_ms,
                "p50 ms before": before.p50_ms,
                "p50 ms during": during.p50_ms,
            },
        )


def _sample_mailboxes(
    node: RunningNode, index: Principal, count: int
) -> list[tuple[Ed25519Identity, Principal]]:
    """Find the mailboxes of some users, spread over all."""
    chosen = random.Random(1).sample(range(count), 500)
    who = [Ed25519Identity((0x5EED0000 + i).to_bytes(32, "big")) for i in chosen]
    found = TypedCanister(node.agent(), index).query(
        "lookup_many", list[Profile | None], ([Who.owner(one.principal) for one in who],), (list[Who],)
    )
    return [(one, profile.canister) for one, profile in zip(who, found, strict=True) if profile is not None]


def _load(
    node: RunningNode, mailboxes: list[tuple[Ed25519Identity, Principal]], is_over: Callable[[], bool]
) -> traffic.Result:
    """Send updates at a fixed rate to random users, until it is over; give the worst stretch."""
    chance = random.Random(2)
    worst: traffic.Result | None = None
    while worst is None or not is_over():
        requests = []
        for nonce in range(RATE_PER_S * LOAD_S):
            identity, mailbox = chance.choice(mailboxes)
            unique = chance.getrandbits(62) ^ nonce
            requests.append(
                traffic.sign("call", mailbox, "acknowledge", _acknowledge((0,)), identity, unique)
            )
        result = traffic.send(node.port, requests, 64, RATE_PER_S)
        assert result.statuses == {"200": len(requests)}, result.statuses
        traffic.verify_updates(requests, result, node.agent().root_key())
        if worst is None or result.p99_ms > worst.p99_ms:
            worst = result
    return worst


def _roll_out(
    node: RunningNode,
    index_id: Principal,
    built: BuiltModule,
    mailboxes: list[tuple[Ed25519Identity, Principal]],
) -> tuple[float, traffic.Result]:
    """Roll a build out while users write; give the seconds it took, and the load's worst stretch."""
    with node.agent() as agent:
        index = TypedCanister(agent, index_id)
        Management(agent).module_bring(built.module, built.hash)
        args, hints = ("user", 2, built.hash, "with hooks"), (str, nat64, bytes, str)
        assert index.call("fleet_release_add", ReleaseResult, args, hints).tag == "ok"
        over, seen = threading.Event(), list[traffic.Result]()
        loading = threading.Thread(target=lambda: seen.append(_load(node, mailboxes, over.is_set)))
        loading.start()
        time.sleep(2)
        begun = time.perf_counter()
        order = RolloutArgs([KindVersion("user", 2)], WAVE)
        started = index.call("fleet_rollout_start", StartResult, (order,))
        assert started.tag == "ok", started
        while True:
            info = index.query_option("fleet_rollout", RolloutInfo, (started.ok,), (nat64,))
            assert info is not None
            if info.ended_ns is not None:
                break
            time.sleep(0.2)
        seconds = time.perf_counter() - begun
        over.set()
        loading.join()
        assert info.state.tag == "done", info
        return seconds, seen[0]


def _stop_and_wait(node: RunningNode, plain: BuiltModule, hooked: BuiltModule) -> float:
    """Upgrade canisters five at a time, each stopped, upgraded and started; give canisters per second."""
    with node.agent() as agent:
        management = Management(agent)
        management.module_bring(hooked.module, hooked.hash)
        owner = agent.principal
        arg = _init((UserInit(owner, owner, "peer"),))
        canisters = [management.create(None, None) for _ in range(PEER_COUNT)]
        for canister in canisters:
            management.install(canister, "install", plain.hash, arg)

        def upgrade(canister: Principal) -> None:
            management.stop(canister, force=False)
            management.install(canister, "upgrade", hooked.hash, b"DIDL\x00\x00")
            management.start(canister)

        begun = time.perf_counter()
        with ThreadPoolExecutor(5) as workers:
            list(workers.map(upgrade, canisters))
        return PEER_COUNT / (time.perf_counter() - begun)
