"""How many cores this process may use, and how many gateway processes that makes worth while."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from cannery.limits import GATEWAY_COUNT_PLANNED_MAX

_CGROUPS: Final = Path("/sys/fs/cgroup")
_OWN_CGROUP: Final = Path("/proc/self/cgroup")
# On one core or two the subnet and one gateway fill them: measured, a second gateway costs updates.
_FEW_CORES: Final = 2


def plan_gateway_count(core_count: int, subnet_count: int) -> int:
    """Give the number of gateways for a machine: one for each core that the subnets do not take."""
    if core_count <= _FEW_CORES:
        return 1
    return max(1, min(core_count - subnet_count, GATEWAY_COUNT_PLANNED_MAX))


def count_usable_cores(affinity_count: int, quotas: Iterable[str]) -> int:
    """Give the whole cores that may be used: of those that the scheduler allows, what the CPU quotas grant.

    `quotas` are texts of cgroup files `cpu.max`: microseconds, or `max`, and the period that they are for.
    A text that says nothing grants all; one core is always there.
    """
    granted = min((_granted(text, affinity_count) for text in quotas), default=affinity_count)
    return max(1, min(affinity_count, granted))


def _granted(text: str, otherwise: int) -> int:
    quota, _, period = text.strip().partition(" ")
    if not quota.isdigit() or not period.isdigit() or not int(period):
        return otherwise
    return int(quota) // int(period)


def usable_core_count() -> int:
    """Count the cores that this process may use."""
    return count_usable_cores(len(os.sched_getaffinity(0)), read_quotas(_OWN_CGROUP, _CGROUPS))


def read_quotas(own: Path, mounted: Path) -> list[str]:
    """Read the quotas of this process's cgroup and of those around it; none where there is no cgroup."""
    try:
        lines = own.read_text().splitlines()
    except OSError:
        lines = []
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    # A container may see the path of a group that lies outside of what is mounted for it.
    names = [name for name in path.split("/") if name not in ("", ".", "..")]
    found: list[str] = []
    for depth in range(len(names), -1, -1):
        each = mounted.joinpath(*names[:depth])
        try:
            found.append((each / "cpu.max").read_text())
        except OSError:
            continue
    return found
