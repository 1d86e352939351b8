"""Versions of a canister whose hooks fail by the number that it holds, and a canister that upgrades many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec.structs import replace

from cannery import (
    Call,
    Canister,
    Context,
    Pending,
    Principal,
    RawOutcome,
    StableCell,
    continuation,
    health,
    nat64,
    post_upgrade,
    pre_upgrade,
    query,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.ports import Stopped
from cannery.replica import keys
from cannery.replica.block import Configure, PriceSchedule
from cannery.replica.management import types as t
from cannery.replica.management.upgrade_types import UpgradeManyArgs, UpgradeResult
from tests.replica.management_world import (
    FAR,
    MANAGEMENT,
    OPERATOR,
    OWNER,
    World,
    encode_argument,
    int_argument,
    make_puppet,
    order_argument,
    order_result,
)

METHOD = "cannery_upgrade_many"
TRAPS, HANGS, CORRUPTS, CANNOT_END, HANGS_AT_END = 1, 2, 3, 4, 5
STORAGE = PriceSchedule(storage_per_gib_second=10**12)


class Old(Canister):
    """The first version: a number, and a hook that cannot end some of them."""

    number = StableCell(nat64, 0)
    ended = StableCell(nat64, 0)

    @pre_upgrade
    def end(self, ctx: Context) -> None:
        """Note that the old version ended."""
        self.ended.set(nat64(7))
        ctx.log("ends")
        if self.number.get() == CANNOT_END:
            ctx.trap("cannot end")
        if self.number.get() == HANGS_AT_END:
            raise Stopped

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()

    @update
    def hold(self, ctx: Context) -> Pending[nat64]:
        """Keep a call open for ever."""
        return ctx.call(Call.raw(FAR, "nothing", b"DIDL\x00\x00"), then=self.held)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome) -> nat64:
        """End what was held."""
        return self.number.get()


class New(Canister):
    """The second version: it begins with a hook that fails for some numbers, and is unwell with one."""

    number = StableCell(nat64, 0)
    ended = StableCell(nat64, 0)
    begun = StableCell(nat64, 0)

    @post_upgrade
    def begin(self, ctx: Context) -> None:
        """Note that the new version began."""
        self.begun.set(nat64(8))
        ctx.log("begins")
        if self.number.get() == TRAPS:
            ctx.trap("cannot begin")
        if self.number.get() == HANGS:
            raise Stopped

    @health
    def is_well(self, ctx: Context) -> bool:
        """Say whether the number is a healthy one."""
        return self.number.get() != CORRUPTS

    @update
    def set(self, ctx: Context, value: nat64) -> None:
        """Keep a number."""
        self.number.set(value)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()

    @update
    def hold(self, ctx: Context) -> Pending[nat64]:
        """Keep a call open for ever."""
        return ctx.call(Call.raw(FAR, "nothing", b"DIDL\x00\x00"), then=self.held)

    @continuation
    def held(self, ctx: Context, outcome: RawOutcome) -> nat64:
        """End what was held."""
        return self.number.get()


class Mute(Canister):
    """A version whose interface lacks methods: clients of the others cannot go on with it."""

    number = StableCell(nat64, 0)

    @query
    def get(self, ctx: Context) -> nat64:
        """Give the number."""
        return self.number.get()


class UpgradeWorld(World):
    """A subnet with a canister, `index`, that controls others, and their modules."""

    def __init__(self, prices: PriceSchedule | None = None) -> None:
        super().__init__(prices, far=True)
        self.index = make_puppet(self)
        self.hashes = {cls: self._add(cls) for cls in (Old, New, Mute)}

    def _add(self, cls: type[Canister]) -> bytes:
        found = self.manage(OPERATOR, "cannery_module_add", self.programs.module_of(cls))
        assert isinstance(found, bytes)
        return found

    def make(self, number: int, cls: type[Canister] = Old, *others: Principal) -> Principal:
        """Make a canister of the index's with a number."""
        canister = make_puppet(self, cls, owner=OWNER)
        self.call(OWNER, canister, "set", int_argument(number))
        self.control(canister, self.index, OWNER, *others)
        return canister

    def control(self, canister: Principal, *holders: Principal) -> None:
        """Give a canister to controllers; it belongs to the owner so far."""
        wanted = t.CanisterSettings(controllers=list(holders))
        self.manage(OWNER, "update_settings", t.UpdateSettingsArgs(canister, wanted))

    def few_per_round(self, work_count_max: int = 2_000) -> None:
        """Let a round hold only a few upgrades."""
        self.config = replace(self.config, work_count_max=work_count_max)
        self.block(Configure(self.config))

    def one_per_turn(self) -> None:
        """Let a canister run one message a turn, as in a round of few messages."""
        self.config = replace(self.config, activation_count_max=100)
        self.block(Configure(self.config))

    def args(self, targets: Sequence[Principal], cls: type[Canister] = New, **more: Any) -> UpgradeManyArgs:
        """Make the arguments of a batch."""
        return UpgradeManyArgs(
            module_hash=self.hashes[cls],
            arg=b"",
            targets=list(targets),
            force=more.pop("force", False),
            **more,
        )

    def upgrade(
        self, targets: Sequence[Principal], cls: type[Canister] = New, **more: Any
    ) -> list[UpgradeResult]:
        """Let the index upgrade canisters; raises `Rejected`."""
        cycles = more.pop("cycles", 0)
        order = self.order(self.args(targets, cls, **more), cycles)
        return results_of(self.call(OWNER, self.index, "order", order))

    def order(self, args: UpgradeManyArgs, cycles: int = 0) -> bytes:
        """Encode what the index is told for a batch."""
        return order_argument(MANAGEMENT, METHOD, encode_argument(METHOD, args), cycles)

    def keys_of(self, canister: Principal) -> dict[bytes, bytes]:
        """Give everything that stands under a canister's id, byte for byte."""
        raw = canister.raw
        local = (keys.REQUESTS, keys.BLOCKS)
        return {k: v for k, v in self.store.scan(b"", b"\xff") if raw in k and k[0] not in local}

    def module_of(self, canister: Principal) -> bytes | None:
        """Give the module that a canister is on."""
        found = self.ask(OPERATOR, "canister_status", t.CanisterIdRecord(canister)).module_hash
        assert found is None or isinstance(found, bytes)
        return found

    def leftovers(self) -> list[bytes]:
        """Give the keys of batches that are not at their end."""
        spaces = (keys.UPGRADE_BATCHES, keys.UPGRADE_RESULTS)
        return [k for space in spaces for k, _ in self.store.scan(*keys.space_range(space))]


def results_of(reply: bytes) -> list[UpgradeResult]:
    """Decode what the index tells of its batch; raises `AssertionError` where it was rejected."""
    result = order_result(reply)
    assert not result.reject_code, result.reject_message
    (found,) = decoder((type_of(list[UpgradeResult]),))(result.reply)
    assert isinstance(found, list)
    return found


def tags(results: Sequence[UpgradeResult]) -> list[str]:
    """Give the outcomes by name."""
    return [result.outcome.tag for result in results]
