"""A fleet in memory: an index that founded one, members that say who they take their caller for."""

from __future__ import annotations

from typing import Any

from cannery import (
    Call,
    Context,
    Pending,
    Principal,
    RawOutcome,
    composite_query,
    continuation,
    encode_args,
    query,
    record,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import nat64, type_of
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import types as t
from tests.replica.management_world import (
    OPERATOR,
    Order,
    Puppet,
    World,
    make_puppet,
    puppet_call,
    puppet_manage,
)


@record
class Seen:
    """What a context said of fleets."""

    caller_fleet: Principal | None
    fleet: Principal | None
    has_role: bool
    value: str | None
    config_version: nat64
    release: str | None


def _seen(ctx: Context) -> Seen:
    release = ctx.release
    return Seen(
        ctx.caller_fleet,
        ctx.fleet,
        ctx.has_role("moderator"),
        ctx.fleet_value("signups"),
        ctx.fleet_config_version,
        None if release is None else f"{release.kind} {release.version}",
    )


class Member(Puppet):
    """A puppet that tells what its context says of fleets."""

    @update
    def see(self, ctx: Context) -> Seen:
        """Tell it of the call."""
        return _seen(ctx)

    @query
    def look(self, ctx: Context) -> Seen:
        """Tell it of a query."""
        return _seen(ctx)

    @composite_query
    def look_across(self, ctx: Context, other: Principal) -> Seen:
        """Tell what another canister sees of this one in a query."""
        return decode_seen(ctx.query(Call.raw(other, "look", encode_args())).unwrap())

    @update
    def see_after(self, ctx: Context, order: Order) -> Pending[Seen]:
        """Make a call first, and tell what the continuation sees."""
        return ctx.call(Call.raw(order.callee, order.method, order.arg), then=self.seen_after)

    @continuation
    def seen_after(self, ctx: Context, outcome: RawOutcome) -> Seen:
        """Tell it of whoever made the first call."""
        outcome.unwrap()
        return _seen(ctx)


def decode_seen(reply: bytes) -> Seen:
    """Decode what a member told."""
    (seen,) = decoder((type_of(Seen),))(reply)
    assert isinstance(seen, Seen)
    return seen


class Fleet:
    """A world with an index, its registry and a witness: a canister that is in no fleet."""

    def __init__(self, world: World | None = None) -> None:
        self.world = world or World()
        self.index = make_puppet(self.world, Member, owner=OPERATOR)
        self.witness = make_puppet(self.world, Member)
        self.manage("cannery_fleet_found")

    def manage(self, method: str, value: Any = None, by: Principal | None = None) -> Any:
        """Let the index call the management canister; raises `Rejected`."""
        return puppet_manage(self.world, self.index if by is None else by, method, value)

    def module(self, tag: str = "", *, register: bool = True, version: int = 1) -> bytes:
        """Bring a module of `Member` to the node, and into the registry."""
        data = self.world.programs.module_of(Member, tag)
        module_hash = self.world.manage(OPERATOR, "cannery_module_add", data)
        assert isinstance(module_hash, bytes)
        if register:
            self.manage("cannery_fleet_module_put", ft.FleetModuleArgs(module_hash, "user", version))
        return module_hash

    def create(self, module_hash: bytes, controllers: list[Principal] | None = None) -> Principal:
        """Let the index make a canister with a module; it controls it itself unless told."""
        holders = [self.index] if controllers is None else controllers
        made = self.manage("cannery_create_installed", t.CreateInstalledArgs(module_hash, b"", holders))
        assert isinstance(made, t.CanisterIdRecord)
        return made.canister_id

    def set_controllers(
        self, canister: Principal, *controllers: Principal, by: Principal | None = None
    ) -> None:
        """Let the index, or another canister, change a canister's controllers."""
        settings = t.CanisterSettings(controllers=list(controllers))
        self.manage("update_settings", t.UpdateSettingsArgs(canister, settings), by)

    def install(
        self, canister: Principal, module_hash: bytes, mode: t.InstallMode, by: Principal | None = None
    ) -> None:
        """Let the index, or another canister, install a module."""
        args = t.InstallChunkedCodeArgs(mode, canister, None, [], module_hash, b"")
        self.manage("install_chunked_code", args, by)

    def seen(self, caller: Principal, callee: Principal | None = None) -> Seen:
        """Let a canister call another, and give what that one saw."""
        to = self.witness if callee is None else callee
        return decode_seen(puppet_call(self.world, caller, to, "see").reply)

    def looked(self, caller: Principal) -> Seen:
        """Let a canister query the witness."""
        return decode_seen(self.world.query(OPERATOR, caller, "look_across", encode_args(self.witness)))

    def stamp(self, caller: Principal) -> Principal | None:
        """Give the fleet that a canister's calls are stamped with; queries must say the same."""
        found = self.seen(caller).caller_fleet
        assert self.looked(caller).caller_fleet == found
        return found


def upgrade() -> t.InstallMode:
    """Give the mode of an upgrade."""
    return t.InstallMode.upgrade(None)
