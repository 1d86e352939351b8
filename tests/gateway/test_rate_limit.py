"""Token buckets: laws over any sequence of times and keys."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cannery.node.gateway.rate_limit import MemoryTable, TokenBuckets, address_key

STEPS = st.lists(st.tuples(st.integers(0, 3 * 10**9), st.sampled_from(["a", "b"])), max_size=60)


@given(st.integers(1, 1000), st.integers(1, 10), STEPS)
def test_no_more_than_burst_and_rate_pass(per_s: int, burst: int, steps: list[tuple[int, str]]) -> None:
    buckets = TokenBuckets(per_s, burst, MemoryTable(10))
    now_ns, passed = 0, 0
    for step_ns, key in steps:
        now_ns += step_ns
        if buckets.take(key, now_ns) == 0 and key == "a":
            passed += 1
    assert passed <= burst + per_s * now_ns / 10**9 * 1.001 + 1


@given(st.integers(1, 1000), st.integers(1, 10), STEPS)
def test_whoever_waits_as_told_is_let_in(per_s: int, burst: int, steps: list[tuple[int, str]]) -> None:
    buckets = TokenBuckets(per_s, burst, MemoryTable(10))
    now_ns = 0
    for step_ns, key in steps:
        now_ns += step_ns
        wait_ns = buckets.take(key, now_ns)
        if wait_ns:
            assert buckets.take(key, now_ns + wait_ns - 1) > 0
            now_ns += wait_ns
            assert buckets.take(key, now_ns) == 0


@given(st.integers(1, 1000), st.integers(1, 10), STEPS)
def test_asking_for_the_wait_takes_nothing(per_s: int, burst: int, steps: list[tuple[int, str]]) -> None:
    buckets = TokenBuckets(per_s, burst, MemoryTable(10))
    now_ns = 0
    for step_ns, key in steps:
        now_ns += step_ns
        told = [buckets.wait_ns(key, now_ns) for _ in range(2)]
        assert told == [buckets.take(key, now_ns)] * 2


def test_what_is_owed_is_waited_for() -> None:
    buckets = TokenBuckets(1, 2, MemoryTable(10))
    for _ in range(5):
        buckets.charge("a", 0)
    assert buckets.wait_ns("a", 0) == 4 * 10**9
    assert buckets.wait_ns("a", 4 * 10**9) == 0
    assert buckets.wait_ns("b", 0) == 0


def test_a_quiet_key_has_its_burst() -> None:
    buckets = TokenBuckets(2, 3, MemoryTable(10))
    assert [buckets.take("a", 10**12) == 0 for _ in range(5)] == [True, True, True, False, False]
    assert buckets.take("b", 10**12) == 0
    assert buckets.refused == 2


def test_the_table_is_bounded() -> None:
    buckets = TokenBuckets(1, 1, MemoryTable(100))
    for number in range(1000):
        buckets.take(str(number), number)
    assert len(buckets) == 100


def test_addresses_of_one_owner_share_a_bucket() -> None:
    assert address_key("2001:db8:1:2:3:4:5:6") == address_key("2001:db8:1:2::9") == "2001:db8:1:2::"
    assert address_key("2001:db8:1:3::9") != "2001:db8:1:2::"
    assert address_key("::ffff:192.0.2.1") == address_key("192.0.2.1") == "192.0.2.1"
    assert address_key("::1") == "::1"
    assert address_key("fe80::1%eth0") == "fe80::"
    assert address_key("not:an:address") == "not:an:address"
