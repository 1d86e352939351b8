"""Streams: numbers and acknowledgements for every subnet, the own one included."""

from __future__ import annotations

from cannery.replica import keys, records
from cannery.replica.block import Block, ReplicaConfig, Route
from cannery.replica.records import CallMessage, ResponseMessage, StreamEntry, StreamHead
from cannery.replica.scheduler import Scheduler
from cannery.replica.state import RoundState
from cannery.replica.streams import acknowledge, receive
from tests.replica.puppet import Act, pack, puppet
from tests.replica.world import World

FAR = keys.canister_id((1 << 40) + 0x100000)
ROUTES = (Route(0, (1 << 40) - 1, 0), Route(1 << 40, (2 << 40) - 1, 1))


def _head(world: World, subnet: int) -> StreamHead:
    data = world.store.get(keys.stream_head_key(subnet))
    return StreamHead() if data is None else records.STREAM_HEAD.decode(data)


def test_messages_within_the_subnet_take_numbers_and_leave_nothing() -> None:
    world = World()
    a, b = world.add(puppet()), world.add(puppet())
    world.call(a, "run", pack([["call", b, "run", [["reply", b""]], 0, [["pass"]]], ["later", 0]]))
    assert _head(world, 0) == StreamHead(2, 2, 2)
    assert list(world.store.scan(*keys.space_range(keys.STREAMS))) == []


def test_a_message_to_another_subnet_stays_until_it_is_acknowledged() -> None:
    world = World(ReplicaConfig(routes=ROUTES))
    a = world.add(puppet(), cycles=100)
    call: Act = ["call", FAR, "run", [], 60, [["note", b"n"], ["reply", b"back"]]]
    ingress = world.ingress(a, "run", pack([call, ["later", 0]]))
    world.round(ingress)
    assert ingress.request_id not in world.answers
    stored = world.store.get(keys.stream_key(1, 1))
    assert stored is not None
    entry = records.STREAM_ENTRY.decode(stored)
    assert (entry.sender, entry.receiver) == (a, FAR)
    assert isinstance(entry.message, CallMessage)
    assert entry.message.cycles == 60
    head = _head(world, 1)
    assert (head.first, head.next, head.received) == (0, 2, 0), "behind the list of operators"

    response = StreamEntry(FAR, a, ResponseMessage(entry.message.callback, b"far", 0, "", 25))
    state = RoundState(world.store, Block(0, b"", world.time_ns, b""), world.shelf)
    state.scheduler = Scheduler(state)
    acknowledge(state, 1, 2)
    assert receive(state, 1, 0, response)
    assert not receive(state, 1, 0, response), "a repetition is dropped"
    assert not receive(state, 1, 2, response), "a gap is not stepped over"
    assert state.stream_head(1) == StreamHead(2, 2, 1)
    assert state.layer.get(keys.stream_key(1, 1)) is None
    assert state.scheduler.next_message() == (a, response.message)
    assert state.scheduler.next_message() is None


def test_an_id_in_nobodys_range_is_refused_by_the_own_subnet() -> None:
    world = World(ReplicaConfig(routes=ROUTES))
    a = world.add(puppet(), cycles=100)
    nobody = keys.canister_id(3 << 40)
    call: Act = ["call", nobody, "run", [], 60, [["note", b"n"], ["reply", b""]]]
    world.call(a, "run", pack([call, ["later", 0]]))
    assert (world.value(a, b"n") or b"").startswith(b"3:")
    assert world.account(a).cycles == 100
