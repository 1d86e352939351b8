"""The store: put, get, find, delete; owners, readers, moderators; buckets that appear while one writes."""

from __future__ import annotations

from tests.apps.store.world import StoreWorld


def test_buckets_appear_while_one_writes_and_nothing_is_lost() -> None:
    world = StoreWorld(slots=20)
    assert len(world.buckets) == 1
    for number in range(100):
        assert (
            world.put("ann", f"note/{number}", f"text {number}".encode(), (f"t{number % 3}", "all")).tag
            == "ok"
        )
    world.settle()
    assert len(world.buckets) >= 5
    for number in range(100):
        assert world.get("bob", f"note/{number}") == f"text {number}".encode()
    assert world.keys("bob", "all") == [f"note/{number}" for number in reversed(range(100))]
    assert len(world.keys("bob", "all", "t1")) == 33
    assert world.index.stats().count == 100
    assert world.index.sum(["t1"], None).count == 33
