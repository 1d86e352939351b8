"""Token buckets that several processes share: one limit for all, in a bounded table."""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cannery.node.gateway.rate_limit import MemoryTable, TokenBuckets
from cannery.node.gateway.shared_rates import SharedTable

SECRET = b"known to this node"
STEPS = st.lists(
    st.tuples(st.integers(0, 3 * 10**9), st.sampled_from(["a", "b", "c"]), st.integers(0, 2)), max_size=60
)
MODEST = settings(
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], deadline=None
)


@MODEST
@given(st.integers(1, 1000), st.integers(1, 10), STEPS)
def test_two_processes_limit_as_one_would(
    tmp_path: Path, per_s: int, burst: int, steps: list[tuple[int, str, int]]
) -> None:
    path = tmp_path / "rates"
    path.unlink(missing_ok=True)
    pair = [TokenBuckets(per_s, burst, SharedTable(path, SECRET, 10)) for _ in range(2)]
    model = TokenBuckets(per_s, burst, MemoryTable(10))
    now_ns = 0
    for turn, (step_ns, key, kind) in enumerate(steps):
        now_ns += step_ns
        found = pair[turn % 2]
        if kind == 0:
            assert found.take(key, now_ns) == model.take(key, now_ns)
        elif kind == 1:
            assert found.wait_ns(key, now_ns) == model.wait_ns(key, now_ns)
        else:
            found.charge(key, now_ns)
            model.charge(key, now_ns)


def test_the_table_is_bounded_and_forgets_who_was_quiet_longest(tmp_path: Path) -> None:
    table = SharedTable(tmp_path / "rates", SECRET, 64)
    for number in range(2_000):
        table.put(str(number), number + 1)
    assert len(table) == 64
    kept = [number for number in range(2_000) if table.get(str(number))]
    assert len(kept) == 64
    assert min(kept) > 1_000
    # In each set the last that came is known.
    assert table.get("1999") == 2_000
    assert (tmp_path / "rates").stat().st_size == 64 * 16


def test_another_secret_puts_keys_elsewhere(tmp_path: Path) -> None:
    table = SharedTable(tmp_path / "rates", SECRET, 64)
    table.put(b"ann", 7)
    assert SharedTable(tmp_path / "rates", SECRET, 64).get(b"ann") == 7
    assert SharedTable(tmp_path / "rates", b"another", 64).get(b"ann") == 0
    table.put("\udc80 no text", 9)
    assert table.get("\udc80 no text") == 9
