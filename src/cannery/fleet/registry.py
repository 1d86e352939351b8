"""The registry of a fleet: which code there is of each kind, under versions that rise.

The code itself lies on the node, once, under its SHA-256, and an operator brings it there (`cannery module
add`); a release gives it a kind, a version and a line that says what is new, and lets the fleet's members run
it. New children are made with the current release of their kind: the first one, then what the latest rollout
of all children brought. Rollouts are `rollouts`'.
"""

from __future__ import annotations

from cannery import (
    Case,
    Context,
    Outcome,
    Pending,
    StableMap,
    Variant,
    continuation,
    nat64,
    query,
    record,
    update,
    variant,
)
from cannery.cdk.component import Component
from cannery.cdk.management import FleetModuleArgs, Management
from cannery.fleet.directory_types import Release
from cannery.fleet.rights import require_operator
from cannery.limits import (
    FLEET_NAME_SIZE_BYTES_MAX,
    RELEASE_CHANGELOG_SIZE_CHARS_MAX,
    RELEASE_COUNT_MAX,
    RELEASE_PAGE_COUNT_MAX,
)

ADDING_NS_MAX = 600 * 1_000_000_000


@record
class ReleaseEntry:
    """A release as the registry has it. `is_current`: new children are made with it."""

    kind: str
    version: nat64
    module_hash: bytes
    changelog: str
    added_ns: nat64
    is_current: bool


@record
class Added:
    """A release on disk."""

    module_hash: bytes
    changelog: str
    added_ns: nat64


@record
class Adding:
    """A release that the node is being told of."""

    release: Release
    changelog: str
    since_ns: nat64


@variant
class ReleaseResult(Variant):
    """Whether a release is in the registry; the same one again is `ok`."""

    ok: Case[None]
    err: Case[str]


class Registry(Component, prefix="fleet.registry"):
    """Keep releases by kind and version."""

    releases = StableMap(tuple[str, nat64], Added, counted=True)
    by_hash = StableMap(bytes, tuple[str, nat64])
    currents = StableMap(str, nat64)
    adding = StableMap(str, Adding)

    # for the other components and the author

    def get(self, kind: str, version: int) -> Release | None:
        """Return a release."""
        added = self.releases.get((kind, version))
        return None if added is None else Release(kind, version, added.module_hash)

    def newest(self, kind: str) -> Release | None:
        """Return the release of a kind with the highest version."""
        found = next(self.releases.items(prefix=(kind,), reverse=True, limit=1), None)
        return None if found is None else Release(kind, found[0][1], found[1].module_hash)

    def current(self, kind: str) -> Release | None:
        """Return the release that new children of a kind are made with; None before the first one."""
        version = self.currents.get(kind)
        return None if version is None else self.get(kind, version)

    def set_current(self, kind: str, version: int) -> None:
        """Let new children of a kind be made with a release."""
        self.currents.put(kind, version)

    def version_of(self, kind: str, module_hash: bytes) -> int:
        """Return the version of a kind's release by its module; 0 where it is none."""
        found = self.by_hash.get(module_hash)
        return found[1] if found is not None and found[0] == kind else 0

    def take_over(self, entry: ReleaseEntry) -> None:
        """Have a release that the index of the fleet has: the node knows its module already."""
        key = (entry.kind, entry.version)
        self.releases.put(key, Added(entry.module_hash, entry.changelog, entry.added_ns))
        self.by_hash.put(entry.module_hash, key)
        if entry.is_current and self.currents.get(entry.kind) is None:
            self.currents.put(entry.kind, entry.version)

    def entries(self, kind: str | None) -> list[ReleaseEntry]:
        """List releases, newest first within their kind; of one kind, or of all."""
        prefix = None if kind is None else (kind,)
        found = self.releases.items(prefix=prefix, reverse=True, limit=RELEASE_PAGE_COUNT_MAX)
        return [
            ReleaseEntry(
                *key,
                added.module_hash,
                added.changelog,
                added.added_ns,
                self.currents.get(key[0]) == key[1],
            )
            for key, added in found
        ]

    # methods

    @update
    def fleet_release_add(
        self, ctx: Context, kind: str, version: nat64, module_hash: bytes, changelog: str
    ) -> ReleaseResult | Pending[ReleaseResult]:
        """Add a release whose module is on the node; its version is above all others of its kind."""
        require_operator(ctx)
        release = Release(kind, version, module_hash)
        if self.get(kind, version) == release:
            return ReleaseResult.ok()
        adding = self.adding.get(kind)
        if adding is not None and ctx.now_ns - adding.since_ns < ADDING_NS_MAX:
            return ReleaseResult.err(f"{kind} {adding.release.version} is being added: ask again in a moment")
        fault = _fault_of_text(kind, changelog) or self._fault(release)
        if fault is not None:
            return ReleaseResult.err(fault)
        self.adding.put(kind, Adding(release, changelog, ctx.now_ns))
        return ctx.call(Management().cannery_fleet_found(), then=self.founded, saved=release)

    def _fault(self, release: Release) -> str | None:
        """Say why a release cannot be added, if it cannot."""
        newest, known = self.newest(release.kind), self.by_hash.get(release.module_hash)
        if release.version < 1 or (newest is not None and release.version <= newest.version):
            floor = 0 if newest is None else newest.version
            return (
                f"versions rise: the newest {release.kind} is {floor}, "
                f"give a higher one than that, not {release.version}"
            )
        if known is not None:
            return f"this module is {known[0]} {known[1]} already: roll that out"
        if len(self.releases) >= RELEASE_COUNT_MAX:
            return f"a registry has {RELEASE_COUNT_MAX} releases at the most"
        return None

    @continuation
    def founded(
        self, ctx: Context, outcome: Outcome[None], saved: Release
    ) -> ReleaseResult | Pending[ReleaseResult]:
        """Let members run the module, once this canister is the index of a fleet."""
        if not outcome.ok:
            return self._given_up(saved, outcome)
        module = FleetModuleArgs(saved.module_hash, saved.kind, saved.version)
        return ctx.call(Management().cannery_fleet_module_put(module), then=self.known, saved=saved)

    @continuation
    def known(self, ctx: Context, outcome: Outcome[None], saved: Release) -> ReleaseResult:
        """Add the release that the node knows now."""
        adding = self.adding.get(saved.kind)
        if not outcome.ok:
            return self._given_up(saved, outcome)
        if adding is None or adding.release != saved:
            return ReleaseResult.err("the node was too slow to answer: add the release again")
        self.adding.delete(saved.kind)
        self.releases.put((saved.kind, saved.version), Added(saved.module_hash, adding.changelog, ctx.now_ns))
        self.by_hash.put(saved.module_hash, (saved.kind, saved.version))
        if self.currents.get(saved.kind) is None:
            self.currents.put(saved.kind, saved.version)
        return ReleaseResult.ok()

    def _given_up(self, release: Release, outcome: Outcome[None]) -> ReleaseResult:
        adding = self.adding.get(release.kind)
        if adding is not None and adding.release == release:
            self.adding.delete(release.kind)
        return ReleaseResult.err(outcome.reject_message)

    @query
    def fleet_releases(self, ctx: Context, kind: str | None) -> list[ReleaseEntry]:
        """List releases, newest first within their kind; of one kind, or of all."""
        require_operator(ctx)
        return self.entries(kind)


def _fault_of_text(kind: str, changelog: str) -> str | None:
    if not 1 <= len(kind.encode()) <= FLEET_NAME_SIZE_BYTES_MAX:
        return f"a kind is a word of 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes"
    if not changelog.strip() or "\n" in changelog:
        return "say in one line what is new"
    if len(changelog) > RELEASE_CHANGELOG_SIZE_CHARS_MAX:
        return f"what is new has {RELEASE_CHANGELOG_SIZE_CHARS_MAX} characters at the most"
    return None
