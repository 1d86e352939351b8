"""How many gateways a machine gets: by its cores, its quotas and the subnets."""

from __future__ import annotations

from pathlib import Path

import pytest

from cannery.node.machine import count_usable_cores, plan_gateway_count, read_quotas, usable_core_count


@pytest.mark.parametrize(
    ("cores", "subnets", "gateways"),
    [
        (1, 1, 1),
        (2, 1, 1),
        (2, 2, 1),
        (3, 1, 2),
        (4, 1, 3),
        (4, 2, 2),
        (4, 4, 1),
        (4, 16, 1),
        (8, 1, 7),
        (9, 1, 8),
        (64, 1, 8),
        (64, 60, 4),
    ],
)
def test_a_gateway_for_each_core_that_the_subnets_leave(cores: int, subnets: int, gateways: int) -> None:
    assert plan_gateway_count(cores, subnets) == gateways


@pytest.mark.parametrize(
    ("allowed", "quotas", "cores"),
    [
        (4, [], 4),
        (4, ["max 100000\n"], 4),
        (4, ["200000 100000\n"], 2),
        (4, ["250000 100000"], 2),
        (4, ["50000 100000"], 1),
        (2, ["800000 100000"], 2),
        (8, ["max 100000", "300000 100000", "600000 100000"], 3),
        (8, ["", "nonsense", "1 0", "-5 100000", "100000"], 8),
    ],
)
def test_cores_are_what_scheduler_and_quotas_grant(allowed: int, quotas: list[str], cores: int) -> None:
    assert count_usable_cores(allowed, quotas) == cores


def test_the_quotas_of_all_groups_around_count(tmp_path: Path) -> None:
    mounted = tmp_path / "cgroup"
    inner = mounted / "system.slice" / "node.service"
    inner.mkdir(parents=True)
    (inner.parent / "cpu.max").write_text("400000 100000\n")
    (inner / "cpu.max").write_text("max 100000\n")
    (tmp_path / "cpu.max").write_text("1 1\n")
    own = tmp_path / "own"
    own.write_text("1:cpu:/elsewhere\n0::/system.slice/node.service\n")
    assert read_quotas(own, mounted) == ["max 100000\n", "400000 100000\n"]
    own.write_text("0::/\n")
    (mounted / "cpu.max").write_text("150000 100000\n")
    assert read_quotas(own, mounted) == ["150000 100000\n"]
    assert read_quotas(tmp_path / "absent", tmp_path / "nowhere") == []
    # Within a container the path may be one that is not mounted there.
    own.write_text("0::/../outside\n")
    assert read_quotas(own, mounted) == ["150000 100000\n"]
    assert usable_core_count() >= 1
