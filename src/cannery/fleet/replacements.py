"""Replacing a child instead of upgrading it: a new canister with all that the old one holds takes its place.

The node moves state, timers and cycles and runs the new release's hooks in one message, or leaves everything
as it is; the old id names the new one to whoever still calls it. Here the directory is told.
"""

from __future__ import annotations

from cannery import (
    Case,
    Context,
    Outcome,
    Pending,
    Principal,
    Variant,
    continuation,
    nat64,
    record,
    update,
    variant,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import CanisterIdArg, Management, ReplaceArgs
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child, ChildState
from cannery.fleet.registry import Registry
from cannery.fleet.rights import require_operator
from cannery.fleet.treasury import Treasury


@record
class Replacing:
    """A replacement under way."""

    canister: Principal
    version: nat64


@variant
class ReplaceResult(Variant):
    """The child in its new canister, or why it is where it was."""

    ok: Case[Child]
    err: Case[str]


class Replacements(Component, prefix="fleet.replacements"):
    """Give children new canisters."""

    directory = Uses(Directory)
    registry = Uses(Registry)
    treasury = Uses(Treasury)

    @update
    def fleet_replace(
        self, ctx: Context, canister: Principal, version: nat64 | None, arg: bytes | None
    ) -> ReplaceResult | Pending[ReplaceResult]:
        """Move a child to a new canister on a release (the current one unless told); `arg` goes to its
        `@post_upgrade`."""
        require_operator(ctx)
        child = self.directory.get(canister)
        if child is None or child.state.tag != "active":
            return ReplaceResult.err(f"{canister} is no child that is in use")
        kind = child.kind
        release = self.registry.current(kind) if version is None else self.registry.get(kind, version)
        if release is None:
            return ReplaceResult.err(f"there is no such release of {kind}; fleet_releases lists them")
        args = ReplaceArgs(canister, release.module_hash, arg or b"")
        saved = Replacing(canister, release.version)
        return ctx.call(Management().cannery_replace(args), then=self.replaced, saved=saved)

    @continuation
    def replaced(self, ctx: Context, outcome: Outcome[CanisterIdArg], saved: Replacing) -> ReplaceResult:
        """Point the directory to the new canister."""
        if not outcome.ok:
            return ReplaceResult.err(outcome.reject_message)
        child, successor = self.directory.get(saved.canister), outcome.value.canister_id
        if child is None:
            return ReplaceResult.err(f"{saved.canister} was forgotten; {successor} has taken its place")
        self.directory.set_state(child, ChildState.replaced(successor))
        moved = self.directory.add(ctx, successor, child.kind, child.owner, saved.version)
        self.treasury.move(ctx, saved.canister, moved)
        return ReplaceResult.ok(moved)
