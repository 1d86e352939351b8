"""Messages by Diode's methods: repeats, chains, ranges both ways, batches, rates, erasing, bad input."""

from __future__ import annotations

import pytest

from cannery import LogRule, WhenFull
from cannery.apps.zones.messages import PostRate
from cannery.apps.zones.roles import Role
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.testing import Rejected
from tests.apps.zones.world import ZoneWorld, digest, key_of


def test_the_same_ciphertext_is_one_message_for_each_key(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    assert ann.add_message(key_of("a"), b"hi").ok == 1
    assert ann.add_message(key_of("a"), b"hi").ok == 1
    assert ann.add_message(key_of("b"), b"hi").ok == 2
    assert ann.get_message_by_hash(digest(b"hi")).id == 1
    assert [m.id for m in ann.get_messages_by_range_for_key(key_of("b"), 0, 9)] == [2]
    assert ann.get_message_by_hash(bytes(32)) is None
    assert ann.get_message_count() == 2


def test_a_range_of_a_key_need_not_begin_at_one_of_its_messages(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    for i in range(6):
        world.post("ab"[i % 2], f"m{i}")
    chain = ann.get_messages_by_range_for_key(key_of("b"), 3, 6)
    assert [(m.prev_msg_id, m.id, m.next_msg_id) for m in chain] == [(2, 4, 6), (4, 6, 0)]
    assert ann.get_messages_by_range_for_key(key_of("b"), 6, 3) == chain[::-1]
    assert ann.get_messages_by_range_for_key(key_of("b"), 0, 2**32 - 1)[0].id == 2
    assert ann.get_messages_by_range_for_key(key_of("nobody"), 0, 9) == []
    assert ann.get_messages_by_range(5, 2) == []
    assert (ann.get_min_message_id(), ann.get_max_message_id()) == (1, 6)
    assert (ann.get_min_message_id_by_key(key_of("b")), ann.get_max_message_id_by_key(key_of("b"))) == (2, 6)
    assert ann.get_min_message_id_by_key(key_of("nobody")) is None
    one = ann.get_message_by_id(4)
    assert (one.key_id, one.hash, one.ciphertext) == (key_of("b"), digest(b"m3"), b"m3")
    assert one.timestamp == world.node.now_ns // 10**9


def test_a_batch_is_added_whole_or_not_at_all(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    for batch, text in (
        ([(key_of("a"), b"1"), (b"short", b"2")], "key_id must be 41 bytes, not 5"),
        ([(key_of("a"), b"1"), (key_of("a"), b"")], "1 to 2000000 bytes, this one 0"),
        ([(key_of("a"), b"%d" % i) for i in range(1_001)], "at most 1000 messages"),
    ):
        assert text in ann.add_messages(batch).err
    world.retain(messages=LogRule(2, 10**9, None, WhenFull.refuse()))
    assert ann.add_messages([(key_of("a"), b"%d" % i) for i in range(3)]).tag == "err"
    assert ann.get_message_count() == 0
    assert ann.add_messages([(key_of("a"), b"x"), (key_of("a"), b"y"), (key_of("a"), b"x")]).ok == [1, 2, 1]
    assert "it is full" in ann.add_message(key_of("a"), b"z").err
    assert ann.add_messages([]).ok == []


def test_wrong_sizes_and_ids_are_told(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    with pytest.raises(Rejected, match="message 1 is not here: there is none"):
        ann.get_message_by_id(1)
    world.post("a", "x")
    with pytest.raises(Rejected, match="hash must be 32 bytes, not 5"):
        ann.get_message_by_hash(b"short")
    with pytest.raises(Rejected, match="message 7 is not here: ids 1 to 1 are"):
        ann.get_message_by_id(7)
    for key in (b"", bytes(40), bytes(42)):
        told = f"key_id must be 41 bytes, not {len(key)}"
        assert told in ann.add_message(key, b"x").err
        with pytest.raises(Rejected, match=told):
            ann.get_messages_by_range_for_key(key, 0, 9)
        with pytest.raises(Rejected, match=told):
            ann.get_min_message_id_by_key(key)
        with pytest.raises(Rejected, match=told):
            ann.get_max_message_id_by_key(key)
    assert "1 to 2000000 bytes, this one 0" in ann.add_message(key_of("a"), b"").err
    assert "2000001" in ann.add_message(key_of("a"), bytes(2_000_001)).err
    assert (ann.get_max_message_id(), ann.get_messages_by_range(1, 9)[0].ciphertext) == (1, b"x")


def test_ranges_beyond_what_there_is_bring_what_there_is(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    world.post("a", *"wxyz")
    ann.prune(3)
    for low, high in ((0, 2**32 - 1), (3, 4), (2, 9), (2**31, 0)):
        by_key = [message.id for message in ann.get_messages_by_range_for_key(key_of("a"), low, high)]
        assert by_key == ([3, 4] if low <= high else [4, 3])
    assert [message.id for message in ann.get_messages_by_range(0, 2**32 - 1)] == [3, 4]
    for low, high in ((0, 0), (0, 2), (5, 99), (4, 3)):
        assert ann.get_messages_by_range(low, high) == []


def test_a_range_that_is_too_large_is_refused_and_never_cut(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    for i in range(3):
        assert ann.add_message(key_of("a"), bytes([i]) * 900_000).tag == "ok"
    with pytest.raises(Rejected, match=r"2000000 bytes: ask for it in parts \(the first ends at 2\)"):
        ann.get_messages_by_range(0, 9)
    with pytest.raises(Rejected, match="ask for it in parts"):
        ann.get_messages_by_range_for_key(key_of("a"), 0, 9)
    assert [m.id for m in ann.get_messages_by_range(0, 2)] == [1, 2]


def test_each_member_has_a_rate_that_says_when_to_come_back(world: ZoneWorld) -> None:
    world.join("bob")
    world.as_("ann").set_post_rate(PostRate(3, 60))
    world.post("a", "1", "2", "3", who="bob")
    with pytest.raises(Rejected, match="you may post 3 messages in 60 s; retry after 20 s"):
        world.post("a", "4", who="bob")
    with pytest.raises(Rejected, match="3 messages at a time, these are 4; retrying does not help"):
        world.post("a", *"6789", who="bob")
    world.post("a", "another's rate is their own", who="ann")
    world.node.advance(seconds=20)
    world.post("a", "4", who="bob")
    with pytest.raises(Rejected, match="retry after"):
        world.post("a", "5", who="bob")
    world.as_("ann").set_post_rate(None)
    world.post("a", "5", who="bob")


def test_what_the_zone_refuses_or_has_already_costs_nothing_of_a_rate(world: ZoneWorld) -> None:
    ann = world.as_("ann")
    ann.set_post_rate(PostRate(2, 60))
    world.retain(messages=LogRule(1, 10**6, None, WhenFull.refuse()))
    assert world.post("a", "one") == [1]
    for _ in range(3):
        assert ann.add_message(key_of("a"), b"one").ok == 1
        assert "it is full" in ann.add_message(key_of("a"), b"two").err
    world.retain()
    assert world.post("a", "two") == [2]
    with pytest.raises(Rejected, match=r"you may post 2 messages in 60 s; retry after \d+ s"):
        world.post("a", "three")


def test_moderators_erase_and_the_chain_stays(world: ZoneWorld) -> None:
    bob, cid = world.join("bob"), world.join("cid", Role.moderator())
    world.post("a", "one", "two", "three")
    with pytest.raises(Rejected, match="needs the role moderator, you are member"):
        bob.erase_message(2)
    before = bob.get_message_usage()
    assert cid.erase_message(2)
    assert not cid.erase_message(2)
    assert bob.get_message_usage() == before - len("two")
    chain = bob.get_messages_by_range_for_key(key_of("a"), 0, 9)
    assert [(m.id, m.ciphertext) for m in chain] == [(1, b"one"), (2, b""), (3, b"three")]
    assert chain[1].hash == digest(b"two")
    assert bob.add_message(key_of("a"), b"two").ok == 2, "what was erased does not come back"


def test_a_zone_out_of_cycles_answers_reads_and_says_why_it_takes_no_writes() -> None:
    prices = PriceSchedule(storage_per_gib_second=10**12)
    world = ZoneWorld(config=ReplicaConfig(prices=prices), cycles=10**13)
    world.post("a", "while there was time")
    world.node.advance(seconds=3_600 * 24 * 365)
    with pytest.raises(Rejected, match="cycles") as caught:
        world.post("a", "too late")
    assert caught.value.error_code == "IC0207"
    assert world.as_("ann").get_message_by_id(1).ciphertext == b"while there was time"
    world.node.top_up(world.zone, 10**16)
    world.post("a", "and on")
    world.node.close()
