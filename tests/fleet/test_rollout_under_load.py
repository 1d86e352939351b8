"""A rollout on a real node under load: builds that trap, hang and corrupt, and a `kill -9` in the middle."""

from __future__ import annotations

import threading
from collections.abc import Callable

from bench import traffic
from bench.letters import FleetOfUsers, Letters, identity_of
from bench.user_builds import build_bad_for_all, build_user
from cannery.apps.users.types import IndexSettings, Profile, Who
from cannery.apps.users.user_index import UserIndex
from cannery.cli.typed_calls import TypedCanister
from cannery.fleet.rollout_types import RuleChange
from cannery.protocol.principal import Principal
from tests.node_under_test import NodeUnderTest
from tests.sim.methods import shape
from tests.waiting import wait_until

USER_COUNT = 500
WRITER_COUNT = 30
WAVE = 25
RATE_PER_S = 100
BAD = {f"{what}_{number}": what for what in ("trap", "hang", "rot") for number in range(5)}
SETTINGS = "[limits]\nhook_cpu_ms_max = 100\n[gateway]\nrequests_per_address_per_s = 1e9\n" + (
    "requests_per_address_burst = 1000000000\n"
)
RULE = RuleChange(fault_permille=60, tries_max=2, retry_ns=1_000_000_000)


def names() -> list[str]:
    """Give the users' names: the bad ones among the others, behind those of the canary."""
    found = [f"user_{number}" for number in range(USER_COUNT)]
    for place, name in enumerate(BAD, 1):
        found[place * 30] = name
    return found


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


def test_a_rollout_under_load_loses_nothing_and_leaves_the_bad_ones_as_they_were(
    start_node: Callable[..., NodeUnderTest],
) -> None:
    node = start_node(settings=SETTINGS)
    assert node.canisters is not None
    index = node.canisters["user_index"]
    mailboxes = register_all(node, index)
    assert len(mailboxes) == USER_COUNT
    load = Letters(node.url, node.root_key, mailboxes[:WRITER_COUNT], USER_COUNT, RATE_PER_S, batch_s=2)
    writing = threading.Thread(target=load.run)
    writing.start()
    try:
        with node.agent(node.operator) as agent:
            fleet = FleetOfUsers(agent, index)
            _roll_out_a_partly_bad_build(node, fleet, mailboxes)
            _roll_out_a_bad_build(fleet)
    finally:
        load.is_over = True
        writing.join()
    assert len(load.sent) > 200
    assert load.missing(dict(enumerate(mailboxes))) == []


def _roll_out_a_partly_bad_build(
    node: NodeUnderTest, fleet: FleetOfUsers, mailboxes: list[Principal]
) -> None:
    built = build_user("partly bad")
    fleet.release(2, built.module, built.hash)
    id = fleet.start(2, WAVE, RULE)
    wait_until(lambda: fleet.rollout(id).counts.forward > USER_COUNT // 4)
    node.kill()
    node.start()
    wait_until(lambda: fleet.rollout(id).ended_ns is not None)
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


def _roll_out_a_bad_build(fleet: FleetOfUsers) -> None:
    before = fleet.versions()
    built = build_bad_for_all("bad for all")
    fleet.release(3, built.module, built.hash)
    id = fleet.start(3, WAVE, RULE)
    wait_until(lambda: fleet.rollout(id).ended_ns is not None)
    rollout = fleet.rollout(id)
    assert rollout.state.tag == "rolled_back", rollout
    assert rollout.counts.selected <= USER_COUNT // 20, "it stopped at the canary"
    assert fleet.versions() == before
