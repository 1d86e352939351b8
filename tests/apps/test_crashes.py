"""The main job under a thousand crashes: between send and inbox, and between an acknowledged send and its
delivery.

The store loses what was not synced. Whoever got no answer sends the same message again, as a client does.
"""

from __future__ import annotations

import random
from typing import Any

from cannery.apps.users.types import Body, Who
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Crashed, FaultyStore
from tests.apps.people import People

CYCLES = 1_000


def test_a_thousand_crashes_between_send_and_inbox_lose_nothing_and_double_nothing() -> None:
    chance = random.Random(20261121)
    store = FaultyStore(seed=1)
    people = People(store)
    people.register("ann")
    people.register("bob")
    read = 0
    crashes = 0
    for cycle in range(CYCLES):
        text = f"letter {cycle}"
        store.crash_at(store.operation_count + chance.randint(1, 5))
        while True:
            try:
                result = people.send("ann", "bob", text)
                break
            except Crashed:
                crashes += 1
                _restart(people)
        assert result.tag == "ok", result
        if chance.random() < 0.5:
            store.crash()
            crashes += 1
            _restart(people)
        page: Any = people.mailbox("bob").inbox(read, 10)
        assert [m.body.text for m in page.messages] == [text]
        read = page.messages[-1].id + 1
    assert crashes >= CYCLES // 2
    assert people.texts("bob") == [f"letter {cycle}" for cycle in range(CYCLES)]
    people.node.close()


def test_crashes_between_an_acknowledged_send_and_its_delivery_lose_nothing() -> None:
    chance = random.Random(4943)
    store = FaultyStore(seed=2)
    people = People(store)
    bob = people.mailbox("bob").id
    people.register("ann")
    stop, start = CanisterIdRecord(bob), CanisterIdRecord(bob)
    sent: list[str] = []
    for cycle in range(60):
        people.node.manage("stop_canister", stop, sender=people.index.id)
        for number in range(3):
            text = f"{cycle}.{number}"
            result: Any = people.mailbox("ann").send(Who.username("bob"), text.encode(), Body.text(text))
            assert result.ok.state.tag == "stored"
            sent.append(text)
        store.crash()
        _restart(people)
        people.node.manage("start_canister", start, sender=people.index.id)
        store.crash_at(store.operation_count + chance.randint(1, 4))
        try:
            people.node.advance(seconds=3_700)
        except Crashed:
            _restart(people)
            people.node.advance(seconds=3_700)
        store.crash_at(0)
    assert people.texts("bob") == sent
    people.node.close()


def _restart(people: People) -> None:
    """Start the node again, also where it crashes while it starts."""
    for _ in range(10):
        try:
            people.node.restart()
            return
        except Crashed:
            continue
    raise AssertionError("the node does not start any more")
