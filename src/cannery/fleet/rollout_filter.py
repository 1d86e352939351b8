"""Which children a rollout is about: a filter over what the directory knows of each.

Lists of ids and versions narrow; empty ones do not. What only the node knows, when a canister was last
active, is asked of the node with each wave. This module reads no directory: candidates come in one by one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from cannery.candid.python import nat64, record
from cannery.limits import ROLLOUT_FILTER_COUNT_MAX
from cannery.protocol.principal import Principal

_VERSION_MAX = 2**64 - 1


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
    """A child as the directory knows it. `place` is where a scan goes on after it; places rise.

    Only an active one is taken: others leave, or are in their owner's custody.
    """

    place: bytes
    child: Principal
    version: int
    module_hash: bytes
    is_active: bool = True


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
        candidate.is_active
        and (not versions or candidate.version in versions)
        and (not include or candidate.child in include)
        and candidate.child not in exclude
    )


def versions_met(
    given: RolloutFilter, running: Mapping[int, int], named: Sequence[int], current: int | None
) -> list[int]:
    """Return the versions of a kind that a rollout comes upon.

    `running` says how many active children run each, `named` which version each child runs that the filter
    includes or, where it includes none, excludes. New children are made with the `current` one meanwhile.
    """
    found = set(given.versions or running)
    if given.include:
        return sorted(found & set(named))
    left_out = {version for version, count in running.items() if count <= named.count(version)}
    return sorted(found - (left_out - {current}))


def encode_place(version: int, number: int) -> bytes:
    """Return the place of a child in a scan: by version, the newest first, so that no canary is made of those
    whom earlier rollouts left behind; then by number.
    """
    return (_VERSION_MAX - version).to_bytes(8, "big") + number.to_bytes(8, "big")


def decode_place(place: bytes) -> tuple[int, int]:
    """Return version and number of a place; those before the first child for none."""
    if not place:
        return _VERSION_MAX, -1
    return _VERSION_MAX - int.from_bytes(place[:8], "big"), int.from_bytes(place[8:], "big")
