"""Making children: at once, or out of a pool of prepared canisters.

A place is taken before a canister is made, and given back with the outcome: `create` is refused while an
owner's child is being made, and a creation that a forced stop cut off gives its place back after
`MAKING_NS_MAX`; a late answer makes no second child. A prepared canister whose installation fails goes back
to the pool, unless the canister itself is at fault: then nobody is given it again. Without a pool, creation
and installation are one step of the management canister that leaves nothing where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cannery import (
    Context,
    Outcome,
    Pending,
    Principal,
    Reject,
    StableCell,
    StableMap,
    StableSet,
    continuation,
    nat,
    nat32,
    nat64,
    query,
    record,
    timer,
    update,
)
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import (
    CanisterIdArg,
    CanisterSettings,
    CreateCanisterArgs,
    CreateCanisterResult,
    CreateInstalledArgs,
    CreateInstalledResult,
    Management,
    install_known,
)
from cannery.cdk.waiter import Continued, Waiter
from cannery.fleet.directory import Directory
from cannery.fleet.directory_types import Child, PoolRule, Release
from cannery.fleet.rights import require_operator
from cannery.fleet.treasury import Treasury
from cannery.fleet.waves import Waves
from cannery.limits import (
    FLEET_NAME_SIZE_BYTES_MAX,
    FLEET_PAGE_COUNT_MAX,
    MAKING_LOOK_COUNT_MAX,
    POOL_REFILL_COUNT_MAX,
    POOL_TARGET_COUNT_MAX,
)

MINUTE_NS = 60_000_000_000
MAKING_NS_MAX = 10 * MINUTE_NS
POOL_RETRY_S = 30
UNFIT_CODES = frozenset({"IC0207", "IC0301", "IC0512", "IC0514", "CNRY0301"})
"""Too few cycles, no such canister, not its controller, not empty, moved."""


@record
class Making:
    """A creation under way: what its continuation needs."""

    kind: str
    owner: Principal
    version: nat64
    cycles: nat64
    pooled: Principal | None
    waiter: Waiter


class AlreadyMade(Exception):
    """An owner has a child of this kind, or one is being made: ask `Directory.find` and `is_making` first."""


class Nursery(Component, prefix="fleet.nursery"):
    """Make children, and keep canisters ready for them."""

    directory = Uses(Directory)
    treasury = Uses(Treasury)
    waves = Uses(Waves)
    making = StableMap(tuple[str, Principal], nat64)
    pool = StableSet(Principal, counted=True)
    fitting = StableMap(Principal, nat64)
    births = StableMap(str, nat)
    pool_rule = StableCell(PoolRule, PoolRule(0, 0))
    refilling = StableCell(tuple[nat32, nat64], (0, 0))

    # for the author

    def is_making(self, ctx: Context, kind: str, owner: Principal) -> bool:
        """Say whether an owner's child of a kind is being made now."""
        started_ns = self.making.get((kind, owner))
        return started_ns is not None and ctx.now_ns - started_ns < MAKING_NS_MAX

    def is_fitting(self, ctx: Context, canister: Principal) -> bool:
        """Say whether a prepared canister is being installed now."""
        started_ns = self.fitting.get(canister)
        return started_ns is not None and ctx.now_ns - started_ns < MAKING_NS_MAX

    def create(
        self,
        ctx: Context,
        release: Release,
        owner: Principal,
        arg: bytes,
        *,
        then: Callable[..., object],
        saved: object,
        cycles: int = 0,
    ) -> Pending[Any]:  # of what `then` answers
        """Make a child and return what the method returns: `then` is a continuation of the canister, which
        takes an `Outcome[Child]` and `saved`.

        Raises `AlreadyMade`; Reject where the index has too few cycles or too many calls in flight.
        """
        kind = release.kind
        if self.directory.find(kind, owner) is not None or self.is_making(ctx, kind, owner):
            raise AlreadyMade(f"{owner} has a {kind}, or one is being made")
        self.making.put((kind, owner), ctx.now_ns)
        pooled = self.pool.first()
        making = Making(kind, owner, release.version, cycles, pooled, ctx.waiter(then, saved))
        management = Management()
        if pooled is None:
            made = management.cannery_create_installed(
                CreateInstalledArgs(release.module_hash, arg, [ctx.id])
            )
            return ctx.call_for(made, then, then=self.made, saved=making, cycles=cycles)
        self.pool.discard(pooled)
        self.fitting.put(pooled, ctx.now_ns)
        if cycles:
            # Before the installation in the management canister's queue: it is paid for out of them.
            ctx.notify(management.deposit_cycles(CanisterIdArg(pooled)), cycles=cycles)
        fitted = management.install_chunked_code(install_known(pooled, release.module_hash, arg))
        return ctx.call_for(fitted, then, then=self.fitted, saved=making)

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Making) -> Continued:
        """Note the new child, or give its place back."""
        canister = outcome.value.canister_id if outcome.ok else None
        return self._settle(ctx, saved, canister, outcome)

    @continuation
    def fitted(self, ctx: Context, outcome: Outcome[None], saved: Making) -> Continued:
        """Note the new child, or put its canister back; one that is unfit is left to the orphans."""
        assert saved.pooled is not None, "only prepared canisters are fitted"
        self.fitting.delete(saved.pooled)
        if not outcome.ok and outcome.error_code not in UNFIT_CODES:
            self.pool.add(saved.pooled)
        self._refill(ctx)
        return self._settle(ctx, saved, saved.pooled if outcome.ok else None, outcome)

    def _settle(
        self, ctx: Context, saved: Making, canister: Principal | None, outcome: Outcome[Any]
    ) -> Continued:
        self.making.delete((saved.kind, saved.owner))
        if canister is None:
            ctx.log(f"a {saved.kind} for {saved.owner} could not be made: {outcome.reject_message}")
            failed: Outcome[Child] = Outcome(
                None, outcome.reject_code, outcome.reject_message, outcome.refunded, outcome.error_code
            )
            return ctx.resume(saved.waiter, failed)
        known = self.directory.find(saved.kind, saved.owner)
        if known is not None:
            ctx.log(f"{saved.owner} has a {saved.kind} since: {canister} came too late and serves nobody")
            return ctx.resume(saved.waiter, Outcome(known))
        child = self.directory.add(ctx, canister, saved.kind, saved.owner, saved.version)
        self.treasury.welcome(ctx, child)
        self.waves.note_born(ctx, child)
        return ctx.resume(saved.waiter, Outcome(child))

    @update
    def fleet_birth_set(self, ctx: Context, kind: str, cycles: nat) -> None:
        """Set what each new child of a kind gets of the index's cycles: the creation fee and its first
        balance."""
        require_operator(ctx)
        if not 0 < len(kind.encode()) <= FLEET_NAME_SIZE_BYTES_MAX:
            ctx.reject(f"a kind's name has 1 to {FLEET_NAME_SIZE_BYTES_MAX} bytes")
        if cycles:
            self.births.put(kind, cycles)
        else:
            self.births.delete(kind)

    @query
    def fleet_births(self, ctx: Context) -> list[tuple[str, nat]]:
        """List the kinds whose children are born with cycles, and with how many."""
        require_operator(ctx)
        return list(self.births.items(limit=FLEET_PAGE_COUNT_MAX))

    def making_count(self) -> int:
        """Count the children being made; beyond a page of them nobody counts."""
        return sum(1 for _ in self.making.keys(limit=FLEET_PAGE_COUNT_MAX))

    def recover(self, ctx: Context) -> None:
        """Give back the places of creations that a forced stop cut off."""
        old = [
            place
            for place, started_ns in self.making.items(limit=MAKING_LOOK_COUNT_MAX)
            if ctx.now_ns - started_ns >= MAKING_NS_MAX
        ]
        for place in old:
            self.making.delete(place)

    # the pool

    def keep(self, canister: Principal) -> None:
        """Put an empty canister of the fleet into the pool."""
        self.pool.add(canister)

    @query
    def fleet_pool(self, ctx: Context) -> PoolRule:
        """Return how many prepared canisters there should be."""
        require_operator(ctx)
        return self.pool_rule.get()

    @update
    def fleet_pool_set(self, ctx: Context, rule: PoolRule) -> None:
        """Set how many prepared canisters there should be, and fill the pool up."""
        require_operator(ctx)
        if rule.target > POOL_TARGET_COUNT_MAX:
            ctx.reject(f"a pool has {POOL_TARGET_COUNT_MAX} canisters at the most, not {rule.target}")
        self.pool_rule.set(rule)
        self._refill(ctx)

    def _refill(self, ctx: Context) -> None:
        """Order what the pool lacks, so many at a time; those that a forced stop cut off count for
        `MAKING_NS_MAX`.
        """
        rule = self.pool_rule.get()
        ordered, since_ns = self.refilling.get()
        if ctx.now_ns - since_ns >= MAKING_NS_MAX:
            ordered = 0
        wanted = min(rule.target - len(self.pool) - ordered, POOL_REFILL_COUNT_MAX - ordered)
        call = Management().create_canister(CreateCanisterArgs(CanisterSettings(controllers=[ctx.id])))
        for _ in range(max(0, wanted)):
            try:
                ctx.call(call, then=self.prepared, cycles=rule.cycles)
            except Reject as reject:
                ctx.log(f"the pool is not filled: {reject.message}")
                ctx.timer_set(self.refill, after_s=POOL_RETRY_S)
                break
            ordered += 1
        self.refilling.set((ordered, ctx.now_ns))

    @continuation
    def prepared(self, ctx: Context, outcome: Outcome[CreateCanisterResult]) -> None:
        """Put a new canister into the pool."""
        ordered, since_ns = self.refilling.get()
        self.refilling.set((max(0, ordered - 1), since_ns))
        if outcome.ok:
            self.pool.add(outcome.value.canister_id)
            self._refill(ctx)
        elif ordered <= 1:
            ctx.log(f"the pool is not filled: {outcome.reject_message}")
            ctx.timer_set(self.refill, after_s=POOL_RETRY_S)

    @timer
    def refill(self, ctx: Context) -> None:
        """Try again to fill the pool."""
        self._refill(ctx)
