"""Mailboxes that move to another canister, and canisters that get another owner: no letter goes astray."""

from __future__ import annotations

from typing import Any

import pytest

from cannery.apps.users.types import Body, Who
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, StopArgs
from cannery.testing import Rejected
from tests.apps.people import People

HOUR_S = 3_700


def operator(people: People) -> Any:  # an actor, whose methods are known at run time only
    return people.index.as_(people.node.operator)


def stop(people: People, name: str) -> None:
    people.node.manage("stop_canister", CanisterIdRecord(people.mailbox(name).id), sender=people.index.id)


def start(people: People, name: str) -> None:
    people.node.manage("start_canister", CanisterIdRecord(people.mailbox(name).id), sender=people.index.id)


def replace(people: People, name: str) -> None:
    result = operator(people).fleet_replace(people.mailbox(name).id, None, None)
    assert result.tag == "ok", result
    assert people.register(name).tag == "ok"


def test_what_waits_for_a_mailbox_that_moved_arrives_in_order_and_once() -> None:
    people = People()
    people.register("bob")
    assert people.send("ann", "bob", "zero").tag == "ok"
    stop(people, "bob")
    for text in ("one", "two"):
        assert people.send("ann", "bob", text).ok.state.tag == "stored"
    replace(people, "bob")
    assert people.send("ann", "bob", "three").tag == "ok"
    start(people, "bob")
    people.node.advance(seconds=HOUR_S)
    assert people.texts("bob") == ["zero", "one", "two", "three"]
    assert people.send("ann", "bob", "four").ok.state.tag == "delivered"
    assert people.texts("bob") == ["zero", "one", "two", "three", "four"]


def test_a_mailbox_that_moved_sends_nothing_twice() -> None:
    people = People()
    people.register("bob")
    ann = people.mailbox("ann")
    index = people.index.id
    ann.send.submit(Who.username("bob"), b"one", Body.text("one"))
    while "one" not in people.texts("bob"):
        people.node.step()
    # Bob has it, and the answer never reaches Ann's outbox.
    people.node.manage("cannery_stop_canister", StopArgs(ann.id, True), sender=index)
    replace(people, "ann")
    people.node.manage("start_canister", CanisterIdRecord(people.mailbox("ann").id), sender=index)
    people.node.advance(seconds=HOUR_S)
    people.mailbox("ann").acknowledge(0)
    people.node.run()
    assert people.send("ann", "bob", "two").ok.state.tag == "delivered"
    assert people.texts("bob") == ["one", "two"]


@pytest.mark.parametrize("rounds", range(5))
def test_a_move_whose_answer_the_index_lost_is_found_with_all_that_the_mailbox_held(rounds: int) -> None:
    people = People(config=ReplicaConfig(activation_count_max=1))
    node, index = people.node, people.index
    people.register("bob")
    assert people.send("ann", "bob", "one").tag == "ok"
    operator(people).fleet_replace.submit(people.mailbox("bob").id, None, None)
    for _ in range(rounds):
        node.step()
    node.manage("cannery_stop_canister", StopArgs(index.id, True))
    node.manage("start_canister", CanisterIdRecord(index.id))
    assert people.send("ann", "bob", "two").ok.state.tag in ("delivered", "stored")
    for _ in range(4):
        node.advance(seconds=HOUR_S)
    assert people.register("bob").tag == "ok"
    assert people.texts("bob") == ["one", "two"]
    assert operator(people).fleet_status().pool == 0


def test_a_mailbox_that_moved_is_heard_before_the_index_has_noted_the_move() -> None:
    people = People(config=ReplicaConfig(activation_count_max=1))
    node, index = people.node, people.index
    people.register("bob")
    stop(people, "bob")
    assert people.send("ann", "bob", "one").ok.state.tag == "stored"
    operator(people).fleet_replace.submit(people.mailbox("ann").id, None, None)
    for _ in range(3):
        node.step()
    node.manage("cannery_stop_canister", StopArgs(index.id, True))
    node.manage("start_canister", CanisterIdRecord(index.id))
    start(people, "bob")
    for _ in range(4):
        node.advance(seconds=HOUR_S)
    assert people.texts("bob") == ["one"]


def recycle(people: People, name: str) -> None:
    assert operator(people).fleet_recycle(people.mailbox(name).id).tag == "ok"
    people.node.run()


def test_a_canister_with_a_new_owner_does_not_write_in_the_name_of_the_old_one() -> None:
    people = People()
    people.register("bob")
    assert people.send("ann", "bob", "from ann").tag == "ok"
    before = people.mailbox("ann").id
    recycle(people, "ann")
    assert people.mailbox("eve").id == before
    assert people.send("eve", "bob", "from eve").tag == "ok"
    assert [message.sender_username for message in people.inbox("bob")] == ["ann", "eve"]


def test_a_canister_with_a_new_owner_does_not_get_the_mail_of_the_old_one() -> None:
    people = People()
    people.register("bob")
    stop(people, "bob")
    assert people.send("ann", "bob", "for bob alone").ok.state.tag == "stored"
    before = people.mailbox("bob").id
    recycle(people, "bob")
    assert people.mailbox("eve").id == before
    people.node.advance(seconds=HOUR_S)
    assert people.texts("eve") == []
    assert people.mailbox("ann").sent_message(b"for bob alone").state.tag == "refused"


def test_the_name_of_somebody_who_is_gone_can_be_taken() -> None:
    people = People()
    people.register("ann")
    recycle(people, "ann")
    assert people.register("eve", "ann").tag == "ok"
    assert people.register("ann").tag == "username_taken"


@pytest.mark.parametrize("rounds", range(4))
def test_a_name_whose_registration_was_cut_off_can_be_taken_after_a_while(rounds: int) -> None:
    people = People(config=ReplicaConfig(activation_count_max=1))
    node, index = people.node, people.index
    people.register("bob")
    index.as_("ann").register.submit("ann")
    for _ in range(rounds):
        node.step()
    node.manage("cannery_stop_canister", StopArgs(index.id, True))
    node.manage("start_canister", CanisterIdRecord(index.id))
    for _ in range(3):
        node.advance(seconds=HOUR_S)
    is_registered = index.lookup(Who.username("ann")) is not None
    assert people.register("eve", "ann").tag == ("username_taken" if is_registered else "ok")
    assert operator(people).fleet_status().making == 0


def test_a_child_that_is_being_replaced_does_not_leave() -> None:
    people = People()
    bob = people.mailbox("bob").id
    operator(people).fleet_replace.submit(bob, None, None)
    operator(people).fleet_recycle.submit(bob)
    people.node.run()
    assert people.register("bob").tag == "ok"
    assert people.mailbox("bob").id != bob
    left = operator(people).fleet_recycle(bob)
    assert left.tag == "unknown"
    assert str(people.mailbox("bob").id) in left.unknown


@pytest.mark.parametrize("rounds", range(6))
def test_who_is_told_of_custody_controls_the_mailbox_that_has_the_letters(rounds: int) -> None:
    people = People(config=ReplicaConfig(activation_count_max=1))
    node, index = people.node, people.index
    people.register("bob")
    assert people.send("ann", "bob", "one").tag == "ok"
    bob = node.principal("bob")
    custody = index.as_("bob").take_custody.submit([bob])
    for _ in range(rounds):
        node.step()
    operator(people).fleet_replace.submit(people.mailbox("bob").id, None, None)
    node.run()
    profile = people.register("bob").ok
    assert people.texts("bob") == ["one"]
    try:
        custody.result()
        is_told = True
    except Rejected:
        is_told = False
    assert profile.self_custody == is_told
    named = CanisterIdRecord(profile.canister)
    # Only who controls a canister may start it.
    node.manage("start_canister", named, sender=bob if is_told else index.id)
    with pytest.raises(Rejected):
        node.manage("start_canister", named, sender=index.id if is_told else bob)
