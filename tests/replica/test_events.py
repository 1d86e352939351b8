"""Events: dense numbers, a bounded log, nothing from what failed, nothing that comes again."""

from __future__ import annotations

import pytest

from cannery import limits
from cannery.replica import events, keys, records
from cannery.replica.events import EventPage, read_events
from tests.replica.laws import check_laws
from tests.replica.puppet import pack, puppet
from tests.replica.world import World


def _page(world: World, canister: bytes, since: int = 0, count_max: int = 100_000) -> EventPage:
    page = read_events(world.store, canister, since, count_max, 2**40)
    assert page is not None
    return page


def test_events_have_dense_numbers_of_their_canister_and_leave_with_their_round() -> None:
    world = World()
    first, second = world.add(puppet()), world.add(puppet())
    world.call(first, "run", pack([["emit", "a", b"1"], ["emit", "b", b"2"], ["reply", b""]]))
    world.call(second, "run", pack([["emit", "a", b"3"], ["reply", b""]]))
    world.call(first, "run", pack([["emit", "a", b"4"], ["reply", b""]]))
    assert [(n, e.topic, e.payload) for n, e in _page(world, first).events] == [
        (0, "a", b"1"),
        (1, "b", b"2"),
        (2, "a", b"4"),
    ]
    assert [n for n, _ in _page(world, first, 2).events] == [2]
    assert [n for n, _ in _page(world, second).events] == [0]
    assert _page(world, first, 3) == EventPage(0, 3)
    emitted = world.emitted
    assert [(each.canister_id, each.number) for each in emitted] == [
        (first, 0),
        (first, 1),
        (second, 0),
        (first, 2),
    ]
    check_laws(world.store)


@pytest.mark.parametrize("end", [["trap", "boom"], ["exit"], ["memory"], ["emit", "", b""]])
def test_what_fails_emits_nothing_and_takes_no_number(end: list[object]) -> None:
    world = World()
    canister = world.add(puppet())
    world.call(canister, "run", pack([["emit", "a", b"lost"], end]))
    world.call(canister, "run", pack([["emit", "a", b"kept"], ["reply", b""]]))
    assert [(n, e.payload) for n, e in _page(world, canister).events] == [(0, b"kept")]
    assert [each.record.payload for each in world.emitted] == [b"kept"]


def test_the_oldest_go_first_within_a_count_and_a_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "EVENT_LOG_COUNT_MAX", 3)
    monkeypatch.setattr(events, "EVENT_LOG_SIZE_BYTES_MAX", 100)
    world = World()
    canister = world.add(puppet())
    world.call(canister, "run", pack([*(["emit", "t", b"%d" % n] for n in range(5)), ["reply", b""]]))
    page = _page(world, canister)
    assert (page.first, page.next, [n for n, _ in page.events]) == (2, 5, [2, 3, 4])
    world.call(canister, "run", pack([["emit", "t", b"x" * 96], ["reply", b""]]))
    page = _page(world, canister)
    assert (page.first, page.next) == (4, 6)
    assert world.account(canister).event_bytes == 99
    check_laws(world.store)


@pytest.mark.parametrize(
    ("topic", "payload", "text"),
    [
        ("", b"", "1 to 128 bytes"),
        ("é" * 65, b"", "1 to 128 bytes"),
        ("t", bytes(limits.EVENT_PAYLOAD_SIZE_BYTES_MAX + 1), "at most 65536 bytes"),
    ],
)
def test_what_no_event_may_have_traps_with_the_bound(topic: str, payload: bytes, text: str) -> None:
    world = World()
    canister = world.add(puppet())
    answer = world.call(canister, "run", pack([["emit", topic, payload], ["reply", b""]]))
    assert answer is not None
    assert text in answer.reject_message
    answer = world.call(canister, "run", pack([*[["emit", "t", b""]] * 1_001, ["reply", b""]]))
    assert answer is not None
    assert "at most 1000 events" in answer.reject_message
    assert _page(world, canister) == EventPage(0, 0)


def test_numbers_do_not_come_again_after_what_was_emitted_is_dropped() -> None:
    world = World()
    canister = world.add(puppet())
    world.call(canister, "run", pack([["emit", "a", b"1"], ["reply", b""]]))
    account = records.ACCOUNT.decode(world.store.get(keys.owned(keys.ACCOUNTS, canister)) or b"")
    assert (account.event_first, account.event_next, account.event_bytes) == (0, 1, 2)
    assert records.memory_size_bytes(account) == account.memory_bytes + 2
