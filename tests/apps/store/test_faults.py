"""Bad input and faults: strangers, buckets that are full, stopped, deleted or broke, crashes between any two
steps, stale maps, values of 0 bytes and 100 MB, every Unicode. Each says what is wrong and loses nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cannery.apps.store.bucket import Bucket
from cannery.apps.store.entries import LOOK_COUNT_MAX
from cannery.apps.store.store_index import StoreIndex
from cannery.apps.store.types import SUM_PART_COUNT_MAX, TAG_SIZE_BYTES_MAX, VALUE_SIZE_BYTES_MAX, Find, Put
from cannery.candid.codec import encoder
from cannery.candid.errors import CandidError
from cannery.fleet.place_types import Held
from cannery.protocol.principal import Principal
from cannery.replica.block import PriceSchedule, ReplicaConfig
from cannery.replica.management.types import (
    CanisterIdRecord,
    CanisterSettings,
    StopArgs,
    UpdateSettingsArgs,
)
from cannery.testing import Crashed, FaultyStore, Rejected
from cannery.testing.actor import interface_of_class
from tests.apps.store.stranger import Stranger
from tests.apps.store.world import StoreWorld
from tests.fleet.test_strangers import simplest

NO_ARGUMENTS = b"DIDL\x00\x00"
OPEN = {"put", "delete", "get", "get_part", "find", "totals", "get_version"}
OPEN_OF_INDEX = {"locate", "where", "put", "sum", "sum_page", "stats"}


def fill(world: StoreWorld, count: int, first: int = 0) -> dict[str, bytes]:
    wanted = {f"key {number}": f"value {number}".encode() for number in range(first, first + count)}
    for key, value in wanted.items():
        assert world.put("ann", key, value, ("all",)).tag == "ok"
    return wanted


def check(world: StoreWorld, wanted: dict[str, bytes]) -> None:
    """See that everything is there, once."""
    assert {key: world.get("ann", key) for key in wanted} == wanted
    assert sorted(world.keys("ann", "all")) == sorted(wanted)
    assert world.index.stats().count == len(wanted)


# strangers


def test_a_stranger_is_refused_by_every_method_that_is_not_for_him() -> None:
    world = StoreWorld()
    stranger = world.node.install(Stranger)
    for cls, target, is_open in (
        (Bucket, world.buckets[0], OPEN),
        (StoreIndex, world.index.id, OPEN_OF_INDEX),
    ):
        for name, func in interface_of_class(cls).methods.items():
            if name in is_open or name.startswith("fleet_"):
                continue
            try:
                arg = encoder(func.args)([simplest(each) for each in func.args])
            except CandidError:
                arg = NO_ARGUMENTS  # guards are asked before an argument is read
            door = world.node.query_raw if func.is_query else world.node.call_raw
            with pytest.raises(Rejected, match=r"is for|may not call"):
                door(target, name, arg, world.node.principal("mallory"))
            if "composite_query" not in func.modes:
                reason = stranger.as_("mallory").say(target, name, arg)
                assert "is for" in reason, (name, reason)


def test_a_canister_that_calls_itself_a_bucket_is_none() -> None:
    world = StoreWorld()
    fill(world, 5)
    own = world.node.install(Bucket, Held(0, b"")).as_("mallory")
    with pytest.raises(Rejected, match="controllers of this index"):
        world.index.as_("mallory").place_look()
    assert own.get("key 1").tag == "moved"
    assert own.put(Put("key 1", b"", [], False, [], None)).tag == "moved"
    assert own.id not in world.buckets
    assert world.get("bob", "key 1") == b"value 1"


def test_who_may_write_is_a_setting() -> None:
    world = StoreWorld()
    world.configure(writers="role")
    refused = world.put("ann", "a")
    assert (refused.tag, "gives the role writer" in str(refused.value)) == ("refused", True)
    world.role("writer", "ann")
    assert world.put("ann", "a").tag == "ok"
    with pytest.raises(Rejected, match="inspect_message"):
        world.bucket(world.buckets[0], Principal.anonymous()).put(Put("b", b"", [], False, [], None))


# bad input


@pytest.mark.parametrize(
    ("put", "text"),
    [
        (Put("", b"", [], False, [], None), "a key has 1 to 512 bytes, this one 0"),
        (Put("k" * 513, b"", [], False, [], None), "a key has 1 to 512 bytes, this one 513"),
        (Put("k", b"", [""], False, [], None), "a tag has 1 to 128 bytes, '' has 0"),
        (Put("k", b"", ["t"] * 21, False, [], None), "at most 20 tags"),
        (Put("k", b"", [], False, [Principal.anonymous()] * 101, None), "at most 100 readers"),
        (Put("k", bytes(3_000_000), [], False, [], None), "takes 46 slots of 65536 bytes, a bucket has 20"),
    ],
)
def test_what_cannot_be_put_is_refused_with_the_reason(put: Put, text: str) -> None:
    world = _shared()
    result = world.bucket(world.buckets[0]).put(put)
    assert (result.tag, text in str(result.value)) == ("refused", True), result


_WORLDS: list[StoreWorld] = []


def _shared() -> StoreWorld:
    if not _WORLDS:
        _WORLDS.append(StoreWorld())
    return _WORLDS[0]


def test_a_put_that_expects_another_revision_changes_nothing() -> None:
    world = StoreWorld()
    first = world.put("ann", "k", b"1", expect=0).ok.revision
    assert world.put("ann", "k", b"2", expect=0).conflict == first
    assert world.put("ann", "k", b"2", expect=first).tag == "ok"
    assert world.put("ann", "k", b"3", expect=first).conflict > first
    assert world.get("ann", "k") == b"2"


def test_a_key_of_somebody_else_cannot_be_taken_and_a_private_one_is_not_there() -> None:
    world = StoreWorld()
    world.put("ann", "k", b"mine", private=True, readers=("bob",))
    assert world.put("cid", "k", b"his").tag == "refused"
    assert [world.get(who, "k") for who in ("ann", "bob", "cid")] == [b"mine", b"mine", None]
    assert (world.delete("bob", "k"), world.delete("cid", "k")) == ("refused", "absent")
    world.role("moderator", "cid")
    assert world.get("cid", "k") == b"mine"
    assert world.delete("cid", "k") == "ok"


def test_values_of_no_byte_and_of_a_hundred_megabytes() -> None:
    world = StoreWorld(slots=400, slot_size_bytes=1_000_000)
    assert world.put("ann", "empty", b"").tag == "ok"
    assert world.get("ann", "empty") == b""
    value = bytes(range(256)) * (VALUE_SIZE_BYTES_MAX // 256)
    assert world.put("ann", "large", value).tag == "ok"
    home = world.index.locate(["large"])[0]
    world.configure(bucket_slots=120)
    world.settle()
    while world.index.locate(["large"])[0] == home:
        world.index.place_drain(home)
        world.settle()
    assert world.get("ann", "large") == value
    too_large = Put("huge", value + bytes(1_000), [], False, [], None)
    refused = world.bucket(world.index.locate(["huge"])[0]).put(too_large)
    assert "at most 100000000 bytes" in str(refused.value)


@settings(max_examples=40)
@given(st.text(min_size=1, max_size=30), st.text(min_size=1, max_size=30))
def test_tags_and_keys_may_be_any_text(tag: str, key: str) -> None:
    world = _shared()
    if len(tag.encode()) > TAG_SIZE_BYTES_MAX:
        return
    assert world.put("ann", key, tag.encode(), (tag,)).tag == "ok"
    world.settle()
    assert world.get("bob", key) == tag.encode()
    assert key in world.keys("bob", tag)
    assert world.delete("ann", key) == "ok"
    assert world.keys("bob", tag) == []


# buckets that fail


def test_a_full_bucket_says_so_and_room_comes() -> None:
    world = StoreWorld(slots=8)
    wanted = fill(world, 5)
    bucket = world.bucket(world.buckets[0])
    world.node.manage("stop_canister", CanisterIdRecord(world.index.id))
    results = [bucket.put(Put(f"more {number}", b"", ["all"], False, [], None)) for number in range(5)]
    assert [result.tag for result in results] == ["ok"] * 3 + ["full"] * 2
    assert "another is being made" in results[-1].full
    world.node.manage("start_canister", CanisterIdRecord(world.index.id))
    world.node.advance(seconds=20)
    wanted.update({f"more {number}": b"" for number in range(3)})
    assert world.put("ann", "more 4", b"", ("all",)).tag == "ok"
    check(world, wanted | {"more 4": b""})


@pytest.mark.parametrize("side", ["source", "target", "index"])
def test_one_that_is_stopped_in_mid_migration_holds_nothing_up_for_ever(side: str) -> None:
    world = StoreWorld(slots=100)
    wanted = fill(world, 60)
    old = world.buckets[0]
    world.migrate()
    new = world.index.where([]).arriving[0]
    stopped = {"source": old, "target": new, "index": world.index.id}[side]
    world.node.manage("cannery_stop_canister", StopArgs(stopped, force=True))
    world.node.advance(seconds=30)
    world.node.manage("start_canister", CanisterIdRecord(stopped))
    world.node.advance(seconds=700)
    world.settle()
    assert len(world.buckets) > 1
    check(world, wanted)


def test_who_writes_to_a_stopped_bucket_hears_it_and_the_others_serve() -> None:
    world = StoreWorld(slots=10)
    wanted = fill(world, 30)
    world.settle()
    stopped = world.index.locate(["key 0"])[0]
    world.node.manage("stop_canister", CanisterIdRecord(stopped))
    with pytest.raises(Rejected, match="stopped"):
        world.bucket(stopped).put(Put("key 0", b"new", ["all"], False, [], None))
    other = next(key for key in wanted if world.index.locate([key])[0] != stopped)
    assert world.put("ann", other, b"new", ("all",)).tag == "ok"
    reached = {bucket.canister: bucket.is_reached for bucket in world.index.stats().buckets}
    assert [bucket for bucket, is_reached in reached.items() if not is_reached] == [stopped]
    world.node.manage("start_canister", CanisterIdRecord(stopped))
    world.settle()
    check(world, wanted | {other: b"new"})


def test_a_bucket_out_of_cycles_keeps_what_it_has_and_goes_on_once_it_is_paid() -> None:
    prices = PriceSchedule(storage_per_gib_second=10**6)
    world = StoreWorld(slots=10, config=ReplicaConfig(prices=prices), cycles=10**12)
    wanted = fill(world, 30)
    world.settle()
    poor = world.index.locate(["key 0"])[0]
    freeze = UpdateSettingsArgs(poor, CanisterSettings(freezing_threshold=2**60))
    world.node.manage("update_settings", freeze, sender=world.index.id)
    assert world.get("ann", "key 0") == b"value 0"
    with pytest.raises(Rejected, match="out of cycles"):
        world.bucket(poor).put(Put("key 0", b"new", ["all"], False, [], None))
    world.index.place_drain(poor)
    world.node.advance(seconds=20)
    assert poor in world.buckets
    thaw = UpdateSettingsArgs(poor, CanisterSettings(freezing_threshold=0))
    world.node.manage("update_settings", thaw, sender=world.index.id)
    world.settle()
    assert poor not in world.buckets
    check(world, wanted)


@pytest.mark.parametrize("moment", ["at rest", "source", "target"])
def test_a_deleted_bucket_takes_what_it_held_and_nothing_else(moment: str) -> None:
    world = StoreWorld(slots=20)
    wanted = fill(world, 40)
    world.settle()
    if moment != "at rest":
        world.migrate()
    arriving = world.index.where([]).arriving
    gone = arriving[0] if moment == "target" else next(b for b in world.buckets if b not in arriving)
    held = set(_keys_in(world, gone))
    world.index.fleet_delete(gone)
    world.node.advance(seconds=30)
    world.settle()
    assert gone not in world.buckets
    left = {key for key in wanted if world.get("ann", key) is not None}
    assert left >= set(wanted) - held
    check(world, {key: wanted[key] for key in left})
    for key in sorted(set(wanted) - left)[:3]:
        assert world.put("ann", key, b"again", ("all",), at=gone).tag == "ok"


def test_a_target_that_is_deleted_while_a_bucket_parts_leaves_its_share_where_it_was() -> None:
    world = StoreWorld(slots=20)
    wanted = fill(world, 40)
    world.settle()
    world.configure(bucket_slots=40)
    leaving, gone = world.buckets[:2]
    world.node.manage("stop_canister", CanisterIdRecord(gone))
    world.index.place_drain(leaving)
    world.node.advance(seconds=5)
    assert gone in world.index.where([]).arriving
    held = {key for key in wanted if world.index.locate([key]) == [gone]}
    world.index.fleet_delete(gone)
    world.node.advance(seconds=30)
    world.settle()
    assert gone not in world.buckets
    assert leaving in world.buckets
    left = {key for key in wanted if world.get("ann", key) is not None}
    assert left == set(wanted) - held
    check(world, {key: wanted[key] for key in left})


def test_the_index_goes_on_without_a_deleted_bucket_at_once() -> None:
    world = StoreWorld(slots=20)
    fill(world, 40)
    world.settle()
    gone = world.index.locate(["key 1"])[0]
    world.index.fleet_delete(gone)
    world.node.run()
    assert gone not in world.buckets
    assert (
        world.bucket(world.index.locate(["key 1"])[0]).put(Put("key 1", b"again", [], False, [], None)).tag
        == "ok"
    )


@pytest.mark.parametrize(
    ("tags", "text"),
    [(["t"] * 21, "at most 20 tags"), ([""], "a tag has 1 to 128 bytes"), (["t" * 129], "has 129")],
)
def test_who_asks_for_tags_that_no_entry_can_have_is_told_so(tags: list[str], text: str) -> None:
    world = _shared()
    for ask in (
        lambda: world.index.where(tags),
        lambda: world.index.sum(tags, None),
        lambda: world.bucket(world.buckets[0]).find(Find(tags, None, None, 10)),
    ):
        with pytest.raises(Rejected, match=text):
            ask()


def test_many_entries_are_counted_in_parts_and_no_query_looks_at_all_of_them() -> None:
    world = StoreWorld(slots=3_000)
    world.configure(hold_ms=10**9)
    world.index.place_grow()
    world.settle()
    keys = [f"key {number}" for number in range(LOOK_COUNT_MAX * (SUM_PART_COUNT_MAX + 1))]
    for at in range(0, len(keys), 400):
        some = keys[at : at + 400]
        for key, home in zip(some, world.index.locate(some), strict=True):
            world.bucket(home).put.submit(Put(key, b"12345", [], False, [], None))
        world.node.run()
    with pytest.raises(Rejected, match="ask sum_page"):
        world.index.sum([], None)
    page = world.index.sum_page([], None, None)
    assert 0 < page.sum.count <= LOOK_COUNT_MAX * SUM_PART_COUNT_MAX
    last = world.index.sum_page([], None, page.next)
    assert (page.sum.count + last.sum.count, last.next) == (len(keys), None)
    assert page.sum.size_bytes + last.sum.size_bytes == 5 * len(keys)
    assert last.sum.is_exact
    world.index.place_grow()
    world.settle()
    assert not world.index.sum_page([], None, page.next).sum.is_exact, "entries moved meanwhile"
    world.index.fleet_delete(page.next.bucket)
    world.node.run()
    with pytest.raises(Rejected, match="begin anew"):
        world.index.sum_page([], None, page.next)


def test_where_to_go_on_names_no_entry_that_one_may_not_see() -> None:
    world = StoreWorld(slots=3_000)
    world.configure(hold_ms=10**9)
    world.index.place_grow()
    world.settle()
    keys = [f"key {number}" for number in range(3 * LOOK_COUNT_MAX)]
    for at in range(0, len(keys), 400):
        some = keys[at : at + 400]
        for key, home in zip(some, world.index.locate(some), strict=True):
            world.bucket(home).put.submit(Put(key, b"", ["affair"], int(key[4:]) % 50 > 0, [], None))
        world.node.run()
    # One bucket then holds entries of two that have the same revision.
    world.index.place_drain(world.buckets[1])
    world.settle(60)
    bucket = world.buckets[0]
    public = [key for key in keys if not int(key[4:]) % 50]
    for who, wanted in (("bob", public), ("ann", keys)):
        for tags, owner in (([], None), (["affair"], None), ([], world.node.principal("ann"))):
            found: list[str] = []
            before, pages = None, 0
            while pages == 0 or before is not None:
                page = world.bucket(bucket, who).find(Find(tags, owner, before, 1_000))
                found += [entry.key for entry in page.entries]
                before, pages = page.next, pages + 1
                assert who == "ann" or before is None or before.key in ("", *public)
            assert (sorted(found), pages >= 3) == (sorted(wanted), True)
        page = world.index.as_(who).sum_page([], None, None)
        assert (page.sum.count, page.next) == (len(wanted), None)


def _keys_in(world: StoreWorld, bucket: Principal) -> list[str]:
    return [entry.key for entry in world.bucket(bucket).find(Find([], None, None, 1_000)).entries]


# two at a time, stale maps, flapping


def test_two_creations_at_the_same_moment_make_one_bucket() -> None:
    world = StoreWorld(slots=20)
    fill(world, 13)
    before = len(world.buckets)
    looks = [world.index.place_look.submit() for _ in range(5)]
    world.settle(seconds=3)
    assert all(sent.is_answered for sent in looks)
    world.configure(bucket_slots=15)
    looks = [world.index.place_look.submit() for _ in range(5)]
    world.settle(seconds=3)
    assert len(world.buckets) == before + 1
    assert world.index.fleet_status().children == len(world.buckets)


def test_a_client_with_a_stale_map_is_served_in_one_hop() -> None:
    world = StoreWorld(slots=10)
    wanted = fill(world, 30)
    world.settle()
    for number, key in enumerate(wanted):
        home = world.index.locate([key])[0]
        wrong = next(bucket for bucket in world.buckets if bucket != home)
        moved = world.bucket(wrong).get(key)
        assert (moved.tag, moved.value) == ("moved", home)
        new = f"new {number}".encode()
        forwarded = world.bucket(wrong).put(Put(key, new, ["all"], False, [], None))
        assert forwarded.ok.canister == home
        wanted[key] = new
    wrong = next(bucket for bucket in world.buckets if bucket != world.index.locate(["key 3"])[0])
    assert world.bucket(wrong).delete("key 3", None).tag == "ok"
    del wanted["key 3"]
    check(world, wanted)


def test_the_index_alone_is_enough_to_put() -> None:
    world = StoreWorld()
    stored = world.index.as_("ann").put(Put("k", b"v", ["all"], False, [], None)).ok
    assert world.bucket(stored.canister, "bob").get("k").ok.value == b"v"
    with pytest.raises(Rejected, match="inspect_message"):
        world.bucket(stored.canister, Principal.anonymous()).put(Put("k", b"", [], False, [], None))


def test_a_grow_predicate_that_flaps_makes_no_bucket_after_bucket() -> None:
    world = StoreWorld(slots=30)
    world.configure(hold_ms=4_000, pause_ms=60_000)
    wanted = fill(world, 20)
    for turn in range(40):
        world.configure(bucket_slots=(25, 100)[turn % 2])
        world.node.advance(seconds=3)
    assert len(world.buckets) == 1
    check(world, wanted)


def test_capacity_comes_back_and_buckets_go() -> None:
    world = StoreWorld(slots=20)
    wanted = fill(world, 80)
    world.settle()
    most = len(world.buckets)
    for key in list(wanted)[5:]:
        assert world.delete("ann", key) == "ok"
        del wanted[key]
    for _ in range(30):
        world.node.advance(seconds=10)
    assert len(world.buckets) < most // 2
    assert world.index.fleet_status().children == len(world.buckets)
    check(world, wanted)


# crashes


@pytest.mark.parametrize("subnets", [1, 2])
def test_a_crash_between_any_two_steps_of_spawning_and_migrating_loses_nothing(subnets: int) -> None:
    crashed = 0
    for at in range(1, 100):
        disks = [FaultyStore(seed=at + number) for number in range(subnets)]
        world = StoreWorld(disks, slots=30, subnets=subnets)
        disk = disks[at % subnets]
        wanted = fill(world, 18)
        disk.crash_at(disk.operation_count + at)
        try:
            world.configure(bucket_slots=20)
            world.settle()
            done = True
        except Crashed:
            done = False
            crashed += 1
            world.node.restart()
            world.configure(bucket_slots=20)
            world.settle()
        disk.crash_at(0)
        assert len(world.buckets) == 2
        assert world.index.fleet_status().children == 2
        check(world, wanted)
        world.node.close()
        if done:
            break
    assert crashed >= 8


@pytest.mark.parametrize("moment", ["at rest", "mid-migration"])
def test_a_bucket_that_is_moved_to_another_canister_goes_on_there_with_all_it_has(moment: str) -> None:
    world = StoreWorld(slots=100)
    world.configure(hold_ms=10**9)  # only when this test says so
    wanted = fill(world, 40)
    world.index.place_grow()
    world.settle()
    old = world.index.locate(["key 1"])[0]
    if moment == "mid-migration":
        world.migrate()
        assert (
            "calls in flight, which cannot move: stop it first"
            in world.index.fleet_replace(old, None, None).err
        )
        world.node.manage("stop_canister", CanisterIdRecord(old))
    replaced = world.index.fleet_replace(old, None, None).ok
    world.node.manage("start_canister", CanisterIdRecord(replaced.canister))
    world.node.advance(seconds=30)
    world.settle()
    assert old not in world.buckets
    check(world, wanted)
    assert world.put("ann", "key 1", b"new", ("all",), at=old).tag == "ok", (
        "a client with a dead id falls back"
    )
    check(world, wanted | {"key 1": b"new"})
