"""Which children a rollout is about: a filter over what the directory knows of each.

Lists of ids and versions narrow; empty ones do not. What only the node knows, when a canister was last
active, is asked of the node with each wave. This module reads no directory: candidates come in one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from cannery.candid.python import nat64, record
from cannery.limits import ROLLOUT_FILTER_COUNT_MAX
from cannery.protocol.principal import Principal


@record
class RolloutFilter:
    """Children on one of `versions`, among `include`, not in `exclude`, active at or after a time."""

    versions: list[nat64]
    include: list[Principal]
    exclude: list[Principal]
    active_since_ns: nat64 | None


EVERY_CHILD = RolloutFilter([], [], [], None)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A child as the directory knows it. `place` is where a scan goes on after it."""

    place: bytes
    child: Principal
    version: int
    module_hash: bytes


def fault_of_filter(given: RolloutFilter) -> str | None:
    """Say what is wrong with a filter, if anything."""
    for name, values in (
        ("versions", given.versions),
        ("include", given.include),
        ("exclude", given.exclude),
    ):
        if len(values) > ROLLOUT_FILTER_COUNT_MAX:
            return f"{name} names {len(values)}, at most {ROLLOUT_FILTER_COUNT_MAX} are taken"
        if len(set(values)) < len(values):
            return f"{name} names something twice: name each once"
    return None


def selector(given: RolloutFilter) -> Callable[[Candidate], bool]:
    """Return the test for candidates."""
    versions, include = frozenset(given.versions), frozenset(given.include)
    exclude = frozenset(given.exclude)
    return lambda candidate: (
        (not versions or candidate.version in versions)
        and (not include or candidate.child in include)
        and candidate.child not in exclude
    )
