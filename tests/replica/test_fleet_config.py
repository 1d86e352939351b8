"""Roles and values of a fleet: who sets them, when they reach whom, and what is refused."""

from __future__ import annotations

import pytest

from cannery import (
    Canister,
    Context,
    Outcome,
    Pending,
    Principal,
    continuation,
    encode_args,
    role,
    update,
)
from cannery.candid.codec import decoder
from cannery.candid.python import type_of
from cannery.cdk.management import FleetConfigureArgs as ConfigureArgs
from cannery.cdk.management import FleetConfigureResult as ConfigureResult
from cannery.cdk.management import FleetInfo as Info
from cannery.cdk.management import FleetModuleArgs as ModuleArgs
from cannery.cdk.management import FleetRole as Role
from cannery.cdk.management import FleetValue as Value
from cannery.cdk.management import Management
from cannery.replica.block import PriceSchedule
from cannery.replica.management import fleet_types as ft
from cannery.replica.management import types as t
from tests.replica.fleet_world import Fleet, Member, Seen, decode_seen
from tests.replica.management_world import (
    OPERATOR,
    OWNER,
    STRANGER,
    Rejected,
    World,
    int_argument,
    make_puppet,
    puppet_call,
)

MODERATOR = "moderator"


class Moderated(Member):
    """A member with a method for moderators."""

    @update(only=role(MODERATOR))
    def close(self, ctx: Context) -> None:
        """Do nothing."""


def _configure(
    fleet: Fleet,
    give: dict[str, list[Principal]] | None = None,
    take: dict[str, list[Principal]] | None = None,
    values: dict[str, str | None] | None = None,
) -> ft.FleetConfigureResult:
    args = ft.FleetConfigureArgs(
        [ft.FleetRole(name, who) for name, who in (give or {}).items()],
        [ft.FleetRole(name, who) for name, who in (take or {}).items()],
        [ft.FleetValue(name, value) for name, value in (values or {}).items()],
    )
    result = fleet.manage("cannery_fleet_configure", args)
    assert isinstance(result, ft.FleetConfigureResult)
    return result


def _look(fleet: Fleet, canister: Principal, caller: Principal = OWNER) -> Seen:
    by_query = decode_seen(fleet.world.query(caller, canister, "look"))
    assert by_query == decode_seen(fleet.world.call(caller, canister, "see"))
    return by_query


def test_a_change_reaches_members_that_run_are_stopped_or_not_made_yet_with_its_round() -> None:
    fleet = Fleet()
    one, stopped = (fleet.create(fleet.module(version=3)) for _ in range(2))
    fleet.manage("stop_canister", t.CanisterIdRecord(stopped))
    assert (_look(fleet, one).value, _look(fleet, one).config_version) == (None, 0)
    result = _configure(fleet, give={MODERATOR: [OWNER]}, values={"signups": "closed"})
    assert (result.version, result.waiting) == (1, [])
    fleet.manage("start_canister", t.CanisterIdRecord(stopped))
    new = fleet.create(fleet.module(version=3))
    for canister in (one, stopped, new, fleet.index):
        seen = _look(fleet, canister)
        assert (seen.value, seen.config_version, seen.has_role) == ("closed", 1, True)
        assert not _look(fleet, canister, STRANGER).has_role
        assert seen.release == "user 3"
    stranger = _look(fleet, fleet.witness)
    assert (stranger.value, stranger.config_version, stranger.release) == (None, 0, None)
    assert _configure(fleet, values={"signups": None}).version == 2
    assert (_look(fleet, one).value, _look(fleet, one).config_version) == (None, 2)


def test_a_right_that_is_taken_away_is_gone_with_the_round() -> None:
    fleet = Fleet()
    world = fleet.world
    data = world.programs.module_of(Moderated)
    module_hash = world.manage(OPERATOR, "cannery_module_add", data)
    fleet.manage("cannery_fleet_module_put", ft.FleetModuleArgs(module_hash, "group", 1))
    group = fleet.create(module_hash)
    for caller in (OWNER, fleet.witness):
        _configure(fleet, give={MODERATOR: [caller, STRANGER]})
    world.call(OWNER, group, "close")
    puppet_call(world, fleet.witness, group, "close")
    with pytest.raises(Rejected, match="close is for principals with the role 'moderator' in the fleet"):
        world.call(OPERATOR, group, "close")
    _configure(fleet, give={MODERATOR: [OWNER]}, take={MODERATOR: [OWNER, fleet.witness]})
    with pytest.raises(Rejected, match="close is for"):
        world.call(OWNER, group, "close")
    with pytest.raises(Rejected, match="close is for"):
        puppet_call(world, fleet.witness, group, "close")
    world.call(STRANGER, group, "close")
    fleet.set_controllers(group, OWNER)
    with pytest.raises(Rejected, match="close is for"):
        world.call(STRANGER, group, "close")


def test_a_frozen_member_has_the_change_when_it_thaws() -> None:
    fleet = Fleet(World(PriceSchedule(per_message=1, storage_per_gib_second=10**12)))
    world, one = fleet.world, fleet.create(fleet.module())
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(one, 10**6))
    world.call(OWNER, one, "set", int_argument(5))
    with pytest.raises(Rejected, match="out of cycles"):
        world.call(OWNER, one, "see")
    _configure(fleet, values={"signups": "on"})
    assert decode_seen(world.query(OWNER, one, "look")).value == "on"
    world.manage(OPERATOR, "cannery_top_up", t.TopUpArgs(one, 10**12))
    assert decode_seen(world.call(OWNER, one, "see")).value == "on"


def test_fleets_do_not_see_each_other_s_configuration() -> None:
    fleet = Fleet()
    other = Fleet(fleet.world)
    one, far = fleet.create(fleet.module()), other.create(other.module())
    _configure(fleet, give={MODERATOR: [OWNER]}, values={"signups": "a"})
    _configure(other, values={"signups": "b"})
    assert (_look(fleet, one).value, _look(fleet, one).has_role) == ("a", True)
    assert (_look(other, far).value, _look(other, far).has_role) == ("b", False)


def test_operators_and_those_who_control_the_index_see_a_fleet() -> None:
    fleet = Fleet()
    module = fleet.module(version=7)
    one = fleet.create(module)
    _configure(fleet, give={"a": [OWNER], MODERATOR: [STRANGER, OWNER]}, values={"y": "2", "x": "1"})
    wanted = ft.FleetInfo(
        members=1,
        config_version=1,
        config_at_ns=fleet.world.time_ns,
        modules=[ft.FleetModuleArgs(module, "user", 7)],
        roles=[
            ft.FleetRole("a", [OWNER]),
            ft.FleetRole(MODERATOR, sorted([STRANGER, OWNER], key=lambda p: p.raw)),
        ],
        values=[ft.FleetValue("x", "1"), ft.FleetValue("y", "2")],
    )
    found = fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.index)
    assert found == wanted
    assert fleet.manage("cannery_fleet_info", fleet.index) == wanted
    settings = t.CanisterSettings(controllers=[OPERATOR, STRANGER])
    fleet.world.manage(OPERATOR, "update_settings", t.UpdateSettingsArgs(fleet.index, settings))
    assert fleet.world.ask(STRANGER, "cannery_fleet_info", fleet.index) == wanted
    for caller in (OWNER, one):
        with pytest.raises(Rejected, match="Only operators and controllers of the index"):
            fleet.world.ask(caller, "cannery_fleet_info", fleet.index)
    with pytest.raises(Rejected, match="is the index of no fleet"):
        fleet.world.ask(OPERATOR, "cannery_fleet_info", fleet.witness)
    assert fleet.world.ask(OPERATOR, "cannery_fleet_list") == [fleet.index]
    with pytest.raises(Rejected, match="Only operators"):
        fleet.world.ask(OWNER, "cannery_fleet_list")


def test_what_is_too_much_is_refused_and_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fleet = Fleet()
    one = fleet.create(fleet.module())
    _configure(fleet, give={MODERATOR: [OWNER]}, values={"signups": "on"})
    many = [Principal(n.to_bytes(4, "big")) for n in range(1_001)]
    for give, values, text in (
        ({"": [OWNER]}, {}, "A role has 1 to 64 bytes"),
        ({"é" * 33: [OWNER]}, {}, "has 66"),
        ({}, {"": "x"}, "A value's name has 1 to 64 bytes"),
        ({}, {"x": "é" * 4_097}, "has 8194 bytes, more than 8192"),
        ({MODERATOR: many}, {}, "at most 1000 principals and values, this one has 1002"),
        ({}, {f"v{n}": "x" for n in range(100)}, "at most 100 named values"),
    ):
        with pytest.raises(Rejected, match=text):
            _configure(fleet, give=give, values={"signups": "off", **values})
        assert (_look(fleet, one).value, _look(fleet, one).config_version) == ("on", 1)
    monkeypatch.setattr("cannery.replica.management.fleets.FLEET_HOLDER_COUNT_MAX", 3)
    with pytest.raises(Rejected, match="at most 3 principals in all"):
        _configure(fleet, give={MODERATOR: many[:3]})
    _configure(fleet, give={MODERATOR: many[:3]}, take={MODERATOR: [OWNER]})


# --- as authors call it ------------------------------------------------------------------------------------


class Keeper(Canister):
    """An index that founds its fleet and configures it through the typed interface."""

    @update
    def found(self, ctx: Context, module_hash: bytes) -> Pending[ConfigureResult]:
        """Found the fleet, bring a module, give a role."""
        ctx.notify(Management().cannery_fleet_found())
        ctx.notify(Management().cannery_fleet_module_put(ModuleArgs(module_hash, "user", 2)))
        change = ConfigureArgs([Role(MODERATOR, [ctx.caller])], [], [Value("signups", "on")])
        return ctx.call(Management().cannery_fleet_configure(change), then=self.configured)

    @continuation
    def configured(self, ctx: Context, outcome: Outcome[ConfigureResult]) -> ConfigureResult:
        """Tell the version."""
        return outcome.unwrap()

    @update
    def drop(self, ctx: Context, module_hash: bytes) -> Pending[Info]:
        """Take the module out again, and show what is left."""
        ctx.notify(Management().cannery_fleet_module_remove(module_hash))
        return ctx.call(Management().cannery_fleet_info(ctx.id))


def test_an_index_uses_the_typed_interface() -> None:
    fleet = Fleet()
    world, module = fleet.world, fleet.module()
    keeper = make_puppet(world, Keeper, owner=OPERATOR)
    reply = world.call(OWNER, keeper, "found", encode_args(module))
    assert decoder((type_of(ConfigureResult),))(reply) == (ConfigureResult(1, []),)
    info = world.ask(OPERATOR, "cannery_fleet_info", keeper)
    assert (info.modules, info.roles) == (
        [ft.FleetModuleArgs(module, "user", 2)],
        [ft.FleetRole(MODERATOR, [OWNER])],
    )
    (left,) = decoder((type_of(Info),))(world.call(OWNER, keeper, "drop", encode_args(module)))
    assert isinstance(left, Info)
    assert (left.modules, left.values) == ([], [Value("signups", "on")])
