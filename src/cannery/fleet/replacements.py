"""Replacing a child instead of upgrading it: a new canister with all that the old one holds takes its place.

The node moves state, timers and cycles and runs the new release's hooks in one message, or leaves everything
as it is; the old id names the new one to whoever still calls it. Here the directory is told. Where a forced
stop dropped the node's answer, the next census asks what became of the old canister.
"""

from __future__ import annotations

from cannery import (
    Case,
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    Variant,
    continuation,
    nat64,
    record,
    update,
    variant,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import CanisterIdArg, Management, ReplaceArgs, StatusManyResult
from cannery.errors import RejectCode
from cannery.fleet.alarms import Alarms
from cannery.fleet.departures import Departures
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child, ChildState, Replacement
from cannery.fleet.registry import Registry
from cannery.fleet.rights import require_operator
from cannery.fleet.treasury import Treasury
from cannery.fleet.waves import Waves
from cannery.limits import REPLACEMENTS_PER_TICK_COUNT_MAX

LOST_NS = 600 * 1_000_000_000


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

    alarms = Uses(Alarms)
    departures = Uses(Departures)
    directory = Uses(Directory)
    registry = Uses(Registry)
    treasury = Uses(Treasury)
    waves = Uses(Waves)

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
        if self.directory.replacing.get(canister) is not None:
            return ReplaceResult.err(f"{canister} is being replaced: ask again in a moment")
        args = ReplaceArgs(canister, release.module_hash, arg or b"")
        saved = Replacing(canister, release.version)
        self.directory.replacing.put(canister, Replacement(release.version, ctx.now_ns))
        return ctx.call(Management().cannery_replace(args), then=self.replaced, saved=saved)

    @continuation
    def replaced(self, ctx: Context, outcome: Outcome[CanisterIdArg], saved: Replacing) -> ReplaceResult:
        """Point the directory to the new canister."""
        if not outcome.ok:
            if outcome.reject_code != RejectCode.SYS_UNKNOWN:
                self.directory.replacing.delete(saved.canister)
            return ReplaceResult.err(outcome.reject_message)
        return self._book(ctx, saved.canister, outcome.value.canister_id, saved.version)

    def _book(self, ctx: Context, canister: Principal, successor: Principal, version: int) -> ReplaceResult:
        """Point the directory to the successor; that of a child which leaves, leaves in its place."""
        self.directory.replacing.delete(canister)
        child = self.directory.get(canister)
        if child is None or child.state.tag == "leaving":
            self.departures.collect(ctx, successor, recycle=not self.directory.is_joint(canister))
            return ReplaceResult.err(
                f"{canister} was on its way out, and so is {successor}, which replaced it"
            )
        if child.state.tag == "replaced":
            return ReplaceResult.err(f"{canister} was replaced by {child.state.replaced}")
        self.directory.set_state(child, ChildState.replaced(successor))
        self.alarms.end(ctx, "quarantined", str(canister), f"{successor} has taken its place")
        moved = self.directory.add(ctx, successor, child.kind, child.owner, version)
        if self.directory.is_joint(canister):
            self.directory.note_joint(successor)
        self.treasury.move(ctx, canister, moved)
        self.waves.note_born(ctx, moved)
        return ReplaceResult.ok(moved)

    # answers that were lost

    def recover(self, ctx: Context) -> None:
        """Ask what became of children whose replacement has not been answered for long."""
        lost = [
            canister
            for canister, begun in self.directory.replacing.items(limit=REPLACEMENTS_PER_TICK_COUNT_MAX)
            if ctx.now_ns - begun.since_ns >= LOST_NS
        ]
        if lost:
            try:
                ctx.call(Management().cannery_status_many(lost), then=self.told)
            except Reject as reject:
                ctx.log(f"replacements are looked after later: {reject.message}")

    @continuation
    def told(self, ctx: Context, outcome: Outcome[list[StatusManyResult]]) -> None:
        """Book the replacements that took place, and forget those that did not."""
        if not outcome.ok:
            ctx.log(f"replacements are looked after later: {outcome.reject_message}")
            return
        for result in outcome.value:
            canister, begun = result.canister_id, self.directory.replacing.get(result.canister_id)
            if begun is None or ctx.now_ns - begun.since_ns < LOST_NS:
                continue
            if result.status is not None and result.status.replaced_by is not None:
                self._book(ctx, canister, result.status.replaced_by, begun.version)
            else:
                self.directory.replacing.delete(canister)
