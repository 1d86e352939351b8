"""Turns: nobody starves, order is kept in each lane, and a round leaves off where the next one goes on."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.ports import CallRequest
from cannery.replica.block import ReplicaConfig
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import Script, World

REPLY = pack([["reply", b""]])


def test_a_canister_that_calls_itself_for_ever_starves_nobody() -> None:
    def spin(system) -> None:
        system.call(CallRequest(system.canister_id, "spin", b"", 0, "again"))
        if system.kind.name == "UPDATE":
            system.reply(b"")

    busy_script = Script({"spin": spin}, others={"again": spin})
    world = World(ReplicaConfig(activation_count_max=10))
    busy, quiet = world.add(busy_script), world.add(puppet())
    world.round(world.ingress(busy, "spin"))
    for _ in range(5):
        call = world.ingress(quiet, "run", REPLY)
        own = world.ingress(busy, "spin")
        world.round(call, own)
        assert call.request_id in world.answers, "another canister's turn comes in the same round"
        assert world.last.backlog
        world.round()
        assert own.request_id in world.answers, "the busy canister's other lanes take turns too"
        assert world.last.events.activations == 10


def test_a_hundred_messages_of_one_do_not_delay_one_message_of_another() -> None:
    world = World(ReplicaConfig(activation_count_max=4))
    busy, quiet = world.add(puppet()), world.add(puppet())
    calls = [world.ingress(busy, "run", REPLY) for _ in range(100)]
    last = world.ingress(quiet, "run", REPLY)
    world.round(*calls, last)
    assert last.request_id in world.answers
    assert len(world.answers) == 4
    world.settle()
    assert len(world.answers) == 101


def test_a_canister_that_many_ask_is_not_held_up_by_those_beside_it() -> None:
    """As an index while its children are busy: it has more than one message a turn, within bounds."""
    world = World(ReplicaConfig(activation_count_max=800))
    index, *children = (world.add(puppet()) for _ in range(101))
    asked = [world.ingress(index, "run", REPLY) for _ in range(30)]
    own = [world.ingress(child, "run", REPLY) for child in children for _ in range(20)]
    world.round(*asked, *own)
    answered = [ingress.request_id in world.answers for ingress in asked]
    assert answered[:8] == [True] * 8, "a turn is a hundredth of a round"
    assert answered[8:] == [False] * 22
    assert len(world.answers) == 800
    assert sum(one.request_id in world.answers for one in own[:20]) == 8
    world.settle()
    assert len(world.answers) == 2030


@settings(max_examples=40)
@given(
    st.lists(st.lists(st.integers(0, 3), max_size=6), min_size=1, max_size=5),
    st.sampled_from([1, 2, 5, 300, 1000]),
)
def test_order_is_kept_for_each_canister_over_bounded_rounds(plan: list[list[int]], bound: int) -> None:
    world = World(ReplicaConfig(activation_count_max=bound))
    ids = [world.add(puppet()) for _ in range(4)]
    sent: list[list[bytes]] = [[] for _ in ids]
    for targets in plan:
        inputs = [world.ingress(ids[target], "run", REPLY) for target in targets]
        for target, ingress in zip(targets, inputs, strict=True):
            sent[target].append(ingress.request_id)
        world.round(*inputs)
        assert world.last.events.activations <= bound
    world.settle()
    order = list(world.answers)
    for requests in sent:
        assert [request for request in order if request in set(requests)] == requests


def test_the_work_of_a_round_is_bounded_by_keys_and_bytes() -> None:
    world = World(ReplicaConfig(work_count_max=50))
    canister = world.add(puppet())
    acts: list[Act] = [["put", b"%d" % n, b"x"] for n in range(20)]
    calls = [world.ingress(canister, "run", pack([*acts, ["reply", b""]])) for _ in range(10)]
    world.round(*calls)
    assert len(world.answers) == 3
    world.settle()
    assert len(world.answers) == 10


def test_an_idle_world_has_nothing_to_do() -> None:
    world = World()
    canister = world.add(puppet())
    world.call(canister, "run", REPLY)
    outcome = world.round()
    assert not outcome.backlog
    assert outcome.next_timer_ns is None
    assert outcome.events.activations == 0
    assert len(outcome.batch.puts) == 2, "an empty round writes its block and the head alone"


@pytest.mark.parametrize("bound", [1, 8])
def test_a_flood_of_calls_from_outside_does_not_hold_up_a_response(bound: int) -> None:
    world = World(ReplicaConfig(activation_count_max=bound))
    flooded, other = world.add(puppet()), world.add(puppet())
    asking = world.ingress(
        flooded, "run", pack([["call", other, "run", [["reply", b""]], 0, [["pass"]]], ["later", 0]])
    )
    world.round(asking, *[world.ingress(flooded, "run", REPLY) for _ in range(100)])
    for _ in range(8 // bound - 1):
        world.round()
    assert asking.request_id in world.answers
