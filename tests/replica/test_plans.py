"""Random plans of canisters that call, trap, refuse, are stopped by the clock and move cycles keep every law.

`World` checks after each round that cycles, memory and counters equal a full count, that a replay gives
the same root, and that no call is answered twice; here everything is answered in the end and nothing stays
open.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.replica import keys
from cannery.replica.block import PriceSchedule, ReplicaConfig
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import OPERATOR, World

CANISTER_COUNT = 3
small = st.binary(max_size=2)
targets = st.integers(0, CANISTER_COUNT)
simple = st.one_of(
    st.tuples(st.just("put"), small, st.binary(max_size=4)),
    st.tuples(st.just("delete"), small),
    st.tuples(st.just("range"), small, small),
    st.tuples(st.just("scan"), small, small, st.booleans()),
    st.tuples(st.just("count"), small),
    st.tuples(st.just("random"), small),
    st.tuples(st.just("accept"), st.integers(0, 200)),
    st.tuples(st.just("log"), st.text(max_size=5)),
    st.tuples(st.just("cancel"), st.integers(1, 12)),
    st.tuples(st.just("later"), st.integers(0, 1)),
)
endings = st.sampled_from(
    [("reply", b"yes")] * 18
    + [("reject", "no"), ("trap", "boom"), ("accept", 5), ("stop",), ("memory",), ("recurse",), ("exit",)]
)
methods = st.sampled_from(["run"] * 9 + ["read", "nothing", "then"])


def _bodies(depth: int) -> st.SearchStrategy[list]:
    """Acts of one activation; with depth left, they call and set timers whose acts are bodies themselves."""
    if not depth:
        return st.builds(lambda acts, ending: [*acts, ending], st.lists(simple, max_size=3), endings)
    inner = _bodies(depth - 1)
    call = st.tuples(st.just("call"), targets, methods, inner, st.integers(0, 400), inner | inner | st.none())
    every_ns = st.sampled_from([0, 0, 1_500_000])
    timer = st.tuples(st.just("timer"), st.integers(0, 2_000_000), every_ns, inner)
    later = st.tuples(st.just("later"), st.integers(0, 1))
    others = st.lists(simple | call | timer, max_size=2)
    return st.one_of(
        st.builds(lambda acts, first, ending: [*acts, first, ending], others, call, endings),
        st.builds(lambda acts, first, ending: [*acts, first, ending], others, call, later),
    )


plans = _bodies(3)
messages = st.lists(st.tuples(st.integers(0, CANISTER_COUNT - 1), plans), min_size=1, max_size=4)
rounds = st.lists(messages, min_size=1, max_size=3)


def _name_canisters(acts: list, ids: list[bytes]) -> list[Act]:
    """Put canister ids for their numbers; the number after the last names nobody."""
    named: list[Act] = []
    for act in acts:
        if act[0] == "call":
            _, target, method, inner, cycles, then = act
            callee = ids[target] if target < len(ids) else keys.canister_id(9)
            then_acts = None if then is None else _name_canisters(then, ids)
            named.append(["call", callee, method, _name_canisters(inner, ids), cycles, then_acts])
        elif act[0] == "timer":
            named.append([*act[:3], _name_canisters(act[3], ids)])
        else:
            named.append(list(act))
    return named


def _play(plan: list[list], activation_count_max: int, prices: PriceSchedule) -> World:
    config = ReplicaConfig(operators=(OPERATOR,), activation_count_max=activation_count_max, prices=prices)
    world = World(config)
    ids = [
        world.add(puppet(), cycles=1_000_000 if prices.per_message else 1000) for _ in range(CANISTER_COUNT)
    ]
    sent = 0
    for batch in plan:
        inputs = [
            world.ingress(ids[target], "run", pack(_name_canisters(acts, ids))) for target, acts in batch
        ]
        sent += len(inputs)
        world.round(*inputs, *inputs[:1])
    world.settle()
    assert len(world.answers) == sent
    return world


@settings(max_examples=150)
@given(rounds, st.sampled_from([1, 2, 5, 1000]))
def test_everything_is_answered_once_and_accounts_hold(plan: list[list], activation_count_max: int) -> None:
    world = _play(plan, activation_count_max, PriceSchedule())
    for space in (keys.CONTEXTS, keys.CALLBACKS, keys.PAIRS, keys.QUEUES, keys.READY, keys.STREAMS):
        assert list(world.store.scan(*keys.space_range(space))) == []


@settings(max_examples=50)
@given(rounds)
def test_accounts_hold_with_prices(plan: list[list]) -> None:
    prices = PriceSchedule(100, 1, 5, 50, 10**13, 1000)
    _play(plan, 3, prices)


@settings(max_examples=50)
@given(rounds)
def test_the_bounds_of_a_round_change_no_answer_of_a_single_message(plan: list[list]) -> None:
    single = [batch[:1] for batch in plan[:1]]
    whole = _play(single, 1000, PriceSchedule())
    pieces = _play(single, 1, PriceSchedule())
    assert [a.reply is None for a in whole.answers.values()] == [
        a.reply is None for a in pieces.answers.values()
    ]
