"""Making children: at once, or out of a pool of prepared canisters.

A place is taken before a canister is made, and given back with the outcome: `create` is refused while an
owner's child is being made, and a creation that a forced stop cut off gives its place back after
`MAKING_NS_MAX`; a late answer makes no second child. A prepared canister whose installation fails goes back
to the pool, unless the canister itself is at fault: then nobody is given it again, and the child is made
anew. Without a pool, creation and installation are one step of the management canister that leaves nothing
where it fails.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
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
from cannery.cdk.calls import Call
from cannery.cdk.component import Component, Uses
from cannery.cdk.management import (
    CanisterIdArg,
    CanisterSettings,
    CreateCanisterArgs,
    CreateCanisterResult,
    CreateInstalledArgs,
    CreateInstalledResult,
    Management,
    SubnetChoice,
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
    """A creation under way: what its continuation needs; with a prepared canister also what another one would
    be made with."""

    kind: str
    owner: Principal
    version: nat64
    cycles: nat64
    pooled: Principal | None
    waiter: Waiter
    module_hash: bytes | None = None
    arg: bytes | None = None


class AlreadyMade(Exception):
    """An owner has a child of this kind, or one is being made: ask `Directory.find` and `is_making` first."""


class Nursery(Component, prefix="fleet.nursery"):
    """Make children, and keep canisters ready for them."""

    directory = Uses(Directory)
    treasury = Uses(Treasury)
    waves = Uses(Waves)
    making = StableMap(tuple[str, Principal], nat64)
    pool = StableSet(Principal, counted=True)
    has_nothing = StableCell(bool, False)
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
        subnet: SubnetChoice | None = None,
    ) -> Pending[Any]:  # of what `then` answers
        """Make a child and return what the method returns: `then` is a continuation of the canister, which
        takes an `Outcome[Child]` and `saved`. Where a `subnet` is wanted the pool is left alone, whose
        canisters are where they are.

        Raises `AlreadyMade`; Reject where the index has too few cycles or too many calls in flight.
        """
        kind = release.kind
        if self.directory.find(kind, owner) is not None or self.is_making(ctx, kind, owner):
            raise AlreadyMade(f"{owner} has a {kind}, or one is being made")
        self.making.put((kind, owner), ctx.now_ns)
        pooled = self._first_of_pool() if subnet is None else None
        making = Making(kind, owner, release.version, cycles, pooled, ctx.waiter(then, saved))
        try:
            if pooled is None:
                made = _create_installed(ctx, release.module_hash, arg, subnet)
                return ctx.call_for(made, then, then=self.made, saved=making, cycles=cycles)
            making = replace(making, module_hash=release.module_hash, arg=arg)
            return self._fit(ctx, making, pooled, then)
        except Reject:
            # The author may catch it: nothing is under way.
            self.making.delete((kind, owner))
            if cycles > self.treasury.spendable(ctx):
                self.treasury.note_birth(ctx, max(cycles, self.treasury.dearest_birth.get()))
            raise

    def _fit(
        self, ctx: Context, making: Making, pooled: Principal, then: Callable[..., object]
    ) -> Pending[Any]:  # of what `then` answers
        management, cycles = Management(), making.cycles
        assert making.module_hash is not None, "a prepared canister gets a module"
        assert making.arg is not None, "and an argument"
        if cycles:
            # Before the installation in the management canister's queue: it is paid for out of them.
            ctx.notify(management.deposit_cycles(CanisterIdArg(pooled)), cycles=cycles)
        fitted = management.install_chunked_code(install_known(pooled, making.module_hash, making.arg))
        pending = ctx.call_for(fitted, then, then=self.fitted, saved=making)
        self.pool.discard(pooled)
        self.fitting.put(pooled, ctx.now_ns)
        return pending

    @continuation
    def made(self, ctx: Context, outcome: Outcome[CreateInstalledResult], saved: Making) -> Continued:
        """Note the new child, or give its place back."""
        canister = outcome.value.canister_id if outcome.ok else None
        return self._settle(ctx, saved, canister, outcome)

    @continuation
    def fitted(
        self, ctx: Context, outcome: Outcome[None], saved: Making
    ) -> Continued | Pending[Any]:  # nobody but the waiter answers
        """Note the new child, or put its canister back. One that is unfit is left to the orphans, and the
        child is made with another one.
        """
        assert saved.pooled is not None, "only prepared canisters are fitted"
        self.fitting.delete(saved.pooled)
        is_unfit = not outcome.ok and outcome.error_code in UNFIT_CODES
        if not outcome.ok and not is_unfit:
            self.keep(saved.pooled)
        self._refill(ctx)
        if is_unfit and saved.module_hash is not None and saved.arg is not None:
            ctx.log(f"{saved.pooled} of the pool is unfit: {outcome.reject_message}")
            made = _create_installed(ctx, saved.module_hash, saved.arg, None)
            try:
                return ctx.call(made, then=self.made, saved=_without_pool(saved), cycles=saved.cycles)
            except Reject as reject:
                ctx.log(f"no other canister is made now: {reject.message}")
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
        self.treasury.welcome(ctx, child, is_new=saved.pooled is None)
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
        self.treasury.note_birth(ctx, max((each for each in self.births.values()), default=0))

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
        if self.has_nothing.get():
            self.has_nothing.set(False)

    def _first_of_pool(self) -> Principal | None:
        """Return a prepared canister; that there is none is noted, since each look would be a scan."""
        if self.has_nothing.get():
            return None
        found = self.pool.first()
        if found is None:
            self.has_nothing.set(True)
        return found

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
        call = Management().create_canister(CreateCanisterArgs(CanisterSettings(controllers=_holders(ctx))))
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
            self.keep(outcome.value.canister_id)
            self._refill(ctx)
        elif ordered <= 1:
            ctx.log(f"the pool is not filled: {outcome.reject_message}")
            ctx.timer_set(self.refill, after_s=POOL_RETRY_S)

    @timer
    def refill(self, ctx: Context) -> None:
        """Try again to fill the pool."""
        self._refill(ctx)


def _create_installed(
    ctx: Context, module_hash: bytes, arg: bytes, subnet: SubnetChoice | None
) -> Call[CreateInstalledResult]:
    args = CreateInstalledArgs(module_hash, arg, _holders(ctx), subnet)
    return Management().cannery_create_installed(args)


def _without_pool(making: Making) -> Making:
    return replace(making, pooled=None, module_hash=None, arg=None)


def _holders(ctx: Context) -> list[Principal]:
    """Return who is to control a child: this index, and that of the fleet where this is a local one."""
    fleet = ctx.fleet
    return [ctx.id] if fleet is None or fleet == ctx.id else [ctx.id, fleet]
