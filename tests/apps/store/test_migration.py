"""One bucket more and one fewer, while clients write and read: the least possible moves, nothing is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from cannery.fleet.place_types import Report
from cannery.limits import MOVING_GROUP_COUNT_MAX, MOVING_SOURCE_COUNT_MAX, PLACE_ORDER_COUNT_MAX
from cannery.protocol.principal import Principal
from cannery.replica.management.types import CanisterIdRecord, StopArgs
from tests.apps.store.world import StoreWorld

KEYS, KEYS_MANY = 150, 2_000


@pytest.mark.parametrize("count", [3, 10])
def test_one_bucket_more_and_one_fewer_move_the_least_that_is_possible(count: int) -> None:
    world = StoreWorld(slots=10_000)
    world.configure(hold_ms=10**9)  # the author of this test alone says when
    wanted = {f"key {number}": str(number).encode() for number in range(KEYS)}
    for key, value in wanted.items():
        assert world.put("ann", key, value, ("all",)).tag == "ok"
    while len(world.buckets) < count:
        world.index.place_grow()
        world.settle()
    keys = list(wanted)
    before, given = world.index.locate(keys), world.status.given_count
    world.migrate()
    # Clients go on, each with the map that it had before.
    for number in range(0, KEYS, 7):
        key = keys[number]
        wanted[key] = b"again"
        assert world.put("ann", key, b"again", ("all",), at=before[number]).tag == "ok"
        assert world.get("bob", key, at=before[number]) == b"again"
    world.settle()
    after = world.index.locate(keys)
    (new,) = set(after) - set(before)
    came = sum(bucket == new for bucket in after)
    assert came == sum(old != now for old, now in zip(before, after, strict=True))
    assert world.status.given_count - given == came
    world.index.place_drain(new)
    world.settle()
    assert world.index.locate(keys) == before
    assert world.status.given_count - given == 2 * came
    assert {key: world.get("bob", key) for key in wanted} == wanted
    assert sorted(world.keys("bob", "all")) == sorted(wanted)


def store_of(count: int, keys: int) -> StoreWorld:
    world = StoreWorld(slots=10_000)
    world.configure(hold_ms=10**9)
    while len(world.buckets) < count:
        world.index.place_grow()
        world.settle()
    for number in range(keys):
        assert world.put("ann", f"key {number}", b"v", ("all",)).tag == "ok"
    return world


@dataclass
class Seen:
    """What each round has done: entries moved, and buckets that have heard of a change."""

    moved: list[int] = field(default_factory=list)
    told: list[int] = field(default_factory=list)


def rounds_of(world: StoreWorld) -> Seen:
    """Run until nothing is left to do now."""
    seen, before = Seen(), reports_of(world)
    while world.node.step():
        after = reports_of(world)
        both = [(before[bucket], report) for bucket, report in after.items() if bucket in before]
        seen.moved.append(sum(now.given_count - was.given_count for was, now in both))
        seen.told.append(sum(now.number != was.number for was, now in both))
        before = after
    return seen


def reports_of(world: StoreWorld, but: Sequence[Principal] = ()) -> dict[Principal, Report]:
    ids = [child.id for child in world.status.children if child.id not in but]
    return {each: world.bucket(each, world.node.operator).place_report() for each in ids}


def test_a_round_moves_few_entries_and_tells_few_buckets_however_many_there_are() -> None:
    world = store_of(PLACE_ORDER_COUNT_MAX + 3, 300)
    world.index.place_grow.submit()
    up = rounds_of(world)
    assert sum(up.moved) > 10
    assert max(up.moved) <= MOVING_SOURCE_COUNT_MAX * MOVING_GROUP_COUNT_MAX
    world.settle()
    fullest = max(world.status.children, key=lambda child: child.used_slots)
    world.index.place_drain.submit(fullest.id)
    down = rounds_of(world)
    assert (sum(down.moved), sum(down.told)) > (20, PLACE_ORDER_COUNT_MAX)
    assert max(down.moved) <= MOVING_GROUP_COUNT_MAX
    assert max(down.told) <= PLACE_ORDER_COUNT_MAX


def test_sources_that_are_stopped_hold_up_no_other() -> None:
    world = store_of(6, KEYS_MANY)
    world.migrate()
    (new,) = world.index.where([]).arriving
    while not (told := [each for each, report in reports_of(world, [new]).items() if report.open_peers]):
        world.node.step()
    assert len(told) == MOVING_SOURCE_COUNT_MAX
    for each in told:
        world.node.manage("cannery_stop_canister", StopArgs(each, force=True))
    world.node.advance(seconds=30)
    others = reports_of(world, told)
    assert sum(bool(report.given_count) for report in others.values()) == 6 - len(told)
    assert [each for each, report in others.items() if report.open_peers] == [new], "the others are done"
    for each in told:
        world.node.manage("start_canister", CanisterIdRecord(each))
    world.settle()
    assert new in world.buckets
    assert sorted(world.keys("bob", "all")) == sorted(f"key {number}" for number in range(KEYS_MANY))


@pytest.mark.parametrize("apart", [1, 5, 25])
def test_a_listing_is_whole_whenever_it_begins_and_however_long_it_takes(apart: int) -> None:
    """Also where the entries begin to move only after the index was asked."""
    world = store_of(1, 20)
    world.rounds_apart = apart
    wanted = sorted(f"key {number}" for number in range(20))
    world.index.place_grow.submit()
    for _ in range(60):
        assert sorted(world.keys("bob", "all")) == wanted
        world.node.step()
        if len(world.buckets) > 1:
            break
    assert len(world.buckets) == 2
