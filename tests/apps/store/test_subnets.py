"""Buckets over several subnets: where each is made, and a subnet that is down in mid-write and mid-move."""

from __future__ import annotations

import pytest

from cannery.apps.store.types import Put
from cannery.testing import Rejected
from tests.apps.store.test_faults import check, fill
from tests.apps.store.world import StoreWorld


def test_buckets_are_made_on_the_subnet_with_the_fewest_canisters() -> None:
    world = StoreWorld(slots=10, subnets=2)
    wanted = fill(world, 60)
    world.settle()
    numbers = [world.subnet_of(bucket) for bucket in world.buckets]
    assert len(numbers) >= 6
    assert abs(numbers.count(0) + 1 - numbers.count(1)) <= 1, "the index counts too"
    check(world, wanted)
    world.index.place_drain(next(bucket for bucket in world.buckets if world.subnet_of(bucket)))
    world.settle()
    check(world, wanted)


@pytest.mark.parametrize("number", [0, 1])
def test_buckets_are_made_on_the_subnet_that_is_named(number: int) -> None:
    world = StoreWorld(slots=10, subnets=2, spread="")
    world.configure(bucket_subnet=world.node.subnet_id(number))
    wanted = fill(world, 25)
    world.settle()
    assert world.subnet_of(world.buckets[0]) == 0, "it was made before the setting"
    assert len(world.buckets) >= 3
    assert {world.subnet_of(bucket) for bucket in world.buckets[1:]} == {number}
    check(world, wanted)


@pytest.mark.parametrize(("value", "text"), [("moon", "is no subnet"), ("aaaaa-aa", "has no subnet")])
def test_a_subnet_that_there_is_not_is_said_in_the_log_and_loses_nothing(value: str, text: str) -> None:
    world = StoreWorld(slots=10, subnets=2)
    wanted = fill(world, 6)
    before = len(world.buckets)
    world.configure(bucket_subnet=value)
    world.index.place_grow()
    world.node.advance(seconds=5)
    assert any(text in line for line in world.node.logs(world.index))
    world.configure(bucket_subnet="any")
    world.index.place_grow()
    world.settle()
    assert len(world.buckets) > before
    check(world, wanted)


def test_a_put_for_a_subnet_that_is_down_is_refused_or_waits_and_the_others_serve() -> None:
    world = StoreWorld(slots=10, subnets=2)
    wanted = fill(world, 40)
    world.settle()
    homes = dict(zip(wanted, world.index.locate(list(wanted)), strict=True))
    far, near = (next(key for key in wanted if world.subnet_of(homes[key]) == number) for number in (1, 0))
    world.node.stop_subnet(1)
    with pytest.raises(Rejected, match="subnet 1 is down"):
        world.bucket(homes[far]).put(Put(far, b"new", ["all"], False, [], None))
    # Handed to a bucket that is up, it goes on its way and is answered when the other subnet is back.
    sent = world.bucket(homes[near]).put.submit(Put(far, b"late", ["all"], False, [], None))
    world.node.advance(seconds=30)
    assert not sent.is_answered
    assert world.put("ann", near, b"new", ("all",)).tag == "ok"
    assert world.get("bob", near) == b"new"
    reached = {bucket.canister: bucket.is_reached for bucket in world.index.stats().buckets}
    assert reached == {bucket: not world.subnet_of(bucket) for bucket in world.buckets}
    world.node.restart_subnet(1)
    world.node.run()
    assert sent.result().ok.canister == homes[far]
    world.settle()
    check(world, wanted | {near: b"new", far: b"late"})


@pytest.mark.parametrize("down", [0, 1])
def test_a_subnet_that_goes_down_at_any_step_of_a_migration_holds_nothing_up_for_ever(down: int) -> None:
    world = StoreWorld(slots=400, subnets=2)
    world.configure(hold_ms=10**9)  # only when this test says so
    wanted = fill(world, 120)
    interrupted = {"join": 0, "part": 0}
    for step in range(20):
        is_over = True
        for kind in interrupted:
            before = len(world.buckets)
            if kind == "join":
                world.index.place_grow.submit()
            else:
                world.index.place_drain.submit(world.buckets[step % 2])
            while world.status.change is None:
                world.node.step()
            for _ in range(step):
                world.node.step()
            if world.status.change is not None:
                is_over = False
                interrupted[kind] += 1
                world.node.stop_subnet(down)
                world.node.advance(seconds=60)
                world.node.restart_subnet(down)
            world.node.advance(seconds=5)
            world.settle()
            assert len(world.buckets) == before + (1 if kind == "join" else -1)
            check(world, wanted)
        if is_over:
            break
    assert min(interrupted.values()) >= 3
