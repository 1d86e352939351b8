"""The users app: registration, mailboxes, delivery; what strangers may not; what impossible sends answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery import Principal
from cannery.apps.users.types import OPAQUE_SIZE_BYTES_MAX, TEXT_LENGTH_MAX, Body, DeliveryState, Who
from cannery.apps.users.user import User
from cannery.apps.users.user_index import username_fault
from cannery.candid.did import parse_did
from cannery.cdk.message_log import LogRule, WhenFull
from cannery.cdk.module_file import parse_module
from cannery.replica.block import ReplicaConfig
from cannery.replica.management.types import CanisterIdRecord
from cannery.testing import Rejected
from tests.apps.forger import Forger
from tests.apps.people import People


@pytest.fixture
def people() -> Iterator[People]:
    made = People()
    yield made
    made.node.close()


def test_registration_is_idempotent_and_gives_everyone_a_canister_of_their_own(people: People) -> None:
    first, again = people.register("ann"), people.register("ann")
    assert first == again
    other_name = people.register("ann", "another")
    assert other_name == first
    assert people.register("bob").ok.canister != first.ok.canister
    assert people.index.count() == 2


def test_two_registrations_at_the_same_moment_make_one_canister(people: People) -> None:
    index = people.index.as_("ann")
    before = len(_canisters(people))
    tickets = [index["register"].submit("ann") for _ in range(3)]
    people.node.run()
    tags = sorted(ticket.result().tag for ticket in tickets)
    assert tags.count("ok") >= 1
    assert set(tags) <= {"ok", "in_progress"}
    assert len(_canisters(people)) == before + 1
    assert people.register("ann").tag == "ok"


def test_two_people_cannot_get_one_name_at_the_same_moment(people: People) -> None:
    tickets = [people.index.as_(who)["register"].submit(name) for who, name in (("a", "Same"), ("b", "sAME"))]
    people.node.run()
    assert sorted(ticket.result().tag for ticket in tickets) == ["ok", "username_taken"]


@given(st.text(max_size=25))
def test_the_rule_for_usernames(name: str) -> None:
    allowed = 3 <= len(name) <= 20 and all(c.isascii() and (c.isalnum() or c == "_") for c in name)
    assert (username_fault(name) is None) == allowed


def test_names_are_unique_whatever_their_case_and_found_whatever_their_case(people: People) -> None:
    profile = people.register("ann", "Ann_1").ok
    assert people.register("bob", "aNN_1").tag == "username_taken"
    assert people.index.lookup(Who.username("ANN_1")) == profile
    assert people.index.lookup(Who.owner(profile.owner)) == profile
    assert people.index.lookup(Who.canister(profile.canister)) == profile
    assert people.index.lookup(Who.username("nobody")) is None


def test_refused_registrations_say_why(people: People) -> None:
    assert "3 to 20" in people.register("ann", "ab").username_invalid
    people.configure(1)
    assert people.register("bob").tag == "ok"
    limited = people.register("cid")
    assert "try again in" in limited.rate_limited
    people.node.advance(seconds=61)
    assert people.register("cid").tag == "ok"
    with pytest.raises(Rejected, match="inspect_message"):
        people.index.as_(Principal.anonymous()).register("nobody")


def test_a_failed_creation_releases_the_name_and_leaves_no_canister() -> None:
    people = People(config=ReplicaConfig(canister_quota_count=1))
    first = people.register("cid").ok
    before = len(_canisters(people))
    assert "its quota is 1" in people.register("ann").failed
    assert len(_canisters(people)) == before
    people.index.as_(people.node.operator).fleet_delete(first.canister)
    people.node.run()
    assert people.register("bob", "ann").tag == "ok"
    people.node.close()


def test_a_user_whose_canister_was_deleted_is_gone_and_may_come_again(people: People) -> None:
    first = people.register("ann").ok
    people.index.as_(people.node.operator).fleet_delete(first.canister)
    assert people.index.lookup(Who.username("ann")) is None
    again = people.register("ann").ok
    assert again.canister != first.canister
    people.node.run()
    assert people.index.lookup(Who.username("ann")) == again


def test_a_letter_that_waits_reaches_a_mailbox_that_was_replaced_meanwhile(people: People) -> None:
    old = people.register("bob").ok.canister
    people.send("ann", "bob", "one")
    operator = people.index.as_(people.node.operator)
    people.node.manage("stop_canister", CanisterIdRecord(old))
    people.send("ann", "bob", "two")
    new = operator.fleet_replace(old, None, None).ok.canister
    people.node.manage("start_canister", CanisterIdRecord(new))
    people.node.advance(seconds=60)
    assert people.register("bob").ok.canister == new
    assert people.index.lookup(Who.canister(new)) == people.register("bob").ok
    mailbox = people.node.actor(new, User).as_("bob")
    assert [message.body.text for message in mailbox.inbox(0, 10).messages] == ["one", "two"]


def test_a_page_of_no_users_is_refused(people: People) -> None:
    with pytest.raises(Rejected, match="ask for 1 to 500 users"):
        people.index.page(None, 0)


def test_pages_of_users_are_in_the_order_of_names(people: People) -> None:
    names = [f"user_{i:02}" for i in range(25)]
    for name in reversed(names):
        people.register(name)
    found: list[str] = []
    after: str | None = None
    while True:
        page: Any = people.index.page(after, 10)
        found.extend(profile.username for profile in page.profiles)
        after = page.next
        if after is None:
            break
    assert found == names


def test_a_message_waits_for_its_reader_once_and_in_order(people: People) -> None:
    people.register("bob")
    for i in range(30):
        sent = people.send("ann", "bob", f"letter {i}")
        assert sent.ok.state == DeliveryState.delivered(i)
        assert people.send("ann", "bob", f"letter {i}") == sent
    assert people.texts("bob") == [f"letter {i}" for i in range(30)]
    assert [m.id for m in people.inbox("bob", page_count=7)] == list(range(30))


def test_newest_first_and_acknowledgement(people: People) -> None:
    people.register("bob")
    for i in range(5):
        people.send("ann", "bob", f"letter {i}")
    bob = people.mailbox("bob")
    page: Any = bob.inbox_newest(None, 2)
    assert [m.id for m in page.messages] == [4, 3]
    rest: Any = bob.inbox_newest(page.next, 10)
    assert [m.id for m in rest.messages] == [2, 1, 0]
    assert bob.acknowledge(2) == 3
    assert bob.acknowledge(0) == 3
    assert bob.acknowledge(99) == 5
    assert people.mailbox("bob").inbox(3, 10).acknowledged == 5  # type: ignore[attr-defined]


def test_impossible_sends_are_errors_at_once(people: People) -> None:
    people.register("bob")
    assert people.send("ann", "nobody", "hi").tag == "unknown_user"
    assert people.send("ann", "ann", "to myself").tag == "invalid"
    assert people.send("ann", "bob", "x" * (TEXT_LENGTH_MAX + 1), b"1").tag == "invalid"
    assert people.send("ann", "bob", "", b"2").tag == "invalid"
    assert people.send("ann", "bob", "hi", b"x" * 33).tag == "invalid"
    assert people.texts("bob") == []


def test_bodies_up_to_their_limits_arrive(people: People) -> None:
    people.register("bob")
    assert people.send("ann", "bob", "ä" * TEXT_LENGTH_MAX, b"long").tag == "ok"
    opaque = bytes(OPAQUE_SIZE_BYTES_MAX)
    result: Any = people.mailbox("ann").send(Who.username("bob"), b"opaque", Body.opaque(opaque))
    assert result.tag == "ok"
    assert people.inbox("bob")[1].body.opaque == opaque
    more: Any = people.mailbox("ann").send(Who.username("bob"), b"more", Body.opaque(opaque + b"x"))
    assert more.tag == "invalid"


def test_a_blocked_sender_learns_it_and_the_reader_sees_nothing(people: People) -> None:
    people.register("bob")
    ann = people.node.principal("ann")
    assert people.mailbox("bob").block(ann) is True
    refused = people.send("ann", "bob", "hi")
    assert refused.tag == "blocked"
    sent: Any = people.mailbox("ann").sent_message(b"hi")
    assert sent.state.tag == "refused"
    assert people.mailbox("bob").unblock(ann) is True
    assert people.send("ann", "bob", "hi again").tag == "ok"
    assert people.texts("bob") == ["hi again"]


def test_a_full_mailbox_says_full_or_prunes_by_its_owners_rule(people: People) -> None:
    bob = people.mailbox("bob")
    bob.set_rule(LogRule(3, 1_000_000, None, WhenFull.refuse()))
    results = [people.send("ann", "bob", f"letter {i}").tag for i in range(5)]
    assert results == ["ok", "ok", "ok", "full", "full"]
    bob.acknowledge(0)
    bob.set_rule(LogRule(3, 1_000_000, None, WhenFull.prune_acknowledged()))
    assert people.send("ann", "bob", "letter 5").tag == "ok"
    assert people.send("ann", "bob", "letter 6").tag == "full"
    bob.set_rule(LogRule(3, 1_000_000, None, WhenFull.prune_oldest()))
    assert people.send("ann", "bob", "letter 7").tag == "ok"
    assert people.texts("bob") == ["letter 2", "letter 5", "letter 7"]
    page: Any = bob.inbox(0, 10)
    assert [(gap.start, gap.end) for gap in page.gaps] == [(0, 2)]


def test_a_message_to_a_stopped_mailbox_is_stored_and_delivered_later_in_order(people: People) -> None:
    bob = people.mailbox("bob")
    people.node.manage("cannery_operator_list")
    _stop(people, "bob")
    states = [people.send("ann", "bob", f"letter {i}").ok.state.tag for i in range(3)]
    assert states == ["stored"] * 3
    _start(people, "bob")
    people.node.advance(seconds=60)
    assert people.texts("bob") == ["letter 0", "letter 1", "letter 2"]
    for i in range(3):
        sent: Any = people.mailbox("ann").sent_message(f"letter {i}".encode())
        assert sent.state == DeliveryState.delivered(i)
    assert bob.usage().count == 3


def test_strangers_fail_at_every_method_of_a_mailbox(people: People) -> None:
    people.register("bob")
    people.send("ann", "bob", "secret")
    interface = parse_did(parse_module(people.node.build(User)).did)
    arguments: dict[str, tuple[object, ...]] = {
        "send": (Who.username("bob"), b"id", Body.text("hi")),
        "inbox": (0, 10),
        "inbox_newest": (None, 10),
        "acknowledge": (0,),
        "delete_message": (0,),
        "block": (people.node.principal("ann"),),
        "unblock": (people.node.principal("ann"),),
        "blocked_users": (),
        "set_rule": (LogRule(1, 1_000_000, None, WhenFull.prune_oldest()),),
        "get_rule": (),
        "usage": (),
        "sent_message": (b"secret",),
        "sent_messages": (None, 10),
        "receive": ([],),
    }
    public = {"owner", "get_version"}
    assert set(interface.methods) == set(arguments) | public, "a new method needs its line here"
    before = people.mailbox("bob").usage()
    for stranger in ("eve", "ann", "operator"):
        mailbox = people.mailbox("bob", stranger)
        for name, args in arguments.items():
            with pytest.raises(Rejected):
                mailbox[name](*args)
    assert people.mailbox("bob").usage() == before
    assert people.texts("bob") == ["secret"]


def test_strangers_fail_at_the_operators_methods_of_the_index(people: People) -> None:
    settings_before = people.index.get_settings()
    with pytest.raises(Rejected, match="operator"):
        people.index.as_("eve").configure(settings_before)


def test_a_canister_that_the_index_does_not_know_cannot_deliver(people: People) -> None:
    people.register("bob")
    forger = people.node.install(Forger, people.mailbox("bob").id)
    with pytest.raises(Rejected, match="only the canisters of users"):
        forger.forge("I am Ann")
    assert people.texts("bob") == []


def test_custody_takes_the_indexs_powers_away(people: People) -> None:
    people.register("ann")
    ann = people.node.principal("ann")
    people.index.as_("ann").take_custody([ann])
    profile: Any = people.index.lookup(Who.owner(ann))
    assert profile.self_custody is True
    status: Any = people.node.manage("canister_status", _id_record(profile.canister), sender="ann")
    assert status.settings.controllers == [ann]
    with pytest.raises(Rejected):
        people.index.as_("eve").take_custody([people.node.principal("eve")])


@settings(max_examples=15)
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("send"), st.integers(0, 2), st.integers(0, 2)),
            st.tuples(st.just("toggle"), st.integers(0, 2), st.just(0)),
            st.tuples(st.just("wait"), st.integers(1, 40), st.just(0)),
        ),
        max_size=25,
    )
)
def test_whatever_stops_and_starts_everything_accepted_arrives_once_in_the_senders_order(
    plan: list[tuple[str, int, int]],
) -> None:
    people = People()
    names = ["ann", "bob", "cid"]
    for name in names:
        people.register(name)
    accepted: dict[tuple[str, str], list[str]] = {}
    stopped: set[str] = set()
    for step, (what, a, b) in enumerate(plan):
        if what == "wait":
            people.node.advance(seconds=a)
        elif what == "toggle":
            (_start if names[a] in stopped else _stop)(people, names[a])
            stopped ^= {names[a]}
        elif a == b or names[a] in stopped:
            continue
        elif people.send(names[a], names[b], f"{step}").tag == "ok":
            accepted.setdefault((names[a], names[b]), []).append(f"{step}")
    for name in sorted(stopped):
        _start(people, name)
    people.node.advance(seconds=2 * 3600)
    for receiver in names:
        inbox = people.inbox(receiver)
        for sender in names:
            got = [m.body.text for m in inbox if m.sender_username == sender]
            assert got == accepted.get((sender, receiver), [])
    people.node.close()


def _canisters(people: People) -> list[object]:
    from cannery.replica.management.types import CanisterListArgs

    found: Any = people.node.manage("cannery_canister_list", CanisterListArgs(after=None, limit=1000))
    return list(found.canisters)


def _id_record(canister: Principal) -> object:
    from cannery.replica.management.types import CanisterIdRecord

    return CanisterIdRecord(canister)


def _stop(people: People, name: str) -> None:
    people.node.manage("stop_canister", _id_record(people.mailbox(name).id), sender=people.index.id)


def _start(people: People, name: str) -> None:
    people.node.manage("start_canister", _id_record(people.mailbox(name).id), sender=people.index.id)
