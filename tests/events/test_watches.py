"""Watches at the subnet: asked again exactly when what was read has changed, and before events leave."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from pathlib import Path

import pytest

from cannery.candid.codec import encoder
from cannery.candid.python import type_of
from cannery.cdk.event_request import EventRequest
from cannery.node import watches as watches_module
from cannery.node.answers import ReplySpool
from cannery.node.handover import Decided, Events, QueryMessage, ReadEvents, Stale, ToGateway, Watch
from cannery.node.read_trace import ReadTrace
from cannery.node.remote_subnet import RemoteSubnet
from cannery.node.subnet_server import SubnetServer
from cannery.node.watches import Watches
from cannery.replica import keys
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import FaultyStore, MemoryStore, Node
from cannery.testing.actor import Actor
from tests.events.club import Club
from tests.waiting import NEVER_S

_request = encoder((type_of(EventRequest),))


class Gateway:
    """It is full while told so, or where it has not taken `room` messages."""

    def __init__(self, room: int = 1_000) -> None:
        self.is_told_full = False
        self.room = room
        self.heard: list[ToGateway] = []

    @property
    def is_full(self) -> bool:
        return self.is_told_full or len(self.heard) >= self.room

    @is_full.setter
    def is_full(self, is_full: bool) -> None:
        self.is_told_full = is_full

    def post(self, message: ToGateway) -> None:
        self.heard.append(message)

    def take(self) -> list[ToGateway]:
        heard, self.heard = self.heard, []
        return heard


class Desk:
    """Watches over a test node's subnet; its jobs run when told."""

    def __init__(self, store: MemoryStore | None = None) -> None:
        self.node = Node(store)
        self.club: Actor = self.node.install(Club)
        self.jobs: deque[Callable[[], None]] = deque()
        self.watches = Watches(lambda: self.node.subnet, self._ask)
        self.gateway = Gateway()
        keep = self.node._keep

        def deliver(durable):
            self.watches.deliver(durable)
            keep(durable)

        self.node._keep = deliver

    def _ask(self, job: Callable[[], None]) -> bool:
        self.jobs.append(job)
        return True

    def decide(self) -> None:
        while self.jobs:
            self.jobs.popleft()()

    def watch(self, id: int, who: object, topics: list[str] | None = None) -> None:
        arg = _request((EventRequest(bytes(32), "", topics or ["chat"], None),))
        sender = self.node.principal(who).raw
        query = QueryMessage(bytes(32), sender, self.club.id.raw, "events_allowed", arg)
        self.watches.watch(self.gateway, Watch(id, query))
        self.decide()


@pytest.fixture
def desk() -> Desk:
    return Desk()


def test_a_watch_is_asked_once_however_much_is_said(desk: Desk) -> None:
    desk.club.join(desk.node.principal("ann"))
    desk.watch(1, "ann")
    (decided,) = desk.gateway.take()
    assert isinstance(decided, Decided)
    assert decided.next == 0
    for number in range(5):
        desk.club.say("chat", f"{number}")
    assert desk.jobs == deque()
    heard = desk.gateway.take()
    assert [type(message) for message in heard] == [Events] * 5


def test_a_change_of_what_was_read_is_told_before_the_events_of_its_round(desk: Desk) -> None:
    ann, ben = desk.node.principal("ann"), desk.node.principal("ben")
    desk.club.join(ann)
    desk.club.join(ben)
    desk.watch(1, "ann")
    desk.watch(2, "ben")
    desk.gateway.take()
    desk.club.leave_and_say(ann, "gone")
    stale, events = desk.gateway.take()
    assert stale == Stale((1,))
    assert isinstance(events, Events)
    desk.decide()
    (decided,) = desk.gateway.take()
    assert isinstance(decided, Decided)
    assert (decided.id, decided.next) == (1, 1)
    desk.club.join(ann)
    assert desk.gateway.take() == [Stale((1,))]


def test_what_survived_a_failed_sync_is_told_before_it_can_be_read() -> None:
    store = FaultyStore()
    desk = Desk(store)
    ann = desk.node.principal("ann")
    desk.club.join(ann)
    desk.watch(1, "ann")
    desk.gateway.take()
    store.fail_at(store.operation_count + 2)
    desk.club.leave_and_say.submit(ann, "gone")
    desk.node.run()
    assert desk.node.subnet.failure is not None
    assert desk.gateway.take() == []
    assert desk.watches.read(ReadEvents(5, desk.club.id.raw, 0)).events == ()
    assert desk.node.recover()
    stale, events = desk.gateway.take()
    assert stale == Stale((1,))
    assert isinstance(events, Events)
    (item,) = desk.watches.read(ReadEvents(6, desk.club.id.raw, 0)).events
    assert item.payload == b"gone"


@pytest.mark.parametrize("change", ["upgrade", "stop", "reinstall", "delete", "controllers"])
def test_changes_of_the_canister_itself_count_too(desk: Desk, change: str) -> None:
    node, club = desk.node, desk.club
    club.join(node.operator)
    desk.watch(1, node.operator, ["chat", "secret"])
    desk.gateway.take()
    if change == "upgrade":
        node.upgrade(club, Club)
    elif change == "reinstall":
        node.reinstall(club, Club)
    elif change == "controllers":
        node.set_controllers(club.id, node.operator, "ann")
    else:
        node.stop(club)
        if change == "delete":
            node.manage("delete_canister", CanisterIdRecord(club.id))
    assert desk.gateway.take() == [Stale((1,))]
    desk.decide()
    (decided,) = desk.gateway.take()
    assert isinstance(decided, Decided)
    assert bool(decided.answer.reject_code) == (change in ("stop", "delete"))


def test_a_watch_that_ended_hears_nothing_and_nothing_is_left_of_it(desk: Desk) -> None:
    desk.club.join(desk.node.principal("ann"))
    desk.watch(1, "ann")
    desk.watch(2, "ann")
    desk.watches.unwatch(desk.gateway, 1)
    desk.gateway.take()
    desk.club.say("chat", "x")
    assert [type(message) for message in desk.gateway.take()] == [Events]
    desk.watches.drop(desk.gateway)
    desk.club.say("chat", "y")
    assert desk.gateway.take() == []
    assert len(desk.watches) == 0
    assert not desk.watches._by_key
    assert not desk.watches._by_prefix
    assert not desk.watches._watchers


def test_a_full_gateway_is_sent_nothing_and_all_its_watches_are_asked_again(desk: Desk) -> None:
    desk.club.join(desk.node.principal("ann"))
    desk.watch(1, "ann")
    desk.gateway.take()
    desk.gateway.is_full = True
    desk.club.say("chat", "one")
    desk.gateway.is_full = False
    desk.club.say("chat", "two")
    assert desk.gateway.take() == []
    desk.watches.resume(desk.gateway)
    desk.decide()
    stale, decided = desk.gateway.take()
    assert stale == Stale((1,))
    assert isinstance(decided, Decided)
    assert decided.next == 2
    page = desk.watches.read(ReadEvents(9, desk.club.id.raw, 0))
    assert [event.payload for event in page.events] == [b"one", b"two"]
    desk.club.say("chat", "three")
    assert [type(message) for message in desk.gateway.take()] == [Events]


def test_a_gateway_that_takes_little_at_a_time_gets_a_decision_for_each_of_its_watches(desk: Desk) -> None:
    desk.club.join(desk.node.principal("ann"))
    desk.gateway.room = 3
    for id in range(1, 9):
        desk.watch(id, "ann")
    decided: set[int] = set()
    for _ in range(8):
        decided |= {message.id for message in desk.gateway.take() if isinstance(message, Decided)}
        desk.watches.resume(desk.gateway)
        desk.decide()
    assert decided == set(range(1, 9))
    # While nothing happens nobody is asked again.
    assert desk.gateway.take() == []


def test_a_gateway_that_takes_nothing_is_not_sent_decisions_without_end(desk: Desk) -> None:
    ann = desk.node.principal("ann")
    desk.watch(1, "ann")
    desk.gateway.take()
    desk.gateway.is_full = True
    for _ in range(5):
        desk.club.join(ann)
        desk.decide()
        desk.club.leave(ann)
        desk.decide()
    assert desk.gateway.take() == [Stale((1,))]
    desk.club.join(ann)
    desk.gateway.is_full = False
    desk.watches.resume(desk.gateway)
    desk.decide()
    (decided,) = desk.gateway.take()
    assert isinstance(decided, Decided)
    assert b"chat" in decided.answer.reply


def test_watches_are_bounded(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watches_module, "WATCH_COUNT_MAX", 2)
    for number in range(3):
        desk.watch(number, "ann")
    rejects = [bool(message.answer.reject_code) for message in desk.gateway.take()]  # type: ignore[union-attr]
    assert sorted(rejects) == [False, False, True]


def test_a_trace_knows_keys_ranges_and_when_it_is_too_much() -> None:
    store = MemoryStore()
    trace = ReadTrace(store)
    own = keys.owned(keys.STABLE, b"canister")
    trace.get(own + b"k")
    list(trace.scan(own + b"a", own + b"c"))
    assert trace.keys == {own + b"k"}
    assert trace.ranges == {(own + b"a", own + b"c")}
    assert not trace.is_broad
    list(trace.scan(own, keys.after_prefix(own)))
    assert not trace.is_broad
    list(trace.scan(own, keys.after_prefix(own) + b"x"))
    assert trace.is_broad
    many = ReadTrace(store)
    for number in range(300):
        many.get(own + keys.u64(number))
    assert many.is_broad


class Hearing:
    """Who hears of watches at a gateway."""

    def __init__(self) -> None:
        self.heard: asyncio.Queue[object] = asyncio.Queue()

    def decided(self, decided: Decided) -> None:
        self.heard.put_nowait(decided)

    def stale(self, ids: tuple[int, ...]) -> None:
        self.heard.put_nowait(Stale(ids))

    def events(self, events: Events) -> None:
        self.heard.put_nowait(events)


def test_after_a_lost_connection_no_watch_holds_until_it_is_decided_anew(tmp_path: Path) -> None:
    asyncio.run(_lose_the_connection(tmp_path))


async def _lose_the_connection(folder: Path) -> None:
    node = Node()
    club = node.install(Club)
    path = str(folder / "s")
    server = SubnetServer(node.subnet, ReplySpool(folder))
    await server.start(path)
    port = RemoteSubnet(path)
    await port.start(10)
    hearing = Hearing()
    port.listen(hearing)
    arg = _request((EventRequest(bytes(32), "", ["open"], None),))
    sender = node.principal("ann").raw
    id = port.watch(QueryMessage(bytes(32), sender, club.id.raw, "events_allowed", arg))
    async with asyncio.timeout(NEVER_S):
        assert isinstance(await hearing.heard.get(), Decided)
        for connection in list(server._connections):
            connection.close()
        assert await hearing.heard.get() == Stale((id,))
        assert isinstance(await hearing.heard.get(), Decided)
    assert (await port.read_events(club.id.raw, 0)).next == 0
    await port.close()
    await server.stop()
