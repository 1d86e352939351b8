"""Rollouts over fleets of users under load: how fast, and what their users notice of it.

The peer does what the systems before us did: five canisters at a time, each stopped, upgraded and started
again by a client that waits for every answer, here over canisters of the same module on the same node.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bench import traffic
from bench.fleet_of_users import check_count, open_the_gate, registrations
from bench.letters import FleetOfUsers, Letters, identity_of
from bench.report import Line
from bench.servers import CONFIG, RunningNode, running_node
from bench.user_builds import build_bad_for_all, build_good, build_user
from cannery.apps.users.types import Profile, UserInit, Who
from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.build import BuiltModule
from cannery.cli.app_install import build_app
from cannery.cli.management import Management
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.rollout_types import RolloutInfo, RuleChange
from cannery.protocol.principal import Principal

SMALL, LARGE = 10_000, 100_000
WAVE = 50
WRITERS = 100
RATE_PER_S = 100
LOAD_S = 10
POLL_S = 0.2
LOOKUP_COUNT = 500
PEER_COUNT = 100
HOOK_CPU_MS_MAX = 100
BAD_NAMES = {50: "trap", 51: "hang", 52: "rot"}
RULE = RuleChange(fault_permille=60, tries_max=2, retry_ns=1_000_000_000)
_init = encoder((type_of(UserInit),))


def run_rollouts() -> Iterator[Line]:
    """Measure rollouts of 10,000 and 100,000 users: a good build, one that is bad for some, one for all."""
    builds = Builds(
        build_app("users").child,
        build_good("good"),
        build_user("partly bad"),
        build_bad_for_all("bad for all"),
    )
    for count in (SMALL, LARGE):
        yield from _run(count, builds)


@dataclass(frozen=True, slots=True)
class Builds:
    """Builds of the user module: the first version and those that follow it."""

    first: BuiltModule
    good: BuiltModule
    partly_bad: BuiltModule
    bad: BuiltModule


def _name(number: int) -> str:
    """Name a user: a hundredth of them each is one that a bad build traps, hangs or corrupts."""
    return f"{BAD_NAMES.get(number % 100, 'user')}_{number}"


def _run(count: int, builds: Builds) -> Iterator[Line]:
    settings = CONFIG + f"[limits]\nhook_cpu_ms_max = {HOOK_CPU_MS_MAX}\n"
    with tempfile.TemporaryDirectory() as folder, running_node(Path(folder) / "data", settings) as node:
        index = open_the_gate(node)
        for first in range(0, count, 20_000):
            step = min(20_000, count - first)
            traffic.send(node.port, registrations(index, first, step, _name), 64)
        check_count(node, index, count)
        peer = _stop_and_wait(node, builds.first, builds.good) if count == SMALL else None
        letters = Letters(node.url, node.agent().root_key(), _writers(node, index), count, RATE_PER_S)
        writing = threading.Thread(target=letters.run)
        writing.start()
        try:
            with node.agent() as agent:
                fleet = FleetOfUsers(agent, index)
                yield _good(node, fleet, letters, count, builds.good, peer)
                yield _partly_bad(node, fleet, letters, count, builds.partly_bad)
                yield _bad(fleet, letters, count, builds.bad)
        finally:
            letters.is_over = True
            writing.join()
        receivers = sorted({receiver for receiver, _ in letters.sent})
        missing = letters.missing(_mailboxes(node, index, receivers))
        assert missing == [], f"{len(missing)} letters are lost or doubled"
        yield Line(
            "rollouts", f"letters among {count:,} users, each there once", len(letters.sent), "letters"
        )


def _writers(node: RunningNode, index: Principal) -> list[Principal]:
    return list(_mailboxes(node, index, range(WRITERS)).values())


def _mailboxes(node: RunningNode, index: Principal, numbers: Iterable[int]) -> dict[int, Principal]:
    """Find the mailboxes of users."""
    wanted, found = list(numbers), dict[int, Principal]()
    with node.agent() as agent:
        for first in range(0, len(wanted), LOOKUP_COUNT):
            some = wanted[first : first + LOOKUP_COUNT]
            asked = [Who.owner(identity_of(number).principal) for number in some]
            profiles = TypedCanister(agent, index).query(
                "lookup_many", list[Profile | None], (asked,), (list[Who],)
            )
            found |= {n: profile.canister for n, profile in zip(some, profiles, strict=True) if profile}
    return found


def _finish(
    fleet: FleetOfUsers, id: int, is_killed_at: Callable[[RolloutInfo], bool], kill: Callable[[], None]
) -> RolloutInfo:
    """Wait for a rollout's end; kill the node once, when it is time."""
    killed = False
    while True:
        info = fleet.rollout(id)
        if info.ended_ns is not None:
            return info
        if not killed and is_killed_at(info):
            killed = True
            kill()
        time.sleep(POLL_S)


def _good(
    node: RunningNode,
    fleet: FleetOfUsers,
    letters: Letters,
    count: int,
    built: BuiltModule,
    peer: float | None,
) -> Line:
    fleet.release(2, built.module, built.hash)
    began = time.time()
    time.sleep(LOAD_S)
    begun = time.time()
    info = _finish(fleet, fleet.start(2, WAVE), lambda _: False, node.kill_and_start)
    ended = time.time()
    assert (info.state.tag, info.counts.forward) == ("done", count), info
    return Line(
        "rollouts",
        f"good build, {count:,} users under load",
        count / (ended - begun),
        "per s",
        "five at a time, stopped and waited for" if peer else "",
        peer,
        {"seconds": ended - begun, **_latencies(letters, began, begun, ended)},
    )


def _partly_bad(
    node: RunningNode, fleet: FleetOfUsers, letters: Letters, count: int, built: BuiltModule
) -> Line:
    fleet.release(3, built.module, built.hash)
    began = time.time()
    time.sleep(LOAD_S)
    begun = time.time()
    id = fleet.start(3, WAVE, RULE)
    info = _finish(fleet, id, lambda seen: seen.counts.forward > count // 3, node.kill_and_start)
    ended = time.time()
    bad = count // 100 * len(BAD_NAMES)
    assert (info.state.tag, info.counts.forward, info.counts.quarantined) == ("done", count - bad, bad), info
    assert fleet.versions() == {2: bad, 3: count - bad}, fleet.versions()
    reasons = ("the old letters cannot be read", "of CPU", "answered false")
    failures = fleet.failures(id)
    assert all(any(reason in failure.reason for reason in reasons) for failure in failures), failures[:3]
    return Line(
        "rollouts",
        f"3 % bad, one kill -9, {count:,} users",
        count / (ended - begun),
        "per s",
        notes={
            "seconds": ended - begun,
            "quarantined": info.counts.quarantined,
            **_latencies(letters, began, begun, ended),
        },
    )


def _bad(fleet: FleetOfUsers, letters: Letters, count: int, built: BuiltModule) -> Line:
    before = fleet.versions()
    fleet.release(4, built.module, built.hash)
    began = time.time()
    time.sleep(LOAD_S)
    begun = time.time()
    info = _finish(fleet, fleet.start(4, WAVE, RULE), lambda _: False, lambda: None)
    ended = time.time()
    assert info.state.tag == "rolled_back", info
    assert fleet.versions() == before
    return Line(
        "rollouts",
        f"bad for all, {count:,} users: stopped at the canary",
        ended - begun,
        "s",
        notes={"tried": info.counts.selected, **_latencies(letters, began, begun, ended)},
    )


def _latencies(letters: Letters, began: float, begun: float, ended: float) -> dict[str, float]:
    return {
        f"p{share * 100:.0f} ms {when}": letters.quantile_ms(share, since, until)
        for when, since, until in (("before", began, begun), ("during", begun, ended))
        for share in (0.5, 0.99)
    }


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

        begun = time.time()
        with ThreadPoolExecutor(5) as workers:
            list(workers.map(upgrade, canisters))
        return PEER_COUNT / (time.time() - begun)
