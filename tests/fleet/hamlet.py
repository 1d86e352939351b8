"""A fleet for tests of rollouts: an index that gives each caller a hut, and builds of huts, good and bad.

A hut knows by its owner whether a build is bad for it: one in a hundred traps, one hangs, one is corrupted.
"""

from __future__ import annotations

from cannery import (
    Canister,
    Case,
    Context,
    Outcome,
    Pending,
    Principal,
    StableCell,
    Variant,
    continuation,
    encode_args,
    health,
    init,
    nat64,
    post_upgrade,
    pre_upgrade,
    query,
    update,
    variant,
)
from cannery.fleet.directory_types import Child
from cannery.fleet.index import Index
from cannery.fleet.member import Member

TRAPS, HANGS, CORRUPTS = 41, 42, 43


@variant
class Roof(Variant):
    """What huts have on them."""

    thatch: Case[None]


@variant
class AnyRoof(Variant):
    """What huts that know of slate have on them."""

    thatch: Case[None]
    slate: Case[None]


class Hut(Canister):
    """The first release."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutWithBell(Canister):
    """A good release: one method more."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())
    rings = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()

    @update
    def ring(self, ctx: Context) -> nat64:
        self.rings.set(self.rings.get() + 1)
        return self.rings.get()


class HutForMost(Canister):
    """A release that traps, hangs or corrupts in some huts."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())
    mended = StableCell(nat64, 0)

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @post_upgrade
    def mend(self, ctx: Context) -> None:
        kind = int.from_bytes(self.owner.get().raw[:2], "little") % 100
        if kind == TRAPS:
            ctx.trap("the beam broke")
        while kind == HANGS:
            kind = HANGS
        self.mended.set(self.knocks.get() + (kind == CORRUPTS))

    @health
    def is_sound(self, ctx: Context) -> bool:
        return self.mended.get() <= self.knocks.get()

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutOfStone(Canister):
    """A good release with the interface of the first."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutThatStays(Canister):
    """A release that upgrades well, and traps where another one is to follow."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @pre_upgrade
    def stay(self, ctx: Context) -> None:
        ctx.trap("I stay as I am")

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutOfWords(Canister):
    """A release whose health check answers what is neither true nor false."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @health
    def is_well(self, ctx: Context) -> bool:
        return "ill"  # type: ignore[return-value]  # that is what is tested

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutOfStraw(Canister):
    """A release that is bad for all."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @post_upgrade
    def blow(self, ctx: Context) -> None:
        ctx.trap("it was blown down")

    @update
    def knock(self, ctx: Context) -> nat64:
        return 0

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutWithoutDoor(Canister):
    """A release whose interface lacks a method."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(Roof, Roof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class HutWithSlate(Canister):
    """A release with no way back: what it stores the first one cannot read."""

    member = Member()
    owner = StableCell(Principal, Principal.anonymous())
    knocks = StableCell(nat64, 0)
    roof = StableCell(AnyRoof, AnyRoof.thatch())

    @init
    def build(self, ctx: Context, owner: Principal) -> None:
        self.owner.set(owner)

    @update
    def knock(self, ctx: Context) -> nat64:
        self.knocks.set(self.knocks.get() + 1)
        return self.knocks.get()

    @query
    def knocked(self, ctx: Context) -> nat64:
        return self.knocks.get()


class Hamlet(Canister):
    """The index: a hut for each caller, made with the current release."""

    fleet = Index()

    @update
    def settle(self, ctx: Context) -> Child | Pending[Child]:
        """Give the caller a hut."""
        found = self.fleet.directory.find("hut", ctx.caller)
        if found is not None:
            return found
        release = self.fleet.registry.current("hut")
        if release is None:
            ctx.reject("there is no release of huts yet")
        arg = encode_args(ctx.caller)
        return self.fleet.nursery.create(
            ctx, release, ctx.caller, arg, then=self.settled, saved=ctx.caller, cycles=10**8
        )

    @update
    def settle_late(self, ctx: Context, version: nat64) -> Pending[Child]:
        """Make the caller's hut with a release that may be an old one."""
        release = self.fleet.registry.get("hut", version)
        assert release is not None
        arg = encode_args(ctx.caller)
        return self.fleet.nursery.create(ctx, release, ctx.caller, arg, then=self.settled, saved=ctx.caller)

    @continuation
    def settled(self, ctx: Context, outcome: Outcome[Child], saved: Principal) -> Child:
        """Answer who asked for a hut."""
        if not outcome.ok:
            ctx.reject(f"no hut: {outcome.reject_message}")
        return outcome.value
