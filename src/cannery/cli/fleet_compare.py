"""Releases side by side: can one follow the other, and is there a way back? As the node compares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from cannery.cdk.management import ModuleDifferences
from cannery.cli.fleet_index import FleetIndex
from cannery.cli.fleet_lines import plural, table
from cannery.cli.output import format_time
from cannery.cli.problem import Problem
from cannery.fleet.directory_types import ChildCount
from cannery.fleet.registry import ReleaseEntry
from cannery.fleet.rollout_filter import RolloutFilter, versions_met


@dataclass(frozen=True, slots=True)
class Compared:
    """A release beside one that children are on (`from_version`): what keeps it from following, and back."""

    kind: str
    from_version: int
    to_version: int
    differences: ModuleDifferences

    @property
    def fits(self) -> bool:
        """Say whether children can go forward."""
        return self.differences.interface is None and self.differences.state is None

    @property
    def has_way_back(self) -> bool:
        """Say whether what was stored meanwhile can be read again by the former release."""
        return self.differences.back_state is None

    def lines(self) -> Iterator[str]:
        """Write it."""
        found = self.differences
        forward = f"{self.kind} {self.from_version} to {self.to_version}"
        back = f"{self.kind} {self.to_version} to {self.from_version}"
        yield f"{forward}  interface {_word(found.interface)}, state {_word(found.state)}"
        yield f"{back}  interface {_word(found.back_interface)}, state {_word(found.back_state)}"


def _word(why_not: str | None) -> str:
    return "fits" if why_not is None else f"does not fit ({why_not})"


@dataclass(frozen=True, slots=True)
class AddedRelease:
    """A release that was added, beside the one that was current then."""

    kind: str
    version: int
    module_hash: bytes
    compared: Compared | None


def find_release(index: FleetIndex, text: str) -> ReleaseEntry:
    """Read `KIND:VERSION`, or `KIND` for its newest release."""
    kind, is_given, version = text.partition(":")
    if not kind or (is_given and not version.isdecimal()):
        raise Problem(f"{text!r} names no release: say KIND:VERSION, as in user:4, or KIND for the newest")
    found = index.releases(kind)
    if not found:
        raise Problem(f"there is no release of {kind!r}; add one: cannery fleet release add", exit_code=1)
    chosen = [each for each in found if not is_given or each.version == int(version)]
    if not chosen:
        raise Problem(
            f"there is no release {kind}:{version}; see: cannery fleet release list {kind}", exit_code=1
        )
    return chosen[0]


def compare(index: FleetIndex, former: ReleaseEntry, following: ReleaseEntry) -> Compared:
    """Compare two releases of a kind."""
    differences = index.compare(former.module_hash, following.module_hash)
    return Compared(former.kind, former.version, following.version, differences)


def compare_with_running(
    index: FleetIndex, following: ReleaseEntry, narrowed: RolloutFilter
) -> list[Compared]:
    """Compare a release with those that children are on whom a rollout comes upon, newest first."""
    kind, known = following.kind, index.releases(following.kind)
    running = {
        count.version: count.count
        for count in index.status().counts
        if count.kind == kind and count.state == "active"
    }
    named = [index.child(canister) for canister in narrowed.include or narrowed.exclude]
    ours = [child.version for child in named if child and child.kind == kind and child.state.tag == "active"]
    current = next((each.version for each in known if each.is_current), None)
    met = versions_met(narrowed, running, ours, current)
    return [
        compare(index, former, following)
        for former in known
        if former.version in met and former.module_hash != following.module_hash
    ]


def add_release(
    index: FleetIndex, kind: str, version: int | None, module_hash: bytes, note: str
) -> AddedRelease:
    """Add a module of the node to the registry, and compare it with the current release of its kind."""
    known = index.releases(kind)
    chosen = version or (known[0].version + 1 if known else 1)
    result = index.release_add(kind, chosen, module_hash, note)
    if result.tag != "ok":
        raise Problem(str(result.value), exit_code=1)
    current = next((each for each in known if each.is_current), None)
    if current is None or current.module_hash == module_hash:
        return AddedRelease(kind, chosen, module_hash, None)
    differences = index.compare(current.module_hash, module_hash)
    return AddedRelease(kind, chosen, module_hash, Compared(kind, current.version, chosen, differences))


def added_lines(added: AddedRelease) -> Iterator[str]:
    """Write a release that was added."""
    yield f"{added.kind}:{added.version} added, module {added.module_hash.hex()}"
    if added.compared is None:
        yield "new children are made with it" if added.version == 1 else "it is the current release"
    else:
        yield from added.compared.lines()
        yield f"bring it to the children: cannery fleet rollout start {added.kind}:{added.version}"


def release_rows(found: Sequence[ReleaseEntry], counts: Sequence[ChildCount]) -> Iterator[str]:
    """Write a list of releases."""
    running: dict[tuple[str, int], int] = {}
    for count in counts:
        key = (count.kind, count.version)
        running[key] = running.get(key, 0) + count.count
    rows = [
        (
            f"{each.kind}:{each.version}",
            "current" if each.is_current else "",
            plural(running.get((each.kind, each.version), 0), "child", "children"),
            format_time(each.added_ns),
            f"module {each.module_hash.hex()[:16]}",
            each.changelog,
        )
        for each in found
    ]
    return table(("release", "", "runs in", "added", "code", "what is new"), rows)
