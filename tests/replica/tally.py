"""Versions of one canister, and others, for tests of installations and upgrades; what tests do with them."""

from __future__ import annotations

from cannery import (
    Call,
    Canister,
    Context,
    Pending,
    Principal,
    RawOutcome,
    StableCell,
    StableMap,
    continuation,
    health,
    init,
    nat64,
    post_upgrade,
    pre_upgrade,
    query,
    timer,
    update,
)
from cannery.candid.codec import encoder
from cannery.candid.types import Nat64
from cannery.replica.management import types as t
from tests.replica.management_world import (
    MANAGEMENT,
    OPERATOR,
    OWNER,
    World,
    encode_argument,
    int_result,
    make_puppet,
    order_argument,
)

MODES = {
    "install": t.InstallMode.install(),
    "reinstall": t.InstallMode.reinstall(),
    "upgrade": t.InstallMode.upgrade(None),
}


class Tally(Canister):
    """Version 1: a count and some names, a hook at its end, calls and timers that stay open."""

    count = StableCell(nat64, 0)
    names = StableMap(str, nat64)
    ended = StableCell(nat64, 0)

    @init
    def begin(self, ctx: Context, start: nat64) -> None:
        """Begin at a number; 13 is refused."""
        if start == 13:
            ctx.trap("unlucky")
        self.count.set(start)
        ctx.log(f"begun at {start}")

    @pre_upgrade
    def end(self, ctx: Context) -> None:
        """Note that the old version ended."""
        self.ended.set(ctx.version)
        if self.count.get() == 99:
            ctx.trap("cannot end")

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()

    @query
    def ended_at(self, ctx: Context) -> nat64:
        """Give the version in which the old code ended."""
        return self.ended.get()

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Set the count."""
        self.count.set(value)

    @update
    def hold(self, ctx: Context, callee: Principal) -> Pending[nat64]:
        """Stop another canister, which may take long."""
        arg = encode_argument("stop_canister", t.CanisterIdRecord(callee))
        return ctx.call(Call.raw(MANAGEMENT, "stop_canister", arg), then=self.held, saved=nat64(7))

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number."""
        return saved

    @update
    def tick_after(self, ctx: Context, seconds: nat64) -> None:
        """Set a timer."""
        ctx.timer_set(self.tick, after_s=seconds)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""
        self.count.set(self.count.get() + 1)


class TallyNext(Canister):
    """Version 2: keeps everything, adds a collection, starts with an argument, has a health query."""

    count = StableCell(nat64, 0)
    names = StableMap(str, nat64)
    ended = StableCell(nat64, 0)
    added = StableMap(nat64, str)

    @post_upgrade
    def resume(self, ctx: Context, step: nat64) -> None:
        """Add to the count; 13 is refused."""
        if step == 13:
            ctx.trap("unlucky")
        self.count.set(self.count.get() + step)
        self.added.put(nat64(ctx.version), "resumed")
        ctx.log("resumed")

    @health
    def is_well(self, ctx: Context) -> bool:
        """Say whether the count is below a thousand."""
        return self.count.get() < 1_000

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the count."""
        return self.count.get()

    @query
    def ended_at(self, ctx: Context) -> nat64:
        """Give the version in which the old code ended."""
        return self.ended.get()

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number and a thousand."""
        return nat64(saved + 1_000)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count by ten."""
        self.count.set(self.count.get() + 10)


class TallyWithoutContinuation(Canister):
    """Lacks the continuation."""

    count = StableCell(nat64, 0)

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""


class TallyWithoutTimer(Canister):
    """Lacks the timer's method."""

    count = StableCell(nat64, 0)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: nat64) -> nat64:
        """Answer with the saved number."""
        return saved


class TallyWithOtherSaved(Canister):
    """Wants another saved value."""

    count = StableCell(nat64, 0)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome, saved: str) -> nat64:
        """Answer."""
        return nat64(len(saved))

    @timer
    def tick(self, ctx: Context) -> None:
        """Count."""


class TallyWithOtherTypes(Canister):
    """Has another idea of what is stored."""

    count = StableCell(str, "")
    names = StableMap(nat64, nat64)


class Plain(Canister):
    """No hooks at all."""

    @query
    def hello(self, ctx: Context) -> str:
        """Greet."""
        return "hello"


def number(value: int) -> bytes:
    return encoder((Nat64(),))((value,))


def tally(world: World, start: int = 5) -> Principal:
    """Create a canister of the owner's with version 1."""
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(Tally))
    args = t.CreateInstalledArgs(module_hash, number(start), [OWNER])
    made = world.manage(OPERATOR, "cannery_create_installed", args)
    assert isinstance(made, t.CanisterIdRecord)
    return made.canister_id


def deploy(
    world: World,
    canister: Principal,
    cls: type[Canister],
    mode: str = "upgrade",
    arg: bytes = b"",
    tag: str = "",
) -> None:
    """Install a class by its hash, as the owner; an operator has brought it before."""
    module_hash = world.manage(OPERATOR, "cannery_module_add", world.programs.module_of(cls, tag))
    args = t.InstallChunkedCodeArgs(MODES[mode], canister, None, [], module_hash, arg)
    world.manage(OWNER, "install_chunked_code", args)


def status_of(world: World, canister: Principal) -> t.CanisterStatusResult:
    status: t.CanisterStatusResult = world.ask(OPERATOR, "canister_status", t.CanisterIdRecord(canister))
    return status


def logs_of(world: World, canister: Principal) -> list[str]:
    found = world.ask(OWNER, "fetch_canister_logs", t.FetchLogsArgs(canister))
    return [line.content.decode() for line in found.canister_log_records]


def get(world: World, canister: Principal, method: str = "get") -> int:
    return int_result(world.query(OWNER, canister, method))


def stopping(world: World, controllers: list[Principal]) -> Principal:
    """Create a canister that stops and cannot come to an end, as it waits for its own stop."""
    puppet = make_puppet(world)
    settings = t.CanisterSettings(controllers=[OWNER, puppet, *controllers])
    world.manage(OWNER, "update_settings", t.UpdateSettingsArgs(puppet, settings))
    arg = encode_argument("stop_canister", t.CanisterIdRecord(puppet))
    world.submit(OWNER, puppet, "order", order_argument(MANAGEMENT, "stop_canister", arg))
    return puppet


def hold_a_call(world: World, canister: Principal) -> tuple[bytes, Principal]:
    """Leave a call of the canister open; starting the second canister again ends it."""
    other = stopping(world, [canister])
    request_id = world.submit(OWNER, canister, "hold", encode_argument_principal(other))
    assert request_id not in world.answers
    return request_id, other


def encode_argument_principal(principal: Principal) -> bytes:
    return encode_argument("cannery_operator_add", principal)
