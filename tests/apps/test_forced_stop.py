"""A canister that is stopped by force loses the answers that it waited for, and nothing that it accepted."""

from __future__ import annotations

import pytest

from cannery.apps.users.types import Body, Who
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord, StopArgs
from tests.apps.people import People

ROUNDS_OF_A_SEND = 12
ROUNDS_OF_A_REGISTRATION = 6


@pytest.mark.parametrize("rounds", range(ROUNDS_OF_A_SEND))
def test_a_send_cut_off_by_a_forced_stop_can_be_repeated_and_arrives_once(rounds: int) -> None:
    # One message a round, so that the stop falls between any two steps of the send.
    people = People(config=ReplicaConfig(activation_count_max=1))
    people.register("bob")
    ann = people.mailbox("ann")
    node, index = people.node, people.index.id
    ann.send.submit(Who.username("bob"), b"first", Body.text("first"))
    for _ in range(rounds):
        node.step()
    node.manage("cannery_stop_canister", StopArgs(ann.id, True), sender=index)
    node.manage("start_canister", CanisterIdRecord(ann.id), sender=index)
    node.advance(seconds=700)
    ann.acknowledge(0)
    node.run()
    assert people.send("ann", "bob", "first", b"first").tag == "ok"
    assert people.texts("bob") == ["first"]
    assert ann.sent_message(b"first").state.tag == "delivered"
    node.close()


@pytest.mark.parametrize("rounds", range(ROUNDS_OF_A_REGISTRATION))
def test_a_registration_cut_off_by_a_forced_stop_can_be_repeated(rounds: int) -> None:
    people = People(config=ReplicaConfig(activation_count_max=1))
    node, index = people.node, people.index
    index.as_("ann").register.submit("ann")
    for _ in range(rounds):
        node.step()
    node.manage("cannery_stop_canister", StopArgs(index.id, True))
    node.manage("start_canister", CanisterIdRecord(index.id))
    node.advance(seconds=700)
    assert people.register("ann").tag == "ok"
    assert people.register("bob", "ANN").tag == "username_taken"
    assert people.send("ann", "ann", "x").tag == "invalid"
    node.close()
