"""Two subnets as pure functions: whatever the way between them does, messages arrive once and in order,
cycles are conserved, and calls of the management canister go where their canister is.
"""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.candid.codec import decoder, encoder
from cannery.candid.python import type_of
from cannery.limits import STREAM_ENTRY_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica import keys, records
from cannery.replica.management import types as t
from cannery.replica.places import SubnetChoice
from tests.replica.puppet import Act, pack, puppet
from tests.replica.subnet_world import IDS, Subnets
from tests.replica.world import OPERATOR, PRICES, World

DELAYS = st.lists(st.tuples(st.sampled_from(["carry", "again", "gap", "ack", "turn"]), st.integers(0, 1)))


def _far_call(callee: bytes, mark: bytes, cycles: int, amount: int) -> Act:
    """Call a canister that notes the mark behind those before it, takes cycles and replies."""
    acts: list[Act] = [["log", f"call {mark.decode()}"], ["accept", amount], ["reply", mark]]
    return ["call", callee, "run", acts, cycles, [["log", f"answer {mark.decode()}"]]]


def _lines(world: World, canister: bytes) -> list[str]:
    found = world.store.scan(*keys.owned_range(keys.LOGS, canister))
    return [records.LOG.decode(data).content.decode() for _, data in found]


@given(
    calls=st.lists(st.tuples(st.integers(0, 1), st.integers(0, 50), st.integers(0, 80)), max_size=12),
    way=DELAYS,
    priced=st.booleans(),
)
@settings(max_examples=60, deadline=None)
def test_calls_arrive_once_and_are_answered_once_whatever_the_way_does(
    calls: list[tuple[int, int, int]], way: list[tuple[str, int]], priced: bool
) -> None:
    pair = Subnets(PRICES if priced else None)
    ids = [world.add(puppet(), cycles=10_000_000) for world in pair.worlds]
    steps = iter(way)
    for number, (caller, cycles, amount) in enumerate(calls):
        world = pair.worlds[caller]
        act = _far_call(ids[1 - caller], b"%d" % number, cycles, amount)
        world.round(world.ingress(ids[caller], "run", pack([act, ["reply", b""]])))
        for what, subnet in [step for step, _ in zip(steps, range(3), strict=False)]:
            if what == "carry":
                pair.carry(subnet, count=2)
            elif what == "again":
                pair.carry(subnet, first=0)
            elif what == "gap":
                pair.carry(subnet, first=pair.head(1 - subnet, subnet).received + 1)
            elif what == "ack":
                pair.acknowledge(subnet)
            else:
                pair.worlds[subnet].round()
            pair.check_cycles()
    pair.settle()
    pair.check_cycles()
    for caller in range(2):
        made = [number for number, (who, _, _) in enumerate(calls) if who == caller]
        called = [line for line in _lines(pair.worlds[1 - caller], ids[1 - caller]) if "call" in line]
        answered = [line for line in _lines(pair.worlds[caller], ids[caller]) if "answer" in line]
        assert called == [f"call {number}" for number in made]
        assert answered == [f"answer {number}" for number in made]
        head = pair.head(caller, 1 - caller)
        assert (head.first, head.size_bytes) == (head.next, 0)
        assert not list(pair.worlds[caller].store.scan(*keys.space_range(keys.STREAMS)))


@given(order=st.lists(st.integers(1, 4), min_size=1, max_size=8))
@settings(max_examples=20, deadline=None)
def test_messages_run_in_the_order_in_which_they_were_sent(order: list[int]) -> None:
    pair = Subnets()
    one, two = pair.worlds
    a, b = one.add(puppet()), two.add(puppet())
    for number in range(sum(order)):
        call: Act = ["call", b, "run", [["put", b"last", b"%d" % number], ["log", str(number)]], 0, None]
        one.round(one.ingress(a, "run", pack([call, ["reply", b""]])))
    for count in order:
        pair.carry(0, count=count)
    pair.settle()
    assert _lines(two, b) == [str(number) for number in range(sum(order))]


def test_a_full_stream_refuses_calls_and_still_takes_responses() -> None:
    pair = Subnets()
    one, two = pair.worlds
    a, b = one.add(puppet(), cycles=1000), two.add(puppet(), cycles=1000)
    head = pair.head(0, 1)
    full = records.StreamHead(head.first, head.first + STREAM_ENTRY_COUNT_MAX, head.received)

    def fill(message: object) -> None:
        one_state = message.state  # type: ignore[attr-defined]
        one_state.layer.put(keys.stream_head_key(1), records.encode_record(full))

    one.edit(fill)
    refused = one.call(
        a, "run", pack([["call", b, "run", [], 7, [["note", b"n"], ["reply", b""]]], ["later", 0]])
    )
    assert refused is not None
    assert b"the stream to subnet 1 is full: try again later" in (one.value(a, b"n") or b"")
    assert one.account(a).cycles == 1000
    two.round(two.ingress(b, "run", pack([["call", a, "run", [["reply", b"x"]], 0, None], ["reply", b""]])))
    pair.carry(1)
    one.settle()
    assert pair.head(0, 1).next == full.next + 1


# --- the management canister -----------------------------------------------------------------------------


def _manage(
    pair: Subnets, at: int, caller: bytes, callee: bytes, method: str, arg: bytes, cycles: int = 0
) -> bytes:
    world = pair.worlds[at]
    then: list[Act] = [["note", b"answer"], ["reply", b""]]
    # The puppet packs acts: a management argument goes as it is, so it is called by hand.
    act: Act = ["raw", callee, method, arg, cycles, then]
    world.round(world.ingress(caller, "run", pack([act, ["later", 0]])))
    pair.settle()
    return world.value(caller, b"answer") or b""


_RESULT = decoder((type_of(t.CanisterIdRecord),))


def _created(answer: bytes) -> bytes:
    assert answer.startswith(b"0:"), answer
    (result,) = _RESULT(answer[2:])
    assert isinstance(result, t.CanisterIdRecord)
    return result.canister_id.raw


def _create_arg(choice: SubnetChoice | None) -> bytes:
    return encoder((type_of(t.CreateCanisterArgs),))((t.CreateCanisterArgs(subnet=choice),))


def test_a_canister_is_made_on_the_subnet_that_is_called_or_named_or_has_the_fewest() -> None:
    pair = Subnets()
    a = pair.worlds[0].add(puppet(), cycles=10_000)
    by_callee = _created(_manage(pair, 0, a, IDS[1], "create_canister", _create_arg(None), 70))
    named = SubnetChoice.id(Principal(IDS[1]))
    by_name = _created(_manage(pair, 0, a, b"", "create_canister", _create_arg(named)))
    own = _created(_manage(pair, 0, a, IDS[0], "create_canister", _create_arg(None)))
    unsaid = _created(_manage(pair, 0, a, b"", "create_canister", _create_arg(None)))
    places = [pair.worlds[0].store, pair.worlds[1].store]
    for canister, place in ((by_callee, 1), (by_name, 1), (own, 0), (unsaid, 0)):
        assert [place.get(keys.owned(keys.CANISTERS, canister)) is not None for place in places] == [
            number == place for number in range(2)
        ]
    assert pair.worlds[1].account(by_callee).cycles == 70
    assert pair.worlds[1].canister(by_name).controllers == (a,)
    pair.check_cycles()
    anywhere = [
        _created(_manage(pair, 0, a, b"", "create_canister", _create_arg(SubnetChoice.any())))
        for _ in range(6)
    ]
    counts = [pair.subnet(number).canister_count for number in range(2)]
    assert abs(counts[0] - counts[1]) <= 1, (counts, anywhere)


def test_a_name_that_is_no_subnets_is_refused_and_the_cycles_come_back() -> None:
    pair = Subnets()
    a = pair.worlds[0].add(puppet(), cycles=1000)
    nobody = SubnetChoice.id(Principal(b"\x75" * 28 + b"\x02"))
    answer = _manage(pair, 0, a, b"", "create_canister", _create_arg(nobody), 500)
    assert b"This node has no subnet" in answer
    assert pair.worlds[0].account(a).cycles == 1000


def test_calls_about_a_canister_go_to_its_subnet_and_a_stranger_is_refused_there() -> None:
    pair = Subnets()
    one, two = pair.worlds
    a, stranger = one.add(puppet(), cycles=1000), one.add(puppet(), cycles=1000)
    child = _created(_manage(pair, 0, a, IDS[1], "create_canister", _create_arg(None), 100))
    about = encoder((type_of(t.CanisterIdRecord),))((t.CanisterIdRecord(Principal(child)),))
    assert _manage(pair, 0, a, b"", "stop_canister", about).startswith(b"0:")
    assert two.canister(child).status is records.CanisterStatus.STOPPED
    assert b"Only controllers of canister" in _manage(pair, 0, stranger, b"", "start_canister", about)
    assert _manage(pair, 0, a, b"", "deposit_cycles", about, 50).startswith(b"0:")
    assert two.account(child).cycles == 150
    take = encoder((type_of(t.TakeCyclesArgs),))((t.TakeCyclesArgs(Principal(child)),))
    assert _manage(pair, 0, a, b"", "cannery_cycles_take", take).startswith(b"0:")
    assert (one.account(a).cycles, two.account(child).cycles) == (1000, 0)
    assert _manage(pair, 0, a, b"", "delete_canister", about).startswith(b"0:")
    assert two.store.get(keys.owned(keys.CANISTERS, child)) is None
    assert two.store.get(keys.owned(keys.CREATIONS, a)) is None
    pair.check_cycles()


def test_operators_are_those_of_the_first_subnet_everywhere() -> None:
    pair = Subnets()
    one, two = pair.worlds
    arg = encoder((type_of(Principal),))((Principal(b"\x09" * 28 + b"\x02"),))
    one.round(one.ingress(b"", "cannery_operator_add", arg, sender=OPERATOR))
    pair.settle()
    for world in (one, two):
        assert world.store.get(keys.hashed(keys.OPERATORS, b"\x09" * 28 + b"\x02")) is not None
    one.round(one.ingress(b"", "cannery_operator_remove", arg, sender=OPERATOR))
    pair.settle()
    for world in (one, two):
        assert world.store.get(keys.hashed(keys.OPERATORS, b"\x09" * 28 + b"\x02")) is None
