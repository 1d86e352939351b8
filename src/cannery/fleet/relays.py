"""Rollouts of a spread fleet: what became current at the root goes through the local indexes, one by one.

A rollout of all children of a kind that is done at the root (over the children that it has itself) is ordered
at the first local index, with the same rule, and at the next one when it is done there. Where a local index
takes it back, refuses or cancels it, the relay halts with an alarm; an operator mends what is wrong and lets
it go on. Each order has a number, so that a repeated one begins nothing anew.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Final

from cannery import Context, Outcome, Reject, StableCell, StableMap, continuation, nat32, nat64, record
from cannery.cdk.component import Component, Uses
from cannery.fleet.index import Index
from cannery.fleet.locals import USED, Locals
from cannery.fleet.rollout_types import KindVersion, RolloutArgs, RolloutInfo, RuleChange, StartResult
from cannery.fleet.shards_types import Local, Relay, ShardDoor
from cannery.fleet.waves import is_for_all

LOST_NS: Final = 600 * 1_000_000_000
CONCURRENCY: Final = 100
STOPPED: Final = "rollout_stopped"


@record
class RelayStep:
    """An order or question about a relayed rollout."""

    kind: str
    relay: nat64
    at: nat32


class Relays(Component, prefix="fleet.relays"):
    """Bring rollouts to local indexes."""

    fleet = Uses(Index)
    locals = Uses(Locals)
    relays = StableMap(str, Relay)
    asked = StableMap(str, nat64)
    next_number = StableCell(nat64, 1)

    def look(self, ctx: Context) -> None:
        """Let what is current at the root go through the local indexes, kind by kind."""
        rule = self.locals.rule(ctx)
        for kind, version in list(self.fleet.registry.currents.items()):
            if kind in (rule.local_kind, rule.part_kind):
                continue
            relay = self.relays.get(kind)
            if relay is None:
                # What they begin with is in their settings.
                latest = self.fleet.rollouts.waves.latest.get(kind, 0)
                self.relays.put(kind, Relay(0, kind, version, latest, 0, None, True, "", False))
            elif relay.is_done or relay.halted:
                self._look_for_another(relay, version)
            self._drive(ctx, kind)

    def _look_for_another(self, relay: Relay, version: int) -> None:
        """Begin anew where the root has done another rollout since, or has taken back the one before."""
        if self._is_another(relay, version):
            self._begin(relay, version, is_back=version < relay.version)
        elif self._is_taken_back(relay) and relay.former is not None:
            # It brought a release that was current already, so the registry has no other one to go back to.
            self.fleet.registry.set_current(relay.kind, relay.former)
            self._begin(relay, relay.former, is_back=True)

    def _is_taken_back(self, relay: Relay) -> bool:
        rollout = self.fleet.rollouts.waves.rollouts.get(relay.rollout)
        is_latest = self.fleet.rollouts.waves.latest.get(relay.kind) == relay.rollout
        return rollout is not None and is_latest and rollout.phase.tag == "rolled_back" and not relay.is_back

    def _is_another(self, relay: Relay, version: int) -> bool:
        """Say whether the root has done a rollout since: of another release, or of the same once more."""
        waves = self.fleet.rollouts.waves
        latest = waves.latest.get(relay.kind, 0)
        rollout, order = waves.rollouts.get(latest), waves.orders.get(latest)
        if relay.version != version:
            return True
        if latest <= relay.rollout or rollout is None or order is None or not is_for_all(order):
            return False
        target = next(target for target in order.targets if target.kind == relay.kind)
        return rollout.phase.tag == "done" and target.version == version

    def _begin(self, before: Relay, version: int, *, is_back: bool) -> None:
        kind, number = before.kind, self._take_number()
        rollout = self.fleet.rollouts.waves.latest.get(kind, 0)
        former = before.former if before.version == version else before.version
        self.relays.put(kind, Relay(number, kind, version, rollout, 0, None, False, "", is_back, former))

    def go_on(self, ctx: Context, kind: str) -> bool:
        """Order the rollout again where a relay has halted; False where none has."""
        relay = self.relays.get(kind)
        if relay is None or not relay.halted:
            return False
        self.relays.put(kind, replace(relay, number=self._take_number(), local_rollout=None, halted=""))
        self.fleet.alarms.end(ctx, STOPPED, f"{kind} {relay.version}", "an operator lets it go on")
        self._drive(ctx, kind)
        return True

    def again(self, number: int) -> None:
        """Bring a local index that was taken back along with the others, and those behind it once more."""
        for kind, relay in list(self.relays.items()):
            if relay.number and not relay.halted:
                at = number if relay.is_done else min(relay.at, number)
                taken = self._take_number()
                self.relays.put(kind, replace(relay, number=taken, at=at, local_rollout=None, is_done=False))

    def _take_number(self) -> int:
        number = self.next_number.get()
        self.next_number.set(number + 1)
        return number

    def _drive(self, ctx: Context, kind: str) -> None:
        """Order the rollout at the local index that it is at, or ask how far it is there."""
        relay, asked_ns = self.relays[kind], self.asked.get(kind, 0)
        if relay.is_done or relay.halted or (asked_ns and ctx.now_ns - asked_ns < LOST_NS):
            return
        local = self._next_local(relay)
        if local is None or local.canister is None:
            self.relays.put(kind, replace(relay, is_done=True))
            return
        if local.state.tag == "adding":
            return
        if local.number != relay.at:
            relay = replace(relay, at=local.number, local_rollout=None)
            self.relays.put(kind, relay)
        door, saved = ShardDoor(local.canister), RelayStep(kind, relay.number, relay.at)
        try:
            if relay.local_rollout is None:
                ctx.call(door.shard_roll(relay.number, self._args(relay)), then=self.rolled, saved=saved)
            else:
                ctx.call(door.fleet_rollout(relay.local_rollout), then=self.seen, saved=saved)
        except Reject as reject:
            ctx.log(f"rollout {kind} {relay.version} waits: {reject.message}")
            return
        self.asked.put(kind, ctx.now_ns)

    def _next_local(self, relay: Relay) -> Local | None:
        """Return the local index that a relay is at, or the next one; None behind the last."""
        for local in self.locals.known.values(start=relay.at):
            if local.state.tag in USED or (local.state.tag == "adding" and local.canister is not None):
                return local
        return None

    def _args(self, relay: Relay) -> RolloutArgs:
        """Order at a local index what was ordered at the root."""
        waves = self.fleet.rollouts.waves
        order, rollout = waves.orders.get(relay.rollout), waves.rollouts.get(relay.rollout)
        releases = [KindVersion(relay.kind, relay.version)]
        if order is None or rollout is None:
            return RolloutArgs(releases, CONCURRENCY)
        rule = RuleChange(**{field.name: getattr(order.rule, field.name) for field in fields(RuleChange)})
        # Going back leaves the interface unchecked, as it does at one index.
        force = order.force or relay.is_back
        return RolloutArgs(
            releases,
            rollout.concurrency or rollout.concurrency_before or 1,
            None,
            rule,
            order.arg or None,
            force,
            order.skip_pre_upgrade,
        )

    @continuation
    def rolled(self, ctx: Context, outcome: Outcome[StartResult], saved: RelayStep) -> None:
        """Note the number of the rollout at the local index; where it refuses, halt."""
        relay = self._answered(saved)
        if relay is None or not outcome.ok:
            ctx.log(f"local index {saved.at} did not take a rollout: {outcome.reject_message}")
            return
        if outcome.value.tag == "ok":
            self.relays.put(saved.kind, replace(relay, local_rollout=outcome.value.ok))
            self._drive(ctx, saved.kind)
        else:
            self._halt(ctx, relay, outcome.value.err)

    @continuation
    def seen(self, ctx: Context, outcome: Outcome[RolloutInfo | None], saved: RelayStep) -> None:
        """Go on to the next local index where this one is done."""
        relay = self._answered(saved)
        if relay is None or not outcome.ok:
            return
        info = outcome.value
        tag = "forgotten" if info is None else info.state.tag
        if tag == "done":
            self.relays.put(saved.kind, replace(relay, at=saved.at + 1, local_rollout=None))
            self._drive(ctx, saved.kind)
        elif tag in ("cancelled", "rolled_back", "refused", "forgotten"):
            self._halt(ctx, relay, tag if info is None else f"{tag}: {info.reason}")

    def _answered(self, saved: RelayStep) -> Relay | None:
        relay = self.relays.get(saved.kind)
        self.asked.delete(saved.kind)
        if relay is None or relay.number != saved.relay or relay.at != saved.at:
            return None
        return relay

    def _halt(self, ctx: Context, relay: Relay, why: str) -> None:
        text = f"{relay.kind} {relay.version} goes no further than local index {relay.at}: {why}"
        self.relays.put(relay.kind, replace(relay, halted=why or "it was refused"))
        self.fleet.alarms.begin(ctx, STOPPED, f"{relay.kind} {relay.version}", text)
